"""Laws that hold for every way to invert, on a wave operator that is a matrix."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import invert
from invdiff.errors import DivergedError, InputError
from invdiff.fwi import (
    LBFGS,
    Adam,
    AllShots,
    AnnealedMode,
    AnnealedPosterior,
    Encoded,
    Minibatch,
    REDDiffusion,
    annealed,
    total_variation,
)
from invdiff.fwi.drive import descend
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.objective import Objective
from invdiff.fwi.state import InversionState
from invdiff.linalg import Solution, conjugate_gradient
from invdiff.noise import NoiseField
from invdiff.run_state import Checkpoint
from invdiff.terms import Penalty
from tests.support.linear_waves import WavesProblem, waves_problem

STEPS, N_SHOTS = 6, 3
SHOTS = (AllShots(), Minibatch(2, keep=2), Encoded(1, keep=2))
BASIC: tuple[Method, ...] = (
    LBFGS(STEPS),
    Adam(STEPS, rate=0.1),
    REDDiffusion(STEPS, weight=0.1, rate=60.0, lowest=20.0, highest=400.0),
    AnnealedMode(STEPS, highest=300.0, lowest=50.0, fit=None),
    AnnealedPosterior(STEPS, highest=300.0, lowest=50.0, fit=None),
)
SPECIAL: tuple[Method, ...] = (
    LBFGS(STEPS, bands=(10.0, 20.0), terms=(Penalty(total_variation, 0.01),), memory=2),
    Adam(STEPS, bands=(20.0,), rate=0.1),
    AnnealedPosterior(
        STEPS, highest=300.0, lowest=50.0, bands=((100.0, 20.0),), memory=2, fit=None
    ),
)
# Every method with all shots and with one of the other choices.
_OTHERS = (SHOTS[1 + i % 2] for i in range(len(BASIC)))
METHODS = (*BASIC, *(replace(m, shots=s) for m, s in zip(BASIC, _OTHERS, strict=True)), *SPECIAL)  # type: ignore[type-var]


def _name(method: Method) -> str:
    """Without the addresses that functions have in a repr: workers must agree on it."""
    return f"{type(method).__name__}-{METHODS.index(method)}"


every_method = pytest.mark.parametrize("method", METHODS, ids=_name)
of_all_shots = pytest.mark.parametrize("method", BASIC, ids=_name)
RANDOM = (REDDiffusion, AnnealedPosterior)


def test_the_registry_holds_every_method_and_choice_of_shots() -> None:
    """A new one has no excuse."""
    package = import_module("invdiff.fwi")  # whose name in invdiff is that of the verb
    named = {getattr(package, name) for name in package.__all__}
    assert {kind for kind in named if hasattr(kind, "step")} == {type(m) for m in METHODS}
    assert {kind for kind in named if hasattr(kind, "is_new")} == {type(s) for s in SHOTS}


@pytest.fixture
def waves() -> WavesProblem:
    return waves_problem(n_shots=N_SHOTS)


def run(waves: WavesProblem, method: Method, *, max_solves: int = 10_000, **settings) -> xr.Dataset:
    given = {"start": waves.start, "seed": 3, "realizations": 4} | settings
    return invert(
        waves.y, waves.operator, waves.prior, method=method, max_solves=max_solves, **given
    )


def setting(waves: WavesProblem, members: tuple[int, ...] = (5, 0)) -> Setting:
    y = waves.operator.range.to_tensor(waves.y)
    objective = Objective.gaussian(waves.operator, y, 100.0)
    x = torch.from_numpy(waves.start.values).expand(len(members), -1, -1)
    return Setting(objective, waves.prior, x, NoiseField(3), members)


def states(waves: WavesProblem, method: Method, path: Path | None) -> Iterator[InversionState]:
    return descend(method, setting(waves), max_solves=10_000, checkpoint=path, run={"a": [1]})


@every_method
def test_a_stopped_run_resumes_bit_for_bit(
    waves: WavesProblem, method: Method, tmp_path: Path
) -> None:
    whole = list(states(waves, method, None))
    assert [state.step for state in whole] == list(range(STEPS + 1))
    path = tmp_path / "state"
    for stop in (1, 2, STEPS - 1):
        for state in states(waves, method, path):
            if state.step == stop:
                break
        made = waves.operator.solves.total()
        first = next(states(waves, method, path))
        assert first.step == stop
        assert waves.operator.solves.total() == made  # what is stored is not computed again
    (*_, resumed) = states(waves, method, path)
    torch.testing.assert_close(vars(resumed), vars(whole[-1]), rtol=0, atol=0, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


@every_method
def test_a_finished_run_is_read_and_not_made_again(
    waves: WavesProblem, method: Method, tmp_path: Path
) -> None:
    settings = {"checkpoint": tmp_path / "state", "max_solves": 5 * N_SHOTS}
    first = run(waves, method, **settings)
    waves.operator.solves.clear()
    xr.testing.assert_identical(run(waves, method, **settings), first)
    # The check of the start, and the last prediction of four members.
    assert dict(waves.operator.solves) == {"forward": 5 * N_SHOTS}


@every_method
def test_members_do_not_depend_on_their_company(
    waves: WavesProblem, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, where quadratics are solved to the end.

    At the tolerance of a run rounding may decide about the last iteration: 0.5 m/s of a spread of
    100 m/s.
    """

    def solve(apply, b, *, rtol: float, max_iterations: int) -> Solution:
        return conjugate_gradient(apply, b, rtol=1e-13, max_iterations=500)

    monkeypatch.setattr(annealed, "conjugate_gradient", solve)
    atol = 1e-4  # m/s
    starts = xr.concat([waves.start + 30.0 * i for i in range(4)], dim="realization")
    whole = run(waves, method)["velocity"]
    one = run(waves, method, realizations=[3])["velocity"]
    np.testing.assert_allclose(one, whole[3:], rtol=0, atol=atol)
    whole = run(waves, method, start=starts)["velocity"]
    turned = run(waves, method, start=starts[[3, 1]], realizations=[3, 1])["velocity"]
    np.testing.assert_allclose(turned, whole[[3, 1]], rtol=0, atol=atol)


