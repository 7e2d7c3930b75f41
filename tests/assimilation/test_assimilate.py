"""The verb ``assimilate``: the exact filter, labels, times, divergence, bad input."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from invdiff import Grid, assimilate
from invdiff.assimilation import LETKF, EnKF, IEnKF
from invdiff.covariance import GaspariCohn
from invdiff.errors import (
    DivergedError,
    DivergedMembersWarning,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)
from invdiff.operators import Identity, Mask
from invdiff.operators.atmosphere import Lorenz96

N, NOISE = 4, 0.5
GRID = Grid(("site",), (N,), torch.float64, {"site": np.arange(float(N))}, "m")
ROTATION = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))[0])


@dataclass(frozen=True)
class Turning:
    """A linear model without error: states are turned."""

    dt: float = 0.5

    @property
    def grid(self) -> Grid:
        return GRID

    def step(self, state: Tensor) -> Tensor:
        return state @ ROTATION.mT


MODEL, KEEP = Turning(), torch.tensor([True, True, False, True])
OBSERVED = Mask(GRID, KEEP)


def case(n_members: int, n_times: int = 6, *, seed: int = 1) -> tuple[xr.DataArray, ...]:
    """Observations every second step, members, and the true states."""
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.standard_normal((1, N)))
    members = rng.standard_normal((n_members, N))
    data, truths = [], []
    for _ in range(n_times):
        truth = MODEL.step(MODEL.step(truth))
        truths.append(truth[0].numpy())
        data.append((truth[0].numpy() + NOISE * rng.standard_normal(N)) * KEEP.numpy())
    time = np.arange(1.0, n_times + 1)
    y = xr.DataArray(data, {"time": time}, ("time", "site"), attrs={"noise_std": NOISE})
    initial = xr.DataArray(members, dims=("realization", "site"), name="height")
    return y, initial, xr.DataArray(truths, {"time": time}, ("time", "site"))


def kalman(y: xr.DataArray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and covariance of the exact filter after each time."""
    h, step = np.eye(N)[KEEP.numpy()], (ROTATION @ ROTATION).numpy()
    means, covariances = [], []
    for now in y.values:
        mean, covariance = step @ mean, step @ covariance @ step.T
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + NOISE**2 * np.eye(len(h)))
        mean = mean + gain @ (h @ (now - mean))
        covariance = covariance - gain @ h @ covariance
        means.append(mean)
        covariances.append(covariance)
    return np.array(means), np.array(covariances)


def test_the_square_root_filter_is_the_kalman_filter() -> None:
    y, initial, _ = case(40)
    found = assimilate(y, OBSERVED, MODEL, initial=initial, seed=0, analysis=LETKF())
    means, covariances = kalman(y, initial.values.mean(0), np.cov(initial.values.T))
    np.testing.assert_allclose(found["mean"], means, rtol=1e-6, atol=1e-8)
    variances = covariances.diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(found["std"] ** 2, variances, rtol=1e-6)


@pytest.mark.parametrize("analysis", [EnKF(), IEnKF()])
def test_filters_with_perturbed_data_approach_it(analysis) -> None:
    n = 3000
    y, initial, _ = case(n)
    found = assimilate(y, OBSERVED, MODEL, initial=initial, seed=0, analysis=analysis)
    means, covariances = kalman(y, initial.values.mean(0), np.cov(initial.values.T))
    variances = covariances.diagonal(axis1=1, axis2=2)
    error = abs(found["mean"].values - means) / np.sqrt(variances)
    # Covariances of n members err by sqrt(2 / n) = 2.6 %, and so does the gain.
    assert error.max() < 0.15
    np.testing.assert_allclose(found["std"] ** 2, variances, rtol=0.15)


