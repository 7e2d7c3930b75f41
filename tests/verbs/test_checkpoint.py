"""Checkpoints: a run that was stopped anywhere is resumed bit for bit, and only by the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr

from invdiff import invert, reconstruct
from invdiff.errors import InputError
from invdiff.fwi import LBFGS, AnnealedMode, AnnealedPosterior, Minibatch, REDDiffusion
from invdiff.fwi.misfit import L2
from invdiff.noise import NoiseField
from invdiff.operators.mri import CartesianMRI
from invdiff.operators.seismic import Acoustic, Boundary, Devito, Survey, Threads, gardner
from invdiff.posterior import Posterior
from invdiff.priors.gaussian import GaussianPrior
from invdiff.protocols import Sampler
from invdiff.run_state import Checkpoint, check_identity, identity
from invdiff.samplers import (
    EKI,
    Ancestral,
    SDEDPMSolver,
    SplitGibbs,
    TwistedSMC,
    iterate,
    load_state,
    save_state,
)
from tests.support import tiny
from tests.support.closed_form import gaussian_problem
from tests.support.linear_waves import LinearWaves, waves_problem
from tests.support.seismic_cases import BOUNDS, acoustic, domain, line

WAVES = waves_problem(n_shots=3)
SCAN = tiny.scan((8, 8), n_coils=2)
MASK, MAPS = (torch.from_numpy(SCAN[name]) for name in ("mask", "sensitivity"))
OPERATOR = CartesianMRI(MASK, MAPS, domain=tiny.grid((8, 8)))


class Stopped(Exception):
    """As the power goes off."""


def scan_run(**changes: object) -> xr.Dataset:
    """A tiny reconstruction: complex data, a network, three batches of two."""
    operator = changes.pop("operator", OPERATOR)
    y = operator.range.to_dataarray(torch.from_numpy(SCAN["kspace"]), "kspace")
    given: dict[str, object] = {"realizations": 5, "batch_size": 2, "seed": 3, "noise_std": 0.02}
    given |= {"sampler": Ancestral(3), "prior": tiny.prior((8, 8), wiggle=0.1)} | changes
    return reconstruct(given.pop("y", y), operator, given.pop("prior"), **given)


def waves_run(**changes: object) -> xr.Dataset:
    """A tiny inversion."""
    given: dict[str, object] = {"y": WAVES.y, "operator": WAVES.operator, "start": WAVES.start}
    given |= {"prior": WAVES.prior, "seed": 0, "realizations": 2} | changes
    given.setdefault("method", AnnealedPosterior(2, fit=None))
    return invert(given.pop("y"), given.pop("operator"), given.pop("prior"), **given)


def stop_after(n: int, owner: object, name: str, patch: pytest.MonkeyPatch) -> None:
    """Let a function that stores raise when it has stored ``n`` times."""
    stored, calls = getattr(owner, name), []

    def store(*args: object, **kwargs: object) -> None:
        stored(*args, **kwargs)
        calls.append(1)
        if len(calls) == n:
            raise Stopped

    patch.setattr(owner, name, store)


SAMPLERS: list[tuple[Sampler, int]] = [
    (Ancestral(3), 9),
    (SDEDPMSolver(3), 9),  # remembers the last step
    (SplitGibbs(4, calls=2, inner_steps=2), 12),
    (TwistedSMC(3), 3),  # couples its members, and weights them
    (EKI(4, updates=2), 4),
]


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
@pytest.mark.parametrize(("sampler", "n_steps"), SAMPLERS, ids=lambda s: type(s).__name__)
def test_a_reconstruction_resumes_after_any_step(
    sampler: Sampler, n_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scan_run(sampler=sampler)
    for n in range(1, n_steps + 1):
        path = tmp_path / f"after-{n}"
        with monkeypatch.context() as patch:
            stop_after(n, Checkpoint, "save", patch)
            with pytest.raises(Stopped):
                scan_run(sampler=sampler, checkpoint=path)
        xr.testing.assert_identical(scan_run(sampler=sampler, checkpoint=path), expected)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing partial
        xr.testing.assert_identical(scan_run(sampler=sampler, checkpoint=str(path)), expected)
        path.unlink()


@pytest.mark.parametrize(
    "method",
    [
        LBFGS(3, bands=(20.0, 40.0)),
        LBFGS(4, shots=Minibatch(1, keep=2)),
        AnnealedPosterior(3, fit=LBFGS(2)),
        AnnealedMode(3, fit=None),
        REDDiffusion(3),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_an_inversion_resumes_after_any_step(
    method: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = waves_run(method=method)
    for n in range(1, method.steps + 1):
        path = tmp_path / f"after-{n}"
        with monkeypatch.context() as patch:
            stop_after(n, Checkpoint, "save", patch)
            with pytest.raises(Stopped):
                waves_run(method=method, checkpoint=path)
        xr.testing.assert_identical(waves_run(method=method, checkpoint=path), expected)


# --- other runs are refused, by the name of what differs ------------------------------------------


def other_prior() -> GaussianPrior:
    """The same architecture with other numbers."""
    prior = waves_problem(n_shots=3).prior
    prior.mean = prior.mean + 1
    return prior


def moved_waves(factor: float) -> LinearWaves:
    return LinearWaves(factor * WAVES.operator.matrices)


OTHER_SCANS: dict[str, tuple[dict[str, object], str]] = {
    "mask": (
        {"operator": CartesianMRI(~MASK, MAPS, domain=OPERATOR.domain)},
        r"likelihood\.operator\.mask",
    ),
    "maps": (
        {"operator": CartesianMRI(MASK, 1.01 * MAPS, domain=OPERATOR.domain)},
        r"likelihood\.operator\.sensitivity",
    ),
    "data": ({"y": OPERATOR.range.to_dataarray(MASK.expand(2, 8, 8) + 0j, "k")}, r"likelihood\.y"),
    "noise": ({"noise_std": 0.021}, r"likelihood\.noise"),
    "scale": ({"scale": 2.0}, r"likelihood\.y"),
    "sampler": ({"sampler": SDEDPMSolver(3)}, "sampler"),
    "steps": ({"sampler": Ancestral(4)}, r"sampler\.steps"),
    "keep": ({"sampler": Ancestral(3, keep=0.5)}, r"sampler\.keep"),
    "seed": ({"seed": 4}, "seed"),
    "members": ({"realizations": 4}, "members"),
    "order of members": ({"realizations": [1, 0, 2, 3, 4]}, "members"),
    "batch size": ({"batch_size": 3}, "batch_size"),
    "prior": ({"prior": tiny.prior((8, 8), wiggle=0.2)}, "prior"),
    "units of the prior": ({"prior": tiny.prior((8, 8), wiggle=0.1, scale=1.5)}, "prior"),
}  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "state"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, Checkpoint, "save", patch)
        with pytest.raises(Stopped):
            scan_run(checkpoint=path)
    return path


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataWarning")
@pytest.mark.parametrize("name", OTHER_SCANS)
def test_another_reconstruction_does_not_resume(stored: Path, name: str) -> None:
    changes, part = OTHER_SCANS[name]
    before = stored.read_bytes()
    with pytest.raises(InputError, match=rf"belongs to another run.*differs in .*{part}"):
        scan_run(checkpoint=stored, **changes)
    assert stored.read_bytes() == before


def noisy(factor: float) -> xr.DataArray:
    return WAVES.y.assign_attrs(noise_std=factor * WAVES.y.attrs["noise_std"])


OTHER_INVERSIONS: dict[str, tuple[dict[str, object], str]] = {
    "physics": ({"operator": moved_waves(1.001)}, r"operator\.matrices"),
    "bounds": ({"operator": LinearWaves(WAVES.operator.matrices, (400.0, 4500.0))}, "bounds"),
    "data": ({"y": WAVES.y + 1}, "data"),
    "misfit": ({"misfit": L2(99.0)}, "misfit"),
    "weights": ({"weights": xr.DataArray([1.0] * 5 + [0.5], dims="receiver")}, "weights"),
    "start": ({"start": WAVES.start + 1}, "start"),
    "prior": ({"prior": other_prior()}, "prior"),
    "levels": ({"method": AnnealedPosterior(2, fit=None, highest=90.0)}, r"method\.highest"),
    "fit": ({"method": AnnealedPosterior(2, fit=LBFGS(2))}, r"method\.fit"),
    "shots": ({"method": AnnealedPosterior(2, fit=None, shots=Minibatch(1))}, r"method\.shots"),
    "kind of method": ({"method": AnnealedMode(2, fit=None)}, "method"),
    "seed": ({"seed": 1}, "seed"),
    "noise": ({"y": noisy(1.01)}, "noise_std"),
    "members": ({"realizations": [0, 2]}, "members"),
}


@pytest.mark.parametrize("name", OTHER_INVERSIONS)
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_another_inversion_does_not_resume(name: str, tmp_path: Path) -> None:
    changes, part = OTHER_INVERSIONS[name]
    path = tmp_path / "state"
    waves_run(checkpoint=path, y=noisy(1.0))
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"belongs to another run.*differs in .*{part}"):
        waves_run(checkpoint=path, **changes)
    assert path.read_bytes() == before


def survey(**changes: object) -> Survey:
    return replace(line(), **changes)


def in_cells_of(factor: float) -> Acoustic:
    axes = {dim: factor * values for dim, values in domain().coords.items()}
    return Acoustic(
        line(), replace(domain(), coords=axes), bounds=BOUNDS, boundary=Boundary(12),
        engine=Devito(8, 1),
    )  # fmt: skip


@pytest.mark.seismic
def test_acoustic_operators_differ_in_what_changes_their_waves_alone() -> None:
    pytest.importorskip("devito")
    physics = {
        "survey": [
            acoustic(survey(wavelet=1.01 * line().wavelet)),
            acoustic(survey(sources=line().sources + 1.0)),
            acoustic(survey(receivers=line().receivers + 1.0)),
            acoustic(survey(dt=1.01e-3)),
        ],
        "boundary": [acoustic(is_free_surface=True), acoustic(n_absorbing=13)],
        "density": [acoustic(density=gardner), acoustic(density=torch.full((24, 30), 2e3))],
        "domain": [in_cells_of(1.1)],
        "engine": [acoustic(space_order=4), acoustic(snapshot=2), acoustic(substeps=3)],
    }
    usual = identity({"operator": acoustic()})
    check_identity(identity({"operator": acoustic()}), usual, "the same")
    check_identity(identity({"operator": acoustic(n_threads=2)}), usual, "more threads")
    assert acoustic(n_threads=2).engine.workers == Threads(2)
    for part, others in physics.items():
        for other in others:
            with pytest.raises(InputError, match=rf"differs in operator\.{part};"):
                check_identity(usual, identity({"operator": other}), "the checkpoint")


# --- states of iterate ----------------------------------------------------------------------------


def posterior(name: str) -> Posterior:
    problem = gaussian_problem(name, 0.3, n=6)
    return Posterior(problem.prior, problem.term)


@pytest.mark.parametrize("sampler", [Ancestral(4), SDEDPMSolver(4), TwistedSMC(4)])
def test_a_stored_state_is_resumed_by_its_own_run_alone(sampler: Sampler, tmp_path: Path) -> None:
    model, other = (posterior(name) for name in ("inpainting", "blur"))
    given = {"realizations": [4, 2], "seed": 1}
    states = list(iterate(model, sampler, **given))
    for state in states:
        save_state(state, tmp_path / "state")
        again = load_state(tmp_path / "state")
        assert again.run == state.run
        rest = list(iterate(model, sampler, **given, state=again))
        assert len(rest) == sampler.steps - state.step
        assert torch.equal(rest[-1].x if rest else again.x, states[-1].x)
    with pytest.raises(InputError, match=r"the state belongs to another run.*likelihood"):
        next(iterate(other, sampler, **given, state=again))
    with pytest.raises(InputError, match="differs in seed;"):
        next(iterate(model, sampler, realizations=[4, 2], seed=2, state=again))
    with pytest.raises(InputError, match="other members"):
        next(iterate(model, sampler, realizations=[2, 4], seed=1, state=again))
    with pytest.raises(InputError, match=r"differs in .*sampler\.steps"):
        next(iterate(model, replace(sampler, steps=9), **given, state=again))


def test_states_of_other_kinds_are_refused(tmp_path: Path) -> None:
    prior = gaussian_problem("inpainting", 0.3, n=6).prior
    with pytest.raises(InputError, match="load_state"):
        next(iterate(prior, Ancestral(2), realizations=1, seed=0, state="state"))
    with pytest.raises(InputError, match="is not a stored run"):
        load_state(tmp_path / "absent")
    (state,) = iterate(prior, Ancestral(1), realizations=1, seed=0)
    with pytest.raises(InputError, match="missing or read-only"):
        save_state(state, tmp_path / "absent" / "state")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [scan_run, waves_run])
def test_a_file_that_cannot_be_written_is_refused_before_the_first_step(
    run: Callable[..., xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(NoiseField, "at", fail)
    monkeypatch.setattr(LinearWaves, "misfit_and_gradient", fail)
    for path in (tmp_path / "missing" / "state", tmp_path, tmp_path / "file" / "state"):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="cannot write"):
            run(checkpoint=path)
    with pytest.raises(InputError, match="checkpoint is not a path"):
        run(checkpoint=3)


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\x08" + b"\0" * 7 + b"{}" + b" " * 6])
def test_a_file_of_another_kind_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    for run in (scan_run, waves_run):
        with pytest.raises(InputError, match="notes is not a stored run"):
            run(checkpoint=path)
    assert path.read_bytes() == content


def test_the_checkpoint_of_the_other_verb_is_refused(stored: Path) -> None:
    with pytest.raises(InputError, match="belongs to another run"):
        waves_run(checkpoint=stored)