@pytest.mark.parametrize("method", [m for m in METHODS if type(m) in RANDOM], ids=_name)
def test_the_seed_decides(waves: WavesProblem, method: Method) -> None:
    first, second = (run(waves, method, realizations=2, seed=seed).velocity for seed in (3, 4))
    assert not np.isclose(first, second).any()


@every_method
def test_solves_counted_are_solves_made(waves: WavesProblem, method: Method) -> None:
    for realizations in ([2], 4):
        waves.operator.solves.clear()
        result = run(waves, method, realizations=realizations)
        counted = {k: result.attrs[f"invdiff_{k}_solves"] for k in ("forward", "adjoint")}
        n = result.sizes["realization"]
        assert counted["adjoint"] <= n * result.solves[-1]  # what members share counts once
        assert counted["forward"] == counted["adjoint"] + (n + 1) * N_SHOTS
        made = dict(waves.operator.solves)
        if isinstance(method, LBFGS) and n > 1:  # counts what the member that needs most needs
            assert made["forward"] <= counted["forward"]
        else:
            assert made == counted


@every_method
def test_the_budget_is_never_exceeded(waves: WavesProblem, method: Method) -> None:
    least = 4 * N_SHOTS
    whole = int(run(waves, method, realizations=1).solves[-1])
    for budget in range(least, whole + 2, 2):
        waves.operator.solves.clear()
        result = run(waves, method, realizations=1, max_solves=budget)
        assert waves.operator.solves["adjoint"] == result.solves[-1] <= budget
        assert result.attrs["invdiff_iterations"] >= 1
        # As many steps as the budget pays for: none costs more than two evaluations of all shots,
        # but for line searches, which are cut short.
        is_done = result.attrs["invdiff_iterations"] == STEPS
        assert is_done or result.solves[-1] > budget - 2 * N_SHOTS


@every_method
def test_the_global_generators_are_neither_read_nor_moved(
    waves: WavesProblem, method: Method
) -> None:
    draws = []
    for seed in (0, 1):
        torch.random.default_generator.manual_seed(seed)
        np.random.set_state(np.random.RandomState(seed).get_state())  # noqa: NPY002 - on purpose
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        draws.append(run(waves, method, realizations=2))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    xr.testing.assert_identical(*draws)


@every_method
def test_members_differ_where_the_method_is_random(waves: WavesProblem, method: Method) -> None:
    spread = run(waves, method)["std"]
    assert bool((spread > 0).all()) if type(method) in RANDOM else float(spread.max()) < 1e-9


@every_method
def test_bounds_are_never_left(method: Method) -> None:
    """The operator refuses models out of bounds; these are narrower than what the data ask for."""
    waves = waves_problem(n_shots=N_SHOTS, noise=20.0, bounds=(2450.0, 2550.0))
    method = replace(method, rate=3.0) if isinstance(method, Adam) else method
    assert not 2450 < waves.truth.min() < waves.truth.max() < 2550
    velocity = run(waves, method)["velocity"]
    assert float(abs(velocity - 2500).max()) == pytest.approx(45, abs=5)


@of_all_shots
def test_the_misfit_falls(waves: WavesProblem, method: Method) -> None:
    history = run(waves, replace(method, steps=30))["misfit_history"]  # type: ignore[type-var]
    known = history.dropna("iteration")
    assert bool((known[:, -1] < 0.2 * known[:, 0]).all())


@pytest.mark.parametrize(
    "method", [m for m in BASIC if not isinstance(m, AnnealedPosterior)], ids=_name
)
def test_a_run_stops_where_it_is_told(waves: WavesProblem, method: Method) -> None:
    whole = run(waves, replace(method, steps=30))["misfit_history"]  # type: ignore[type-var]
    level = float(whole[:, 10].max())
    stopped = run(waves, replace(method, steps=30), stop_at=level)["misfit_history"]  # type: ignore[type-var]
    n = stopped.sizes["iteration"]
    np.testing.assert_array_equal(stopped, whole[:, :n])
    assert bool((stopped[:, -1] <= level).all())
    assert not bool((whole[:, : n - 1] <= level).all("realization").any())