def test_innovations_and_coverage_are_those_of_an_exact_filter() -> None:
    """200 data sets of 18 data: a standard error of 2.4 % of the mean innovation."""
    innovations, inside = [], []
    for seed in range(200):
        y, initial, truths = case(30, seed=seed)
        found = assimilate(y, OBSERVED, MODEL, initial=initial, seed=0, analysis=LETKF())
        innovations.append(float(found["innovation"].mean()))
        z = abs(found["mean"] - truths) / found["std"]
        inside.append(float((z < 1.645).mean()))
    assert np.mean(innovations) == pytest.approx(1, abs=0.1)
    # 30 members: the covariance errs by a quarter in four dims together, intervals by 1-2 %.
    assert np.mean(inside) == pytest.approx(0.88, abs=0.035)


def test_the_result_is_labelled() -> None:
    y, initial, _ = case(5)
    settings = {"initial": initial, "analysis": EnKF()}
    found = assimilate(y, OBSERVED, MODEL, seed=3, **settings)
    assert found["height"].dims == ("realization", "time", "site")
    assert found["height"].attrs["units"] == "m"
    assert found["time"].values.tolist() == y["time"].values.tolist()
    assert found.attrs["invdiff_analysis"].startswith("EnKF(")
    assert found.attrs["invdiff_innovation"].startswith("The innovations are ")
    assert found["n_data"].values.tolist() == [3] * 6
    np.testing.assert_allclose(found["mean"], found["height"].mean("realization"))
    np.testing.assert_allclose(found["std"], found["height"].std("realization", ddof=1))
    again = assimilate(y, OBSERVED, MODEL, seed=3, **settings)
    np.testing.assert_array_equal(found["height"], again["height"])
    other = assimilate(y, OBSERVED, MODEL, seed=4, **settings)
    assert not np.allclose(found["height"], other["height"])


def test_dates_count_in_seconds_from_the_initial_time() -> None:
    y, initial, _ = case(5)
    expected = assimilate(y, OBSERVED, MODEL, initial=initial, seed=0)
    start = np.datetime64("2026-03-01T00:00:00", "ns")
    dates = y.assign_coords(time=start + np.arange(1, 7) * np.timedelta64(1, "s"))
    dated = initial.assign_coords(time=start)
    found = assimilate(dates, OBSERVED, MODEL, initial=dated, seed=0)
    np.testing.assert_array_equal(found["height"], expected["height"])
    with pytest.raises(InputError, match="time of the initial states is not known"):
        assimilate(dates, OBSERVED, MODEL, initial=initial, seed=0)
    with pytest.raises(InputError, match="different kinds"):
        assimilate(y, OBSERVED, MODEL, initial=dated, seed=0)


def test_missing_data_say_nothing() -> None:
    y, initial, _ = case(8)
    gaps = y.copy()
    gaps[2] = np.nan
    gaps[4, 1] = np.nan
    found = assimilate(gaps, OBSERVED, MODEL, initial=initial, seed=0, analysis=LETKF())
    assert found["n_data"].values.tolist() == [3, 3, 0, 3, 2, 3]
    assert np.isnan(found["innovation"].values).tolist() == [False, False, True] + [False] * 3
    np.testing.assert_array_equal(found["mean"][2], found["background_mean"][2])
    without = assimilate(
        gaps.isel(time=[0, 1, 3, 4, 5]), OBSERVED, MODEL, initial=initial, seed=0, analysis=LETKF()
    )
    np.testing.assert_allclose(found["mean"][-1], without["mean"][-1])


def test_wrong_noise_is_noticed() -> None:
    y, initial, _ = case(30, n_times=60)
    for factor, word in ((1.0, None), (0.3, "too narrow"), (4.0, "too wide")):
        found = assimilate(
            y, OBSERVED, MODEL, initial=initial, seed=0, noise_std=factor * NOISE, analysis=LETKF()
        )
        verdict = found.attrs["invdiff_innovation"]
        assert (word in verdict) if word else verdict.endswith("is expected.")


