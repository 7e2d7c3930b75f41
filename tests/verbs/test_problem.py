"""Problems in a verb: what they bring, where they are computed, and numbers of every kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import Grid, invert, reconstruct
from invdiff.covariance import Covariance
from invdiff.errors import CalibrationWarning, InputError
from invdiff.fwi import LBFGS
from invdiff.io import open_result, write_result
from invdiff.operators.linear import Identity, Mask
from invdiff.priors.gaussian import GaussianPrior
from invdiff.protocols import Problem
from invdiff.samplers import Ancestral, TwistedSMC
from tests.support.closed_form import correlation, normal
from tests.support.linear_waves import waves_problem

pytestmark = pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")

GRID = Grid(("y", "x"), (4, 4), torch.float64, {"x": np.arange(4.0)}, "K")
PRIOR = GaussianPrior(GRID, torch.zeros(4, 4), correlation(4, 2.0))
OPERATOR = Mask(GRID, np.eye(4))
DATA = normal((4, 4), 1) * torch.eye(4, dtype=torch.float64)
PROBLEM = Problem(OPERATOR, DATA, 0.3, 2.0, notes={"dead_traces": 3, "noise_source": "given"})
FAST = {"realizations": 3, "seed": 0, "sampler": Ancestral(3), "batch_size": 3}
WAVES = waves_problem(n_shots=2)
LINE = Problem(
    WAVES.operator, torch.from_numpy(WAVES.y.values), 100.0,
    weights=torch.linspace(0.5, 1, 6, dtype=torch.float64)[:, None],
    start=torch.from_numpy(WAVES.start.values), notes={"dead_traces": 2},
)  # fmt: skip
SHORT = {"realizations": 1, "seed": 0, "method": LBFGS(3)}


def test_a_problem_brings_all_that_a_reconstruction_needs() -> None:
    by_problem = reconstruct(PROBLEM, prior=PRIOR, **FAST)
    y = GRID.to_dataarray(DATA, "y")
    by_hand = reconstruct(y, OPERATOR, PRIOR, noise_std=0.3, scale=2.0, **FAST)
    xr.testing.assert_equal(by_problem, by_hand)
    assert by_problem.attrs["invdiff_dead_traces"] == 3
    assert by_problem.attrs["invdiff_noise_source"] == "given"
    assert by_problem.attrs["invdiff_scale"] == 2.0
    other = reconstruct(PROBLEM, prior=PRIOR, noise_std=0.5, scale=1.0, **FAST)
    expected = reconstruct(y, OPERATOR, PRIOR, noise_std=0.5, **FAST)
    xr.testing.assert_equal(other, expected)


def test_a_problem_brings_all_that_an_inversion_needs() -> None:
    by_problem = invert(LINE, **SHORT)
    weights = xr.DataArray(np.linspace(0.5, 1, 6), dims="receiver")
    by_hand = invert(WAVES.y, WAVES.operator, start=WAVES.start, weights=weights, **SHORT)
    xr.testing.assert_equal(by_problem, by_hand)
    assert by_problem.attrs["invdiff_dead_traces"] == 2
    others = {"start": WAVES.start + 50, "noise_std": 50.0}
    further = invert(LINE, **others, weights=weights**2, **SHORT)  # multiply those of the problem
    by_hand = invert(WAVES.y, WAVES.operator, **others, weights=weights**3, **SHORT)
    xr.testing.assert_allclose(further, by_hand, rtol=1e-6)


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, torch.tensor])
def test_integers_of_other_libraries_are_integers(kind: type) -> None:
    given = {"sampler": Ancestral(3)}
    plain = reconstruct(PROBLEM, prior=PRIOR, realizations=3, seed=4, batch_size=2, **given)
    others = {"realizations": kind(3), "seed": kind(4), "batch_size": kind(2)}
    xr.testing.assert_identical(reconstruct(PROBLEM, prior=PRIOR, **others, **given), plain)
    numbers = [*reversed(range(3))]
    for form in (np.array(numbers), torch.tensor(numbers), tuple(numbers), range(2, -1, -1)):
        result = reconstruct(PROBLEM, prior=PRIOR, **FAST | {"realizations": form, "seed": 4})
        assert result.realization.values.tolist() == numbers
    by_solves = invert(LINE, **SHORT, max_solves=kind(20))
    xr.testing.assert_identical(by_solves, invert(LINE, **SHORT, max_solves=20))


@pytest.mark.parametrize("scale", [np.float32(2), np.array(2.0), torch.tensor(2.0), 2, np.int64(2)])
def test_a_scale_is_a_number(scale: object) -> None:
    expected = reconstruct(PROBLEM, prior=PRIOR, **FAST)
    xr.testing.assert_identical(reconstruct(PROBLEM, prior=PRIOR, scale=scale, **FAST), expected)


# --- devices --------------------------------------------------------------------------------------


class Movable(GaussianPrior):
    """Notes where it is moved."""

    def to(self, device: torch.device) -> Movable:
        moved = Movable(self.grid, self.mean, correlation(4, 2.0))
        moved.card = {"name": f"on {device}", "sha256": "0"}
        return moved


class MovableOperator(Identity):
    """Likewise."""

    device = "nowhere"

    def to(self, device: torch.device) -> MovableOperator:
        moved = MovableOperator(self.domain)
        moved.device = str(device)
        return moved

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        assert self.device == "cpu"
        return super().__call__(x)


class Fixed:
    """Neither can be moved, nor has to be."""

    domain = range = GRID

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x

    adjoint = __call__


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_device_is_taken_and_recorded(device: str | torch.device) -> None:
    prior = Movable(GRID, torch.zeros(4, 4), correlation(4, 2.0))
    problem = replace(PROBLEM, operator=MovableOperator(GRID))
    result = reconstruct(problem, prior=prior, device=device, **FAST)
    assert result.attrs["invdiff_prior"] == "on cpu@sha256:0"
    assert result.attrs["invdiff_device"] == "cpu"
    fixed = reconstruct(replace(PROBLEM, operator=Fixed()), prior=PRIOR, device=device, **FAST)
    np.testing.assert_allclose(fixed["image"], result["image"], atol=1e-12)
    assert invert(LINE, **SHORT, device=device).attrs["invdiff_device"] == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "gpu", "meta", 3, None])
def test_a_device_that_is_not_available_is_refused(device: object) -> None:
    for run in (
        lambda: reconstruct(PROBLEM, prior=PRIOR, device=device, **FAST),
        lambda: invert(LINE, device=device, **SHORT),
    ):
        with pytest.raises(InputError, match=r"device is not available.*expected one of \['cpu'"):
            run()


# --- results can be stored ------------------------------------------------------------------------


class Skewed(GaussianPrior):
    """States half of its variance, so that weights degenerate."""

    def moments(self, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, Covariance]:
        mean, covariance = super().moments(x_t, t)
        return mean + 3 * torch.sin(9 * x_t), covariance


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_result_whose_weights_were_dropped_can_be_stored(suffix: str, tmp_path: Path) -> None:
    prior = Skewed(GRID, torch.zeros(4, 4), correlation(4, 2.0))
    sampler = TwistedSMC(4, particles=8, carry=0.9)
    with pytest.warns(CalibrationWarning, match="weights of the particles were dropped"):
        result = reconstruct(PROBLEM, prior=prior, **FAST | {"sampler": sampler})
    assert result.attrs["invdiff_weights"] == "dropped"
    assert result.attrs["invdiff_effective_number"] == "nan"
    write_result(result, tmp_path / f"out{suffix}")
    with open_result(tmp_path / f"out{suffix}") as stored:
        xr.testing.assert_equal(stored.load(), result)
        assert stored.attrs["invdiff_weights"] == "dropped"
