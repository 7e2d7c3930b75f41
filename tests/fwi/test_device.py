"""Inversions on another device than the CPU, and of many models at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from invdiff import invert
from invdiff.errors import ShapeError
from invdiff.fwi import (
    LBFGS,
    Adam,
    AnnealedMode,
    AnnealedPosterior,
    Encoded,
    Minibatch,
    Objective,
    REDDiffusion,
    total_variation,
)
from invdiff.fwi.method import Method
from invdiff.fwi.misfit import L2, Filtered, Masked, Misfit
from invdiff.noise import NoiseField
from invdiff.operators.seismic import Acoustic, Boundary, Deepwave
from invdiff.priors import StationaryGaussianPrior
from invdiff.protocols import Problem
from invdiff.run_state import Checkpoint
from invdiff.terms import Penalty
from tests.support.linear_waves import waves_problem
from tests.support.pretend_device import PretendDevice
from tests.support.seismic_cases import BOUNDS, domain, line, model

STEPS = 4
LEVELS = {"highest": 300.0, "lowest": 50.0}
METHODS: tuple[Method, ...] = (
    LBFGS(STEPS, bands=(10.0,), terms=(Penalty(total_variation, 0.01),)),
    Adam(STEPS, rate=0.1, shots=Encoded(1, keep=2)),
    REDDiffusion(STEPS, weight=0.1, rate=60.0, lowest=20.0, highest=400.0),
    AnnealedMode(STEPS, fit=LBFGS(2), shots=Minibatch(2, keep=2), **LEVELS),
    AnnealedPosterior(STEPS, bands=((100.0, 20.0),), fit=None, **LEVELS),
)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def same(found: xr.Dataset, expected: xr.Dataset, *, rtol: float) -> None:
    for name in ("velocity", "mean", "std", "shot_misfit", "misfit_history", "solves"):
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Stops a run once its second step is stored."""
    save = Checkpoint.save

    def stopping(self, values) -> None:
        save(self, values)
        if values["step"] == 2:
            raise KeyboardInterrupt

    def stopped(task: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", stopping)
            with pytest.raises(KeyboardInterrupt):
                task()

    return stopped


# ---------------------------------------------------------------- on a device


@every_method
@pytest.mark.parametrize("is_weighted", [False, True], ids=["alike", "weighted"])
def test_a_method_never_mixes_devices(
    method: Method, is_weighted: bool, tmp_path: Path, interrupt
) -> None:
    """On a device that is only pretended, and resumed there."""
    waves = waves_problem(n_shots=3)
    by_receiver = xr.DataArray(np.tile([1.0, 1, 1, 1, 1, 0.5], (3, 1)), dims=("shot", "receiver"))
    weights = by_receiver if is_weighted else None

    def run(device: str, **settings) -> xr.Dataset:
        return invert(
            waves.y, waves.operator, waves.prior, start=waves.start, seed=3, realizations=2,
            method=method, weights=weights, is_weighted=is_weighted, max_solves=10_000,
            device=device, **settings,
        )  # fmt: skip

    expected = run("cpu")
    with PretendDevice():
        assert torch.zeros(2, device="cuda").is_cuda
        whole = run("cuda")
        path = tmp_path / "state"
        interrupt(lambda: run("cuda", checkpoint=path))
        resumed = run("cuda", checkpoint=path)
    same(whole, expected, rtol=1e-9)
    same(resumed, expected, rtol=1e-9)


def test_the_weights_of_a_misfit_follow_the_data() -> None:
    waves = waves_problem(n_shots=3)
    y = waves.operator.range.to_tensor(waves.y)
    masked = Masked(Filtered(Masked(L2(100.0), torch.ones(6, 1)), 20.0, 0.01), torch.ones(3, 1, 1))
    x = torch.from_numpy(waves.start.values)[None]
    expected = Objective.gaussian(waves.operator, y, 100.0, misfit=masked).hessian(x, NoiseField(0))
    with PretendDevice():
        operator = waves.operator.to(torch.device("cuda"))
        objective = Objective.gaussian(operator, y.to("cuda"), 100.0, misfit=masked)
        assert objective.has_data
        assert not objective.below(15.0).is_explained(torch.ones((), device="cuda"))
        found = objective.hessian(x.to("cuda"), NoiseField(0))
        assert found.power.is_cuda
        assert torch.allclose(found.power.cpu(), expected.power)


# ---------------------------------------------------------------- many models at once


def problem(**settings) -> tuple[Acoustic, Problem]:
    """Three shots over 24 x 30 cells, and what they recorded of another model than the start."""
    pytest.importorskip("deepwave")
    grid = domain()
    operator = Acoustic(
        line(3), grid, bounds=BOUNDS, boundary=Boundary(12), engine=Deepwave(**settings)
    )
    start = torch.linspace(2000.0, 2600.0, 24, dtype=torch.float64)[:, None].expand(24, 30).clone()
    y = operator(0.5 * (start + model()[0])[None])[0]
    return operator, Problem(operator, y, 0.02 * float(y.std()), start=start)


def prior() -> StationaryGaussianPrior:
    grid = domain()
    k = sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, grid.shape), indexing="ij"))
    power = torch.from_numpy(np.exp(-30 * k))
    power = power / power.mean() * 150.0**2
    return StationaryGaussianPrior(grid, torch.full(grid.shape, 2300.0).double(), power)