@dataclass(frozen=True)
class Exploding(Turning):
    """States beyond a limit become infinite."""

    limit: float = 5.0

    def step(self, state: Tensor) -> Tensor:
        is_far = (state.abs().amax(1) > self.limit)[:, None]
        return torch.where(is_far, torch.inf, super().step(state))


def test_members_that_diverge_are_named_and_the_rest_goes_on() -> None:
    y, initial, _ = case(6)
    initial[2] = 30.0
    with pytest.warns(DivergedMembersWarning, match="Members 2 diverged in the forecast"):
        found = assimilate(y, OBSERVED, Exploding(), initial=initial, seed=0, analysis=LETKF())
    assert np.isnan(found["height"][2]).all()
    assert np.isfinite(found["height"][[0, 1, 3, 4, 5]]).all()
    assert np.isfinite(found["mean"]).all()
    with pytest.raises(DivergedError, match="cycle 0 diverged"):
        assimilate(y, OBSERVED, Exploding(), initial=initial + 30, seed=0)


def test_the_ring_of_lorenz_is_followed_through_half_of_its_sites() -> None:
    """40 members of few directions: without localization the filter is lost."""
    model = Lorenz96(dtype=torch.float64)
    half = Mask(model.grid, torch.arange(40) % 2 == 0)
    rng = np.random.default_rng(0)
    truth = 8 + torch.from_numpy(rng.standard_normal((1, 40)))
    for _ in range(200):
        truth = model.step(truth)
    initial = xr.DataArray(
        truth.numpy() + rng.standard_normal((15, 40)), dims=("realization", "site")
    )
    data, truths = [], []
    for _ in range(80):
        truth = model.step(truth)
        truths.append(truth[0].numpy())
        data.append(half(truth)[0].numpy() + rng.standard_normal(40))
    y = xr.DataArray(data, {"time": 0.05 * np.arange(1, 81)}, ("time", "site"))
    local = GaspariCohn(7.28, {"site": 40.0})
    for analysis in (EnKF(local, inflation=1.03), LETKF(local, inflation=1.03)):
        found = assimilate(
            y, half, model, initial=initial, seed=0, analysis=analysis, noise_std=1.0
        )
        late = slice(30, None)
        rmse = float(((found["mean"].values - np.array(truths))[late] ** 2).mean() ** 0.5)
        spread = float((found["std"][late] ** 2).mean() ** 0.5)
        assert rmse < 0.6
        assert 0.6 < spread / rmse < 1.6


def test_bad_input_is_refused() -> None:
    y, initial, _ = case(5)

    def run(own: xr.DataArray = y, **changes: object) -> xr.Dataset:
        settings = {"initial": initial, "seed": 0} | changes
        return assimilate(own, settings.pop("observed", OBSERVED), MODEL, **settings)  # type: ignore

    with pytest.raises(InputError, match="multiple of the time step"):
        run(y.assign_coords(time=y["time"] + 0.1))
    with pytest.raises(InputError, match="do not rise"):
        run(y.isel(time=[1, 0, 2]))
    with pytest.raises(InputError, match="too few initial members"):
        run(initial=initial[:1])
    with pytest.raises(NonFiniteError, match="initial states"):
        run(initial=initial.where(initial < 0))
    with pytest.raises(InputError, match="no observations"):
        run(y * np.nan)
    with pytest.raises(ShapeError, match="other dims"):
        run(y.rename(site="station"))
    with pytest.raises(ShapeError, match="initial states"):
        run(initial=initial.isel(site=slice(3)))
    with pytest.raises(NoiseLevelError, match="missing"):
        run(y.drop_attrs())
    with pytest.raises(ShapeError, match="does not act on the model's states"):
        run(observed=Identity(Grid(("site",), (5,), torch.float64)))
    with pytest.raises(InputError, match="not a step model"):
        assimilate(y, OBSERVED, OBSERVED, initial=initial, seed=0)  # type: ignore[arg-type]
