"""Each statistic separates right ensembles from wrong ones; p-values of right ones are uniform."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest

from invdiff.calibration import (
    coverage_curve,
    pit,
    pit_ecdf,
    pqmass,
    rank_histogram,
    report,
    sbc,
    smooth_p_value,
    spread_skill,
    tarp,
)
from tests.support.forecasts import KINDS, forecasts

WRONG = [kind for kind in KINDS if kind != "calibrated"]
BLIND = ("tarp", "biased")  # see its docstring
CASES = "case"


def mean(x: xr.DataArray) -> xr.DataArray:
    return x.mean(("y", "x"))


def band_p_value(curve: xr.Dataset) -> float:
    """0 if a level lies outside its band of 99.9 %, otherwise 1."""
    level = curve["level"]
    return float(((curve["lower"] <= level) & (level <= curve["upper"])).all())


def coverage_p(members: xr.DataArray, truth: xr.DataArray, seed: int) -> float:
    return band_p_value(coverage_curve(members, truth, dim_independent=CASES, confidence=0.999))


def ratio_p(members: xr.DataArray, truth: xr.DataArray, seed: int) -> float:
    found = spread_skill(members, truth, dim_independent=CASES, confidence=0.999)
    return float(found["lower"] <= 1 <= found["upper"])


P_VALUES: dict[str, Callable[[xr.DataArray, xr.DataArray, int], float]] = {
    "chi-square": lambda m, t, s: float(
        rank_histogram(m[:, :, 0, 0], t[:, 0, 0], dim_independent=CASES, n_bins=8, seed=s).p_value
    ),
    "rank histogram of fields": lambda m, t, s: float(
        rank_histogram(m, t, dim_independent=CASES, seed=s).p_value
    ),
    "smooth test": lambda m, t, s: smooth_p_value(pit(m, t, seed=s), CASES),
    "ecdf": lambda m, t, s: float(pit_ecdf(pit(mean(m), mean(t), seed=s)).p_value),
    "sbc": lambda m, t, s: float(sbc(m, t, {"mean": mean}, seed=s).p_value[0]),
    "tarp": lambda m, t, s: float(tarp(m, t, seed=s).p_value),
    # Random points lie on all sides, where a bias cancels: put them on one.
    "tarp from below": lambda m, t, s: float(tarp(m, t, references=t * 0 - 50, seed=s).p_value),
}
BANDS = {"coverage": coverage_p, "spread and skill": ratio_p}


ONE_NUMBER_A_CASE = ("chi-square", "ecdf", "sbc")
FINDS = [(name, kind) for name in P_VALUES | BANDS for kind in WRONG if (name, kind) != BLIND]


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize(("name", "kind"), FINDS)
def test_wrong_ensembles_are_detected(name: str, kind: str, is_complex: bool) -> None:
    members, truth = forecasts(kind, n_cases=400, correlation=0.3, is_complex=is_complex)
    if is_complex and name in ONE_NUMBER_A_CASE:
        members, truth = members.imag, truth.imag
    assert (P_VALUES | BANDS)[name](members, truth, 0) < 5e-3


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("name", [*P_VALUES, *BANDS])
def test_the_calibrated_ensemble_passes(name: str, is_complex: bool) -> None:
    members, truth = forecasts(n_cases=400, correlation=0.3, is_complex=is_complex, seed=1)
    if is_complex and name in ONE_NUMBER_A_CASE:
        members, truth = members.imag, truth.imag
    assert (P_VALUES | BANDS)[name](members, truth, 0) > 1e-2


@pytest.mark.parametrize("name", P_VALUES)
def test_p_values_are_uniform_for_calibrated_ensembles(name: str) -> None:
    """Kolmogorov and Smirnov over 200 repetitions."""
    found = [
        P_VALUES[name](*forecasts(n=9, n_cases=40, size=3, correlation=0.3, seed=seed), 0)
        for seed in range(200)
    ]
    assert kstest(found, "uniform").pvalue > 1e-3
    assert np.mean(np.array(found) < 0.05) < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5


def test_p_values_of_the_report_are_uniform() -> None:
    tables = [
        report(
            *forecasts(n=9, n_cases=40, size=3, correlation=0.3, seed=seed), dim_independent=CASES
        ).table
        for seed in range(60)
    ]
    for name in ("p_bias", "p_width", "p_shape"):
        assert kstest([float(table[name]) for table in tables], "uniform").pvalue > 1e-3, name


def test_p_values_of_pqmass_are_uniform() -> None:
    found = []
    for seed in range(200):
        members = forecasts(n=60, n_cases=1, size=2, seed=seed)[0]
        split = members[:25], members[25:]
        found.append(
            float(
                pqmass(
                    *split, n_regions=4, n_tessellations=10, n_permutations=99, seed=seed
                ).p_value
            )
        )
    assert kstest(found, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_bands_hold_with_their_confidence(correlation: float) -> None:
    """Of 200 calibrated ensembles 90 % have the nominal level in the band of 90 %, no fewer.

    Counting correlated pixels as independent loses half of them: the band is for the cases.
    """
    held, naive = [], []
    for seed in range(200):
        pair = forecasts(n=9, n_cases=40, size=4, correlation=correlation, seed=seed)
        for store, dim in ((held, CASES), (naive, None)):
            curve = coverage_curve(*pair, (0.5,), dim_independent=dim, confidence=0.9)
            store.append(bool((curve["lower"] <= 0.5) & (curve["upper"] >= 0.5)))
    error = 4 * (0.9 * 0.1 / 200) ** 0.5
    assert 0.9 - error < np.mean(held)
    if correlation:
        assert np.mean(naive) < 0.75