@pytest.mark.seismic
@pytest.mark.parametrize("shots_per_call", [None, 2], ids=["at once", "two solves per call"])
def test_models_at_once_are_those_one_by_one(shots_per_call: int | None) -> None:
    """Misfits, gradients and curvatures, of weights that differ between shots."""
    operator, given = problem(shots_per_call=shots_per_call)
    x = torch.cat([model(seed=seed) for seed in range(3)])
    weights = torch.from_numpy(np.random.default_rng(0).random((3, 8, 1)))
    objective = Objective.gaussian(operator, given.data, given.noise_std, weights=weights)
    for used in (objective, objective.below(20.0)):
        f, g = used(x)
        alone = [used(one[None]) for one in x]
        torch.testing.assert_close(f, torch.cat([a[0] for a in alone]), rtol=1e-10, atol=0)
        torch.testing.assert_close(g, torch.cat([a[1] for a in alone]), rtol=1e-9, atol=1e-12)
    hessian = objective.hessian(x, NoiseField(0))
    for i, one in enumerate(x):
        own = objective.hessian(one[None], NoiseField(0))
        torch.testing.assert_close(hessian.power[i], own.power[0], rtol=1e-9, atol=0)
        torch.testing.assert_close(hessian.std[i], own.std[0], rtol=1e-9, atol=0)


@pytest.mark.seismic
def test_an_evaluation_is_one_call_of_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all models and shots, and so is the last prediction."""
    operator, given = problem()
    calls = []
    kind, solve = type(operator.propagator), type(operator.propagator)._solve

    def counted(self, media, batch, shots):
        calls.append(len(batch))
        return solve(self, media, batch, shots)

    monkeypatch.setattr(kind, "_solve", counted)
    method = AnnealedMode(1, fit=None, highest=100.0, lowest=100.0)
    invert(given, prior=prior(), seed=0, realizations=4, method=method)
    check, hessian, start, level, last = [3], 3 * [1], [4 * 3], [4 * 3], [4 * 3]
    assert calls == check + hessian + start + level + last


@pytest.mark.seismic
def test_own_misfits_are_given_shots_one_by_one_unless_they_choose_them() -> None:
    operator, given = problem()
    x = torch.cat([model(seed=seed) for seed in range(2)])
    shapes = []

    def own(predicted: Tensor, observed: Tensor) -> Tensor:
        shapes.append(predicted.shape)
        return (predicted - observed).square().sum() / 2

    class OneNumber(Misfit):
        def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
            return (predicted - observed).square().sum() / 2

    expected, found = (operator.misfit_and_gradient(x, given.data, misfit=m) for m in (None, own))
    assert shapes == 6 * [(1, 8, 200)]
    torch.testing.assert_close(found, expected)
    with pytest.raises(ShapeError, match=r"one value per shot; got shape \(\); expected \(6,\)"):
        operator.misfit_and_gradient(x, given.data, misfit=OneNumber())


@pytest.mark.gpu
@pytest.mark.seismic
@pytest.mark.parametrize(
    "method",
    [LBFGS(3), AnnealedMode(3, fit=LBFGS(2)), AnnealedPosterior(3, fit=LBFGS(2, bands=(12.0,)))],
    ids=lambda m: type(m).__name__,
)
def test_a_gpu_gives_the_models_of_the_cpu(method: Method, tmp_path: Path, interrupt) -> None:
    """Rounding grows with each step of an inversion, so that the tolerance is not that of one."""
    _, given = problem()

    def run(device: str, **settings) -> xr.Dataset:
        used = prior() if method.needs_prior else None
        return invert(
            given, prior=used, seed=0, realizations=3, method=method, device=device, **settings
        )

    expected, path = run("cpu"), tmp_path / "state"
    same(run("cuda"), expected, rtol=1e-4)  # 3.5e-5 was seen on an H200
    interrupt(lambda: run("cuda", checkpoint=path))
    same(run("cuda", checkpoint=path), expected, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.seismic
def test_a_gpu_gives_the_misfits_of_the_cpu_whatever_the_density() -> None:
    operator, given = problem()
    dense = Acoustic(
        operator.survey, operator.domain, bounds=BOUNDS, boundary=operator.boundary,
        density=torch.full((24, 30), 1800.0).double(), engine=Deepwave(),
    )  # fmt: skip
    x = torch.cat([model(seed=seed) for seed in range(2)])
    for used in (operator, dense):
        f, g = used.misfit_and_gradient(x, given.data, misfit=L2(given.noise_std))
        there = used.misfit_and_gradient(x.cuda(), given.data, misfit=L2(given.noise_std))
        torch.testing.assert_close(there[0].cpu(), f, rtol=1e-9, atol=0)
        torch.testing.assert_close(there[1].cpu(), g, rtol=1e-7, atol=1e-9 * float(g.abs().max()))