def test_models_that_leave_the_finite_numbers_are_told(waves: WavesProblem) -> None:
    waves.operator.matrices[:] = 1e200
    with pytest.raises(DivergedError, match="after step 1"):
        run(waves, REDDiffusion(STEPS))


# ---------------------------------------------------------------- line search


@pytest.mark.parametrize("noise", [1.0, 100.0])
def test_lbfgs_searches_along_its_lines(noise: float) -> None:
    """A step that overshoots is shortened, not refused for good: the misfit falls at every one."""
    waves = waves_problem(n_shots=N_SHOTS, noise=noise)
    result = run(waves, LBFGS(40), realizations=1, max_solves=150)
    fall = np.diff(result.misfit_history[0])
    assert (fall < 0).all()
    # Within the noise, or nearly so where the noise is a ten-thousandth of the data's spread.
    assert result.misfit_history[0, -1] < max(1.0, 1e-3 * result.misfit_history[0, 0])
    # The misfit told is that of the model that was taken, not of the last one that was tried.
    np.testing.assert_allclose(result.misfit_history[0, -1], result.data_misfit[0], rtol=1e-9)
    # Most steps take a single evaluation.
    assert np.median(np.diff(result.solves)) == N_SHOTS


# ---------------------------------------------------------------- settings


COUNTS = {
    "Minibatch": Minibatch,
    "Encoded": Encoded,
    "keep": lambda n: Minibatch(1, keep=n),
    "LBFGS": LBFGS,
    "memory": lambda n: LBFGS(memory=n),
    "Adam": Adam,
    "REDDiffusion": REDDiffusion,
    "AnnealedMode": AnnealedMode,
    "AnnealedPosterior": lambda n: AnnealedPosterior(memory=n),
}


@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
def test_counts_are_integers(make) -> None:
    assert repr(make(np.int64(2))) == repr(make(2))
    for value in (True, 1.5, 2.0, "2"):
        with pytest.raises(InputError, match="not an integer"):
            make(value)
    with pytest.raises(InputError, match=">= 1"):
        make(0)


@pytest.mark.parametrize("bands", [(10.0, 6.0), (0.0,), ("6",), (np.nan,)])
@pytest.mark.parametrize("method", [LBFGS, Adam, REDDiffusion])
def test_bands_are_frequencies_that_rise(method, bands: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="not frequencies that rise"):
        method(bands=bands)


@pytest.mark.parametrize("bands", [(6.0, 10.0), ((50.0, 10.0), (100.0, 6.0)), ((1.0, 2.0, 3.0),)])
def test_bands_of_levels_are_pairs(bands: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match=r"not pairs.*fit=LBFGS\(bands=\(6.0, 10.0\)\)"):
        AnnealedMode(bands=bands)


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    "method",
    [AnnealedPosterior(), AnnealedMode(), AnnealedPosterior.within(5), AnnealedMode(fit=None)],
    ids=["posterior", "mode", "within", "no fit"],
)
def test_a_budget_too_small_is_told_by_the_number_that_was_given(
    waves: WavesProblem, method: AnnealedMode
) -> None:
    least = method.least(N_SHOTS)
    with pytest.raises(InputError, match=f"max_solves={least - 1}; expected at least {least}"):
        run(waves, method, realizations=1, max_solves=least - 1)
    for budget in range(least, 2 * least, 2):
        result = run(waves, method, realizations=1, max_solves=budget)
        assert result.solves[-1] <= budget
        assert result.attrs["invdiff_iterations"] >= 1


def test_a_band_is_no_place_to_stop(waves: WavesProblem) -> None:
    """The low frequencies fit long before the whole data do."""
    method = LBFGS(30, bands=(5.0, 10.0))
    found = run(waves, method, stop_at=1.2, realizations=1)
    assert found.sizes["iteration"] > 21  # two thirds of the steps are in bands
    assert float(found["data_misfit"][0]) < 1.3
    assert not method.sees_all(19)
    assert method.sees_all(20)


@pytest.mark.parametrize("n_stores", [3, 15, 20])
def test_a_fit_that_was_interrupted_goes_on(
    waves: WavesProblem, n_stores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within L-BFGS, within the levels of the mode, or within those of the members."""
    method = AnnealedPosterior(4, fit=AnnealedMode(8, fit=LBFGS(10)))
    whole, path = run(waves, method), tmp_path / "state"
    needed = waves.operator.solves.total()
    count, save = 0, Checkpoint.save

    def killed(self: Checkpoint, values: Mapping[str, object]) -> None:
        nonlocal count
        save(self, values)
        count += 1
        if count == n_stores:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(waves, method, checkpoint=path)
    waves.operator.solves.clear()
    found = run(waves, method, checkpoint=path)
    np.testing.assert_array_equal(found["velocity"], whole["velocity"])
    assert waves.operator.solves.total() < needed - n_stores * N_SHOTS
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
