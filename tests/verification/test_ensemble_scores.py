"""Scores of ensembles against closed forms, in expectation, and against other libraries."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from invdiff import calibration
from invdiff.verification import (
    brier_score,
    crps,
    energy_score,
    reliability_diagram,
    spread_error,
)
from tests.support.forecasts import forecasts

SIZES = [2, 5, 50]


def drawn(n: int, *shape: int, mean: float = 0.0, std: float = 1.0, seed: int = 0) -> xr.DataArray:
    """Members of a normal law."""
    draws = np.random.default_rng((seed, n)).standard_normal((n, *shape))
    return xr.DataArray(mean + std * draws, dims=("realization", "case", "x")[: 1 + len(shape)])


def truths(*shape: int) -> xr.DataArray:
    draws = np.random.default_rng(1).standard_normal(shape)
    return xr.DataArray(draws, dims=("case", "x")[: len(shape)])


def gaussian_crps(truth: xr.DataArray, mean: float, std: float) -> np.ndarray:
    z = (truth.values - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - np.pi**-0.5)


def excess(sample: np.ndarray) -> float:
    """The mean of a sample in its standard errors."""
    return float(sample.mean() / sample.std(ddof=1) * sample.size**0.5)


@pytest.mark.parametrize("n", SIZES)
def test_fair_crps_is_that_of_the_law(n: int) -> None:
    """In expectation, for any number of members, of a law that is biased and too wide."""
    truth, members = truths(20_000), drawn(n, 20_000, mean=0.3, std=1.5)
    exact = gaussian_crps(truth, 0.3, 1.5)
    assert abs(excess(crps(members, truth, by="case").values - exact)) < 4
    if n < 50:  # the difference is |x - x'| / 2 / n, which 20 000 cases show
        assert excess(crps(members, truth, is_fair=False, by="case").values - exact) > 10


def test_the_score_of_the_members_is_larger_by_one_over_their_number() -> None:
    """For a calibrated ensemble; the ratio of two means of strongly correlated values."""
    truth, members = truths(50_000), drawn(5, 50_000)
    ratio = float(crps(members, truth, is_fair=False) / crps(members, truth))
    assert ratio == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize("is_fair", [True, False])
def test_crps_of_other_libraries(is_fair: bool) -> None:
    members, truth = forecasts("too narrow", n=7, n_cases=30, size=4)
    found = crps(members, truth, is_fair=is_fair, by=truth.dims)
    scores = pytest.importorskip("scores.probability", reason="compared with scores if installed")
    method = "fair" if is_fair else "ecdf"
    theirs = scores.crps_for_ensemble(
        members, truth, "realization", method=method, preserve_dims="all"
    )
    np.testing.assert_allclose(found, theirs.transpose(*found.dims), rtol=0, atol=1e-12)
    rules = pytest.importorskip("scoringrules", reason="compared with scoringrules if installed")
    theirs = rules.crps_ensemble(
        truth.values, members.values, m_axis=0, estimator="fair" if is_fair else "nrg"
    )
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-12)


def test_values_left_out_are_those_of_scores() -> None:
    """Missing truths, and missing members, which `scores` counts one place at a time."""
    scores = pytest.importorskip("scores.probability", reason="compared with scores if installed")
    members, truth = forecasts(n=7, n_cases=30, size=4)
    rng = np.random.default_rng(0)
    members = members.where(rng.random(members.shape) < 0.7)
    truth = truth.where(rng.random(truth.shape) < 0.9)
    where = members.notnull() & truth.notnull()
    for by in ((), ("case",), truth.dims):
        theirs = scores.crps_for_ensemble(
            members, truth, "realization", method="fair", preserve_dims=list(by)
        )
        found = crps(members, truth, by=by, where=where)
        np.testing.assert_allclose(found, theirs.transpose(*found.dims), rtol=0, atol=1e-12)
    theirs = scores.brier_score_for_ensemble(
        members, truth, "realization", 0.0, preserve_dims="all"
    )
    found = brier_score(members, truth, lambda x: x >= 0, by=truth.dims, where=where)
    is_counted = found.notnull()  # `scores` scores a single member without its correction
    theirs = theirs.isel(threshold=0).transpose(*found.dims)
    np.testing.assert_allclose(
        found.values[is_counted.values], theirs.values[is_counted.values], rtol=0, atol=1e-12
    )


def test_a_large_offset_costs_no_digits() -> None:
    """Pairs are summed in sorted order, of deviations from the truth: 1e6 +- 1 is as 0 +- 1."""
    members, truth = forecasts(n=9, n_cases=20)
    far = crps(members + 1e6, truth + 1e6, by=truth.dims)
    np.testing.assert_allclose(far, crps(members, truth, by=truth.dims), rtol=0, atol=1e-8)
    single = crps(members.astype("float32"), truth.astype("float32"))
    assert single.dtype == np.float64
    assert float(single) == pytest.approx(float(crps(members, truth)), rel=1e-5)


@pytest.mark.parametrize("n", SIZES)
def test_spread_and_error_agree_for_exchangeable_ensembles(n: int) -> None:
    """Their ratio is 1 to its sampling error, about (1/2 + 1/(2n - 2))^1/2 / N^1/2 here."""
    truth, members = truths(40_000), drawn(n, 40_000)
    found = spread_error(members, truth)
    assert float(found["spread_skill"]) == pytest.approx(1, abs=4 / 40_000**0.5)
    if n == 2:  # without the factor it would be 0.82
        assert float(members.var("realization", ddof=1).mean() ** 0.5 / found["rmse"]) < 0.85


def test_spread_and_error_are_those_of_calibration() -> None:
    members, truth = forecasts("biased", n=8, n_cases=40)
    found, other = spread_error(members, truth), calibration.spread_skill(members, truth)
    for ours, theirs in (("spread", "spread"), ("rmse", "skill"), ("spread_skill", "ratio")):
        assert float(found[ours]) == pytest.approx(float(other[theirs]), rel=1e-12)
    assert float(found["bias"]) == pytest.approx(
        float((members.mean("realization") - truth).mean())
    )


def test_missing_members_count_less() -> None:
    """Leaving out members everywhere is as if they had not been there."""
    members, truth = forecasts(n=8, n_cases=40)
    is_there = xr.DataArray(np.arange(8) < 5, dims="realization")
    few, fewer = members.isel(realization=slice(5)), members.where(is_there)
    for score in (
        lambda m, w: crps(m, truth, where=w),
        lambda m, w: spread_error(m, truth, where=w),
        lambda m, w: brier_score(m, truth, lambda x: x > 1, where=w),
        lambda m, w: reliability_diagram(m, truth, lambda x: x > 1, n_bins=4, where=w),
    ):
        xr.testing.assert_allclose(score(fewer, is_there), score(few, None), rtol=1e-12)


def test_energy_score_of_one_component_is_the_crps() -> None:
    members, truth = forecasts("biased", n=9, n_cases=50, size=3)
    for is_fair in (True, False):
        expected = crps(members, truth, is_fair=is_fair, by=truth.dims)
        found = energy_score(
            members.expand_dims("variable"),
            truth.expand_dims("variable"),
            "variable",
            is_fair=is_fair,
            by=truth.dims,
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("is_fair", [True, False])
def test_energy_score_of_scoringrules(is_fair: bool) -> None:
    rules = pytest.importorskip("scoringrules", reason="compared with scoringrules if installed")
    members, truth = forecasts("too wide", n=7, n_cases=30, size=4, correlation=0.4)
    found = energy_score(members, truth, ("y", "x"), is_fair=is_fair, by="case")
    theirs = rules.es_ensemble(
        truth.values.reshape(30, 16),
        members.values.reshape(7, 30, 16),
        m_axis=0,
        estimator="fair" if is_fair else "nrg",
    )
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [2, 20])
def test_fair_energy_score_does_not_depend_on_the_number_of_members(n: int) -> None:
    """Truth and members of one law in 3 dimensions: E|x - y| / 2 = sqrt(2) E|x| / 2."""
    truth, members = truths(20_000, 3), drawn(n, 20_000, 3)
    exact = (2**0.5 * np.sqrt(8 / np.pi)) / 2  # E of chi with 3 degrees of freedom
    assert abs(excess(energy_score(members, truth, "x", by="case").values - exact)) < 4


def test_components_are_weighed_and_left_out() -> None:
    members, truth = forecasts(n=6, n_cases=20, size=3)
    is_there = xr.ones_like(truth, dtype=bool)
    is_there[:, :, 1] = False
    weights = is_there[0, 0].astype(float)
    part = energy_score(members.isel(x=[0, 2]), truth.isel(x=[0, 2]), ("y", "x"))
    for found in (
        energy_score(members.where(is_there), truth, ("y", "x"), where=is_there),
        energy_score(members, truth, ("y", "x"), weights=weights),
    ):
        assert float(found) == pytest.approx(float(part), rel=1e-9)
    twice = energy_score(members, truth, ("y", "x"), weights=4 * xr.ones_like(weights))
    assert float(twice) == pytest.approx(2 * float(energy_score(members, truth, ("y", "x"))))


@pytest.mark.parametrize("n", SIZES)
def test_fair_brier_score_is_that_of_the_probability(n: int) -> None:
    truth, members = truths(20_000), drawn(n, 20_000, mean=0.3)
    p = norm.sf(0.5 - 0.3)
    found = brier_score(members, truth, lambda x: x > 0.5, by="case")
    assert abs(excess(found.values - (p - (truth.values > 0.5)) ** 2)) < 4


@pytest.mark.parametrize("is_fair", [True, False])
def test_brier_score_of_scores(is_fair: bool) -> None:
    scores = pytest.importorskip("scores.probability", reason="compared with scores if installed")
    members, truth = forecasts(n=7, n_cases=30, size=4)
    thresholds = xr.DataArray([-1.0, 0.0, 3.0], dims="threshold")
    found = brier_score(members, truth, lambda x: x >= thresholds, is_fair=is_fair, by="case")
    theirs = scores.brier_score_for_ensemble(
        members,
        truth,
        "realization",
        thresholds.values,
        preserve_dims="case",
        fair_correction=is_fair,
    )
    np.testing.assert_allclose(found, theirs.transpose(*found.dims), rtol=0, atol=1e-12)


def test_reliability_by_hand() -> None:
    """Five of ten members say yes: 0.5, in the upper of two bins; all say yes: 1, there, too."""
    hits = xr.DataArray([0, 2, 5, 10], dims="case")
    members = (xr.DataArray(np.arange(10), dims="realization") < hits).astype(float)
    truth = xr.DataArray([0.0, 1.0, 0.0, 1.0], dims="case")
    found = reliability_diagram(members, truth, lambda x: x > 0, n_bins=2)
    np.testing.assert_allclose(found["probability"], [0.1, 0.75])
    np.testing.assert_allclose(found["frequency"], [0.5, 0.5])
    np.testing.assert_allclose(found["share"], [0.5, 0.5])
    weights = xr.DataArray([0.0, 1.0, 2.0, 1.0], dims="case")
    found = reliability_diagram(members, truth, lambda x: x > 0, n_bins=2, weights=weights)
    np.testing.assert_allclose(found["probability"], [0.2, 2 / 3])
    np.testing.assert_allclose(found["frequency"], [1, 1 / 3])
    np.testing.assert_allclose(found["share"], [0.25, 0.75])


def test_a_share_is_in_its_bin_in_spite_of_rounding() -> None:
    """29 / 100 * 100 is 28.999999999999996."""
    members = xr.DataArray((np.arange(100) < 29).astype(float), dims="realization")
    found = reliability_diagram(members, xr.DataArray(1.0), lambda x: x > 0, n_bins=100)
    assert found["share"].values.tolist().index(1) == 29
    assert found["frequency"].notnull().sum() == 1


@pytest.mark.parametrize("by", [(), ("case",), ("x", "y")])
def test_means_are_weighted(by: tuple[str, ...]) -> None:
    members, truth = forecasts(n=6, n_cases=10, size=3)
    weights = xr.DataArray([1.0, 2.0, 0.0], dims="x")
    score = crps(members, truth, by=truth.dims)
    over = [name for name in truth.dims if name not in by]
    expected = score.weighted(weights).mean(over)
    found = crps(members, truth, by=by, weights=weights)
    xr.testing.assert_allclose(found.drop_attrs(), expected)
