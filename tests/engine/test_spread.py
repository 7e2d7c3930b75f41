"""The scale of a prior's fields: the schedule that follows from it, and those that do not fit."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from invdiff.errors import CalibrationWarning, InputError
from invdiff.grid import Grid
from invdiff.priors import (
    GaussianMixturePrior,
    GaussianPrior,
    LevyPrior,
    StationaryGaussianPrior,
    load_prior,
)
from invdiff.schedule import VE
from invdiff.spread import Spread
from tests.support import tiny

GRID = Grid(("x",), (3,), torch.float64)


def test_the_schedule_follows_from_the_deviations() -> None:
    assert Spread(1.0, 4.0).schedule() == VE(0.002, 100.0)
    assert Spread(1.0, 1.0).schedule(hides=80.0) == VE(0.002, 80.0)


def test_what_has_no_width_still_has_a_last_level() -> None:
    schedule = Spread(0.0, 1.0).schedule()
    assert 0 < schedule.ratio_min < 1e-5
    assert Spread(0.0, 0.0).schedule() == VE()


def test_a_given_schedule_stays() -> None:
    given = VE(0.01, 50.0, rho=3.0)
    assert Spread(1.0, 8.0).schedule(given) is given


@pytest.mark.parametrize("spread", [(-1.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_deviations_are_finite(spread: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="standard deviations"):
        Spread(*spread)


@pytest.mark.parametrize(
    ("schedule", "found", "asked"),
    [
        (VE(0.002, 80.0), "starts too late.*ratio_max=80", "several times 1.73e.03"),
        (VE(1001.0, 1e5), "ends too early.*ratio_min=1001", "a fraction of 1e.03"),
    ],
)
def test_a_schedule_that_cannot_fit_is_refused(schedule: VE, found: str, asked: str) -> None:
    """With both numbers: what it is, and what the prior asks for."""
    covariance = 1e6 * torch.ones(3, 3, dtype=torch.float64)  # one direction, of 3^(1/2) x 1000
    with pytest.raises(InputError, match=f"{found}.*{asked}"):
        GaussianPrior(GRID, torch.zeros(3), covariance, schedule=schedule)


@pytest.mark.parametrize(
    ("schedule", "found"), [(VE(0.002, 2.0), "starts too late"), (VE(0.5, 80.0), "ends too early")]
)
def test_a_schedule_that_may_not_fit_is_warned_of(schedule: VE, found: str) -> None:
    with pytest.warns(CalibrationWarning, match=found) as caught:
        StationaryGaussianPrior(GRID, torch.zeros(3), torch.ones(3), schedule=schedule)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("schedule", [VE(0.39, 80.0), VE(0.002, 2.6)])
def test_a_schedule_that_fits_is_left_alone(schedule: VE) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StationaryGaussianPrior(GRID, torch.zeros(3), torch.ones(3), schedule=schedule)


def test_a_network_knows_its_units() -> None:
    made = tiny.prior(dtype=torch.float32)
    std = 1000 * tiny.SIGMA_DATA
    kwargs = {"scale": 1000.0, "offset": 3000.0}
    fitted = type(made)(made.network, made.spectra, made.grid, **kwargs)
    assert fitted.schedule == VE(0.002 * std, 80 * std)
    assert fitted.spread.centre == 3000.0
    for schedule in (VE(0.002, 80.0), VE(1.1 * std, 80 * std)):
        with pytest.raises(InputError, match="the schedule"):
            type(made)(made.network, made.spectra, made.grid, schedule=schedule, **kwargs)


@pytest.mark.parametrize("name", ["brain-t1", "velocity-2d"])
def test_shipped_priors_fit_their_schedules(name: str) -> None:
    prior = load_prior(name)  # a warning is an error
    assert prior.schedule.ratio_max > 10 * prior.spread.largest


def test_the_distance_of_modes_counts() -> None:
    means = torch.tensor([[-50.0] * 3, [50.0] * 3])
    covariances = torch.eye(3).expand(2, 3, 3) * torch.tensor([4.0, 9.0])[:, None, None]
    weights = torch.tensor([0.5, 0.5])
    spread = GaussianMixturePrior(GRID, weights, means, covariances=covariances).spread
    assert spread.smallest == pytest.approx(2)
    assert spread.largest == pytest.approx((9 + 3 * 50**2) ** 0.5)


def test_the_bound_of_a_levy_process_is_close() -> None:
    n, scale, first = 32, 0.5, 1.0
    steps = torch.arange(n, dtype=torch.float64)
    covariance = first**2 + 2 * scale**2 * torch.minimum(steps[:, None], steps)
    exact = float(torch.linalg.eigvalsh(covariance)[-1]) ** 0.5
    spread = LevyPrior(Grid(("x",), (n,), torch.float64), scale).spread
    assert exact <= spread.largest < 1.25 * exact
    assert spread.smallest == pytest.approx(2**0.5 * scale)
