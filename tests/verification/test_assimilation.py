"""Consistency of assimilations that are known exactly: linear observations, Gaussian errors."""

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from invdiff.errors import NoiseLevelError, ShapeError
from invdiff.verification import (
    degrees_of_freedom_for_signal,
    departures,
    desroziers,
    innovation_chi_square,
)

N_STATIONS = 4
NOISE = xr.DataArray([0.5, 1.0, 1.5, 0.8], dims="station")


@dataclass(frozen=True)
class System:
    """A Kalman analysis in observation space, of many independent times.

    Attributes:
        prior: H B H^T.
        posterior: H A H^T.
        background, analysis: exact members about the exact means, in observation space.
        means: the exact means of the two, with one member.
        observations: (time, station).
    """

    prior: np.ndarray
    posterior: np.ndarray
    background: xr.DataArray
    analysis: xr.DataArray
    means: tuple[xr.DataArray, xr.DataArray]
    observations: xr.DataArray


def kalman(n_times: int, m: int, *, spread: float = 1.0, seed: int = 0) -> System:
    """A system whose background covariance is right, or wrong by ``spread`` squared in all uses."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((N_STATIONS, 6))
    true, noise = root @ root.T / 6, np.diag(NOISE.values**2)
    prior = spread**2 * true
    gain = prior @ np.linalg.inv(prior + noise)
    posterior = prior - gain @ prior

    def draws(covariance: np.ndarray, *shape: int) -> np.ndarray:
        factor = np.linalg.cholesky(covariance)
        return rng.standard_normal((*shape, N_STATIONS)) @ factor.T

    x_b = 3 * rng.standard_normal((n_times, N_STATIONS))
    y = x_b + draws(true + noise, n_times)
    x_a = x_b + (y - x_b) @ gain.T
    dims = ("realization", "time", "station")

    def labelled(values: np.ndarray) -> xr.DataArray:
        return xr.DataArray(values, dims=dims)

    return System(
        prior,
        posterior,
        labelled(x_b + draws(prior, m, n_times)),
        labelled(x_a + draws(posterior, m, n_times)),
        (labelled(x_b[None]), labelled(x_a[None])),
        xr.DataArray(y, dims=dims[1:], attrs={"units": "K"}),
    )


def test_chi_square_by_the_dense_formula() -> None:
    system = kalman(5, 6)
    members, y = system.background, system.observations
    found = innovation_chi_square(members, y, "station", noise_std=NOISE, by="time")
    for i in range(5):
        x = members.values[:, i]
        covariance = 7 / 6 * np.cov(x.T) + np.diag(NOISE.values**2)
        d = y.values[i] - x.mean(0)
        expected = d @ np.linalg.solve(covariance, d) / N_STATIONS
        assert float(found["chi_square"][i]) == pytest.approx(expected, rel=1e-12)


def test_chi_square_is_one_on_average() -> None:
    """At most as far above it as without noise, (M - 1) / (M - n - 2), and sampling error."""
    n_times, m = 2000, 100
    system = kalman(n_times, m)
    error = 4 * (2 / N_STATIONS / n_times) ** 0.5
    options = {"vector_dims": "station", "noise_std": NOISE}
    found = innovation_chi_square(system.background, system.observations, **options)
    assert 1 - error < float(found["chi_square"]) < (m - 1) / (m - N_STATIONS - 2) + error
    narrow = kalman(n_times, m, spread=0.5)
    found = innovation_chi_square(narrow.background, narrow.observations, **options)
    assert found["chi_square"] > 1.2 * found["expected"]


@pytest.mark.parametrize("m", [3, 6, 20])
def test_the_expectation_for_few_members(m: int) -> None:
    """The statistic of m members is on average what m + 1 members lead one to expect, exactly."""
    n_times = 4000
    system = kalman(n_times, m + 1)
    options = {"vector_dims": "station", "noise_std": NOISE, "by": "time"}
    whole = innovation_chi_square(system.background, system.observations, **options)
    part = innovation_chi_square(system.background[:-1], system.observations, **options)
    difference = part["chi_square"] - whole["expected"]
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / n_times**0.5
    if m == 3:
        assert float(whole["expected"].mean()) > 1.2


def test_the_expectation_without_noise() -> None:
    """Hotelling's factor of the members that are left; and finite where they are too few for it."""
    for m in (10, 20):
        system = kalman(4000, m)
        each = innovation_chi_square(
            system.background, system.observations, "station", noise_std=1e-4, by="time"
        )["expected"]
        error = 4 * float(each.std()) / 4000**0.5
        exact = (m - 2) / (m - 1 - N_STATIONS - 2)
        assert float(each.mean()) == pytest.approx(exact, abs=error)
    few = innovation_chi_square(
        system.background[:4], system.observations, "station", noise_std=1e-2, by="time"
    )
    assert np.isfinite(few["expected"]).all()
    assert few["expected"].mean() > 100


