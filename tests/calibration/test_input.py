"""What goes in: chunks, labels, holes, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from invdiff.calibration import (
    StudentInterval,
    binomial_interval,
    chi_square_p_value,
    conformal_factor,
    coverage,
    coverage_curve,
    half_width,
    hpd_coverage,
    pit,
    pit_ecdf,
    pqmass,
    rank_histogram,
    ranks,
    report,
    sbc,
    smooth_p_value,
    spread_skill,
    spread_skill_curve,
    tarp,
)
from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from tests.support.forecasts import forecasts

MEMBERS, TRUTH = forecasts(n=8, n_cases=40, size=3)
HOLED = TRUTH.copy()
HOLED[3, 0, 0] = np.nan

Method = Callable[[xr.DataArray, xr.DataArray], xr.Dataset | xr.DataArray]


def mean(x: xr.DataArray) -> xr.DataArray:
    return x.mean(("y", "x"))


METHODS: dict[str, Method] = {
    "coverage": coverage,
    "coverage of Student's": lambda m, t: coverage(m, t, interval=StudentInterval()),
    "coverage_curve": lambda m, t: coverage_curve(m, t, dim_independent="case"),
    "rank_histogram": lambda m, t: rank_histogram(m, t, dim_independent="case"),
    "sbc": lambda m, t: sbc(m, t, {"mean": mean}),
    "tarp": tarp,
    "pqmass": lambda m, t: pqmass(m[:4], m[4:], n_regions=2, n_tessellations=5),
    "spread_skill": lambda m, t: spread_skill(m, t, dim_independent="case"),
    "spread_skill_curve": lambda m, t: spread_skill_curve(m, t, n_bins=4),
    "conformal_factor": lambda m, t: conformal_factor(m, t, 0.8),
    "hpd_coverage": hpd_coverage,
    "report": lambda m, t: report(m, t, dim_independent="case").table,
}
TRUTHS = [name for name in METHODS if name != "pqmass"]
MASKED: dict[str, Callable[[xr.DataArray, xr.DataArray, xr.DataArray], xr.Dataset]] = {
    "coverage_curve": lambda m, t, w: coverage_curve(m, t, dim_independent="case", where=w),
    "rank_histogram": lambda m, t, w: rank_histogram(m, t, dim_independent="case", where=w),
    "spread_skill": lambda m, t, w: spread_skill(m, t, dim_independent="case", where=w),
    "spread_skill_curve": lambda m, t, w: spread_skill_curve(m, t, n_bins=4, where=w),
    "conformal_factor": lambda m, t, w: conformal_factor(m, t, 0.8, where=w).to_dataset(),
    "report": lambda m, t, w: report(m, t, dim_independent="case", where=w).table,
}


@pytest.mark.parametrize("chunks", [{"realization": 3}, {"realization": 3, "case": 7, "x": 2}])
@pytest.mark.parametrize("name", METHODS)
def test_chunks_change_nothing(name: str, chunks: dict[str, int]) -> None:
    truth = TRUTH.chunk({dim: n for dim, n in chunks.items() if dim != "realization"})
    xr.testing.assert_allclose(
        METHODS[name](MEMBERS.chunk(chunks), truth), METHODS[name](MEMBERS, TRUTH), rtol=1e-12
    )


@pytest.mark.parametrize("function", [pit, ranks])
def test_fields_stay_lazy(function: Callable[..., xr.DataArray]) -> None:
    lazy = function(MEMBERS.chunk(realization=3, case=7), TRUTH, seed=2)
    assert lazy.chunks is not None
    assert lazy.chunksizes["case"][0] == 7
    xr.testing.assert_identical(lazy.compute(), function(MEMBERS, TRUTH, seed=2))
    assert half_width(MEMBERS.chunk(case=7), 0.5).chunks is not None


@pytest.mark.parametrize("name", TRUTHS)
def test_the_order_of_dims_is_free(name: str) -> None:
    turned = MEMBERS.transpose("x", "case", "realization", "y"), TRUTH.transpose("y", "x", "case")
    xr.testing.assert_allclose(METHODS[name](*turned), METHODS[name](MEMBERS, TRUTH))


@pytest.mark.parametrize("is_inf", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_holes_are_refused(name: str, is_inf: bool) -> None:
    hole = np.inf if is_inf else np.nan
    spoilt = MEMBERS.copy()
    spoilt[2, 5, 1, 1] = hole
    with pytest.raises(NonFiniteError):
        METHODS[name](spoilt, TRUTH)


@pytest.mark.parametrize("name", MASKED)
def test_holes_may_be_left_out(name: str) -> None:
    is_there = xr.ones_like(TRUTH, dtype=bool)
    is_there[:, 0, 1] = False
    spoilt, holed = MEMBERS.where(is_there), TRUTH.where(is_there, np.inf)
    found = MASKED[name](spoilt, holed, is_there)
    other = MASKED[name](MEMBERS, TRUTH, is_there)
    xr.testing.assert_identical(found, other)
    assert not found.equals(MASKED[name](MEMBERS, TRUTH, is_there | True))


def test_pit_is_nan_where_a_value_is_not_finite() -> None:
    for function in (pit, ranks):
        xr.testing.assert_equal(function(MEMBERS, HOLED).isnull(), HOLED.isnull())
        assert function(MEMBERS, TRUTH).notnull().all()


@pytest.mark.parametrize("name", TRUTHS)
def test_what_does_not_match_is_refused(name: str) -> None:
    method = METHODS[name]
    with pytest.raises(ShapeError):
        method(MEMBERS, TRUTH.rename(x="z"))
    with pytest.raises(ShapeError):
        method(MEMBERS, TRUTH[:, :2])
    with pytest.raises(ShapeError):
        method(MEMBERS.rename(realization="member"), TRUTH)
    with pytest.raises(DTypeError):
        method(MEMBERS, TRUTH + 0j)


def test_the_independent_dimension_must_be_there() -> None:
    for method in (coverage_curve, rank_histogram, spread_skill, report):
        with pytest.raises(ShapeError, match="dim_independent='time'"):
            method(MEMBERS, TRUTH, dim_independent="time")
        with pytest.raises(InputError, match="1 "):
            method(MEMBERS[:, :1], TRUTH[:1], dim_independent="case")
    with pytest.raises(ShapeError, match="dim_independent="):
        tarp(MEMBERS, TRUTH, dim_independent="time")
    with pytest.raises(ShapeError, match="dim_independent="):
        conformal_factor(MEMBERS, TRUTH, 0.8, dim_independent="time")


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="0 < level < 1"):
        report(MEMBERS, TRUTH, levels=(1.0,))
    with pytest.raises(InputError, match="0 < level < 1"):
        hpd_coverage(MEMBERS, TRUTH, (0.0,))
    with pytest.raises(InputError, match="n_bins=1"):
        rank_histogram(MEMBERS, TRUTH, n_bins=1)
    with pytest.raises(InputError, match="n_bins=400"):
        spread_skill_curve(MEMBERS, TRUTH, n_bins=400)
    with pytest.raises(InputError, match="1 member"):
        spread_skill(MEMBERS[:1], TRUTH)
    with pytest.raises(InputError, match="n_effective=3"):
        coverage_curve(MEMBERS, TRUTH, dim_independent="case", n_effective=3)
    with pytest.raises(InputError, match="n_effective=0"):
        coverage_curve(MEMBERS, TRUTH, n_effective=0)
    with pytest.raises(InputError, match="confidence"):
        binomial_interval(0.5, 10, 1.0)
    with pytest.raises(InputError, match="confidence"):
        pit_ecdf(mean(pit(MEMBERS, TRUTH)), confidence=0.0)
    with pytest.raises(InputError, match="nothing to evaluate"):
        report(MEMBERS, TRUTH, where=xr.zeros_like(TRUTH, dtype=bool))
    with pytest.raises(DTypeError, match="bool"):
        coverage(MEMBERS, TRUTH, where=xr.ones_like(TRUTH))
    with pytest.raises(InputError, match="2 bins"):
        chi_square_p_value(np.array([3]))


def test_tests_of_uniformity_take_pit_values() -> None:
    rank = ranks(MEMBERS, TRUTH)
    with pytest.raises(InputError, match="not ranks"):
        smooth_p_value(rank)
    with pytest.raises(InputError, match="not ranks"):
        pit_ecdf(rank[:, 0, 0])
    with pytest.raises(ShapeError, match="independent values"):
        pit_ecdf(pit(MEMBERS, TRUTH))
    with pytest.raises(NonFiniteError, match="1 values"):
        pit_ecdf(pit(MEMBERS, HOLED)[:, 0, 0])


def test_statistics_are_one_real_number_per_case() -> None:
    with pytest.raises(InputError, match="at least one"):
        sbc(MEMBERS, TRUTH, {})
    with pytest.raises(ShapeError, match="'row' is not one number"):
        sbc(MEMBERS, TRUTH, {"row": lambda x: x.mean("x")})
    with pytest.raises(DTypeError, match="'mean' is complex"):
        sbc(MEMBERS + 0j, TRUTH + 0j, {"mean": mean})
    with pytest.raises(DTypeError, match="log densities are complex"):
        hpd_coverage(MEMBERS + 0j, TRUTH + 0j)


def test_pqmass_needs_members() -> None:
    with pytest.raises(InputError, match="8 members in all"):
        pqmass(MEMBERS[:4], MEMBERS[4:], n_regions=5)
    with pytest.raises(ShapeError):
        pqmass(MEMBERS[:4], MEMBERS[4:, :3], n_regions=2)


def test_conformal_says_how_many_cases_it_needs() -> None:
    with pytest.raises(InputError, match="at least 99"):
        conformal_factor(MEMBERS, TRUTH, 0.99)
    with pytest.raises(InputError, match="at least 9"):
        conformal_factor(MEMBERS[:, :8], TRUTH[:8], 0.9)
    assert conformal_factor(MEMBERS[:, :9], TRUTH[:9], 0.9) > 0
    alike = MEMBERS * 0
    with pytest.raises(InputError, match="360 such values"):
        conformal_factor(alike, TRUTH, 0.8)
    nothing = xr.ones_like(TRUTH, dtype=bool)
    nothing[3] = False
    with pytest.raises(InputError, match="1 cases"):
        conformal_factor(MEMBERS, TRUTH, 0.8, where=nothing)


def test_members_that_are_all_alike_have_no_ratio() -> None:
    with pytest.raises(InputError, match="spread and error"):
        spread_skill(MEMBERS * 0, TRUTH)