def test_two_members_lead_one_to_expect_nothing() -> None:
    system = kalman(5, 2)
    found = innovation_chi_square(
        system.background, system.observations, "station", noise_std=NOISE
    )
    assert np.isfinite(found["chi_square"])
    assert np.isnan(found["expected"])


def test_the_expectation_by_the_dense_formula() -> None:
    system = kalman(1, 4)
    members, noise = system.background.values[:, 0], np.diag(NOISE.values**2)
    expected = []
    for i in range(4):
        others = np.delete(members, i, axis=0)
        d = members[i] - others.mean(0)
        inverse = np.linalg.inv(4 / 3 * np.cov(others.T) + noise)
        expected.append((d @ inverse @ d + np.trace(inverse @ noise)) / N_STATIONS)
    found = innovation_chi_square(
        system.background, system.observations, "station", noise_std=NOISE
    )
    assert float(found["expected"]) == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("m", [10, 20])
def test_the_excess_of_chi_square_without_noise(m: int) -> None:
    """E d^T S^-1 d of a sample covariance is n (M - 1) / (M - n - 2), the law of Hotelling."""
    system = kalman(4000, m)
    y = system.means[0].isel(realization=0) + xr.DataArray(
        np.random.default_rng(1).multivariate_normal(np.zeros(4), system.prior, 4000),
        dims=("time", "station"),
    )
    options = {"noise_std": 1e-4, "by": "time"}
    each = innovation_chi_square(system.background, y, "station", **options)["chi_square"]
    error = 4 * float(each.std()) / 4000**0.5
    assert float(each.mean()) == pytest.approx((m - 1) / (m - N_STATIONS - 2), abs=error)


def test_what_is_not_observed_does_not_count() -> None:
    system = kalman(20, 10)
    y, members = system.observations, system.background
    is_there = xr.DataArray([True, False, True, True], dims="station")
    options = {"noise_std": NOISE, "by": "time"}
    found = innovation_chi_square(members, y.where(is_there), "station", where=is_there, **options)
    part = {"station": [0, 2, 3]}
    alone = innovation_chi_square(
        members.isel(part), y.isel(part), "station", noise_std=NOISE.isel(part), by="time"
    )
    xr.testing.assert_allclose(found, alone, rtol=1e-12)
    nothing = is_there & (y["time"] > 0)
    found = innovation_chi_square(members, y, "station", where=nothing, **options)
    for field in found.values():
        assert field.isnull().values.tolist() == [True] + 19 * [False]
    whole = degrees_of_freedom_for_signal(system.analysis, noise_std=NOISE, where=is_there)
    alone = degrees_of_freedom_for_signal(system.analysis.isel(part), noise_std=NOISE.isel(part))
    assert float(whole) == pytest.approx(float(alone), rel=1e-12)


def test_desroziers_finds_the_variances() -> None:
    """Each to four standard errors of the mean of the product that estimates it."""
    n_times = 20_000
    system = kalman(n_times, 2)
    y = system.observations
    d_b, d_a = (y - mean.isel(realization=0) for mean in system.means)
    found = desroziers(*system.means, y, by="station")
    exact = {
        "observation_variance": (NOISE.values**2, d_a * d_b),
        "background_variance": (np.diag(system.prior), (d_b - d_a) * d_b),
        "analysis_variance": (np.diag(system.posterior), (d_b - d_a) * d_a),
    }
    for name, (variance, product) in exact.items():
        error = 4 * product.std("time") / n_times**0.5
        assert (abs(found[name] - variance) < error).all(), name
    assert found["observation_variance"].attrs["units"] == "(K)2"


def test_desroziers_is_the_same_from_members() -> None:
    """The sampling noise of the two means is independent, and has no part in their product."""
    n_times = 20_000
    system = kalman(n_times, 5)
    found = desroziers(system.background, system.analysis, system.observations, by="station")
    d_b, d_a = (
        system.observations - members.mean("realization")
        for members in (system.background, system.analysis)
    )
    error = 4 * (d_a * d_b).std("time") / n_times**0.5
    assert (abs(found["observation_variance"] - NOISE**2) < error).all()


def test_desroziers_sees_a_background_that_is_taken_too_narrow() -> None:
    """The estimate of its variance exceeds the one that the analysis was given."""
    system = kalman(5000, 2, spread=0.5)
    found = desroziers(*system.means, system.observations)
    assert found["background_variance"] > 1.3 * np.diag(system.prior).mean()
    assert found["observation_variance"] > 1.1 * (NOISE**2).mean()


@pytest.mark.parametrize("m", [2, 30])
def test_departures_are_as_expected(m: int) -> None:
    """Mean squares to four standard errors, for any number of members."""
    n_times = 10_000
    system = kalman(n_times, m)
    found = departures(
        system.background, system.analysis, system.observations, noise_std=NOISE, by="station"
    )
    for name, ensemble, sign in (("omb", system.background, 1), ("oma", system.analysis, -1)):
        d = system.observations - ensemble.mean("realization")
        term = sign * (m + sign) / m * ensemble.var("realization", ddof=1)
        error = 4 * (d**2 - term).std("time") / n_times**0.5
        square, expected = found[f"{name}_rms"] ** 2, found[f"{name}_expected"] ** 2
        assert (abs(square - expected) < error).all()
        np.testing.assert_allclose(
            square, found[f"{name}_std"] ** 2 + found[f"{name}_mean"] ** 2, rtol=1e-12
        )
        assert (abs(found[f"{name}_mean"]) < 4 * d.std("time") / n_times**0.5).all()


def test_degrees_of_freedom_for_signal_are_the_trace_of_the_influence() -> None:
    n_times = 400
    system = kalman(n_times, 5)
    noise = np.diag(NOISE.values**2)
    exact = np.trace(system.prior @ np.linalg.inv(system.prior + noise))
    each = degrees_of_freedom_for_signal(system.analysis, noise_std=NOISE, by="time")
    error = 4 * float(each.std()) / n_times**0.5
    assert float(each.mean()) == pytest.approx(exact, abs=error)
    assert 0 < exact < N_STATIONS


def test_noise_levels_are_checked() -> None:
    system = kalman(5, 4)
    members, y = system.background, system.observations
    for bad in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(NoiseLevelError, match="positive"):
            innovation_chi_square(members, y, "station", noise_std=bad)
        with pytest.raises(NoiseLevelError, match="positive"):
            departures(members, system.analysis, y, noise_std=bad)
    with pytest.raises(ShapeError, match="noise level"):
        innovation_chi_square(members, y, "station", noise_std=NOISE.rename(station="x"))
    with pytest.raises(ShapeError, match="noise_std"):
        degrees_of_freedom_for_signal(members, noise_std=NOISE[:3])
    with pytest.raises(ShapeError, match="cannot be kept"):
        innovation_chi_square(members, y, "station", noise_std=1.0, by="station")
    with pytest.raises(ShapeError, match="lacks the dimension"):
        degrees_of_freedom_for_signal(y, noise_std=1.0)
