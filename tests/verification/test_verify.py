"""The table of scores and its verdict, and what all scores refuse."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from invdiff import calibration
from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.verification import (
    brier_score,
    crps,
    energy_score,
    reliability_diagram,
    spread_error,
    verify,
    weighted_mean,
)
from tests.support.forecasts import KINDS, forecasts

MEMBERS, TRUTH = forecasts(n=6, n_cases=30, size=3)

Field = xr.DataArray
SCORES: dict[str, Callable[..., xr.Dataset | Field]] = {
    "crps": crps,
    "energy_score": lambda m, t, **options: energy_score(m, t, ("y", "x"), **options),
    "spread_error": spread_error,
    "brier_score": lambda m, t, **options: brier_score(m, t, lambda x: x > 0, **options),
    "reliability": lambda m, t, **options: reliability_diagram(m, t, lambda x: x > 0, **options),
    "verify": lambda m, t, **options: verify(m, t, dim_independent="case", **options),
}
WEIGHED = [name for name in SCORES if name != "energy_score"]  # weighs its norm


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_says_what_is_wrong(kind: str) -> None:
    members, truth = forecasts(kind, n=16, n_cases=100, size=3)
    truth = truth.assign_attrs(units="K")
    found = verify(members, truth, dim_independent="case")
    named = {"calibrated": "calibrated", "biased": "biased low"}.get(kind, kind)
    assert found.attrs["verdict"].startswith(f"The ensemble is {named}")
    assert f"CRPS {float(found['crps']):.3g} K" in found.attrs["verdict"]
    assert "100 independent cases" in found.attrs["verdict"]
    xr.testing.assert_identical(found["crps"], crps(members, truth))
    whole = calibration.report(members, truth, dim_independent="case").table
    xr.testing.assert_identical(found["p_width"], whole["p_width"])


def by_lead_time(*kinds: str) -> tuple[Field, Field]:
    """Members and truths whose kind changes with lead time."""
    parts = [forecasts(kind, n=16, n_cases=100, size=2, seed=i) for i, kind in enumerate(kinds)]
    hours = (6 * np.arange(1, len(kinds) + 1)).astype("timedelta64[h]")
    members, truth = (
        xr.concat([part[i] for part in parts], "lead_time").assign_coords(
            lead_time=hours.astype("timedelta64[ns]")
        )
        for i in (0, 1)
    )
    return members, truth


def test_the_verdict_is_by_lead_time() -> None:
    members, truth = by_lead_time("calibrated", "too narrow", "calibrated", "too narrow")
    members = members.transpose("realization", ...)
    found = verify(members, truth, dim_independent="case")
    assert found["rank_count"].dims == ("lead_time", "bin")
    assert (found["rank_count"].sum("bin") == 400).all()
    is_inside = (found["rank_lower"] <= found["rank_share"]) & (
        found["rank_share"] <= found["rank_upper"]
    )
    assert is_inside[[0, 2]].all()  # flat
    assert (found["rank_share"][1, [0, -1]] > found["rank_upper"][1, 0]).all()  # a U
    assert ((found["spread_skill"] > 0.9).values == [True, False, True, False]).all()
    assert "too narrow at lead time 12 h, 24 h; elsewhere calibrated" in found.attrs["verdict"]
    for name in ("crps", "rmse", "spread", "bias", "spread_skill", "p_bias", "coverage"):
        assert found[name].dims[0] == "lead_time"
    one = verify(members[:, 1].drop_vars("lead_time"), truth[1], dim_independent="case")
    xr.testing.assert_allclose(found["crps"][1], one["crps"])
    assert float(found["p_width"][1]) == float(one["p_width"])
    calm = verify(members.isel(lead_time=[0, 2]), truth[[0, 2]], dim_independent="case")
    assert "at all 2 values of lead time" in calm.attrs["verdict"]


def test_exact_ensembles_are_seldom_accused_at_any_lead_time() -> None:
    """Of 40 tables of 4 lead times each, 5 % or 2 are expected at most; 7 are beyond 3 sigma."""
    n_accused = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        draws = rng.standard_normal((10, 60, 4))
        truth = xr.DataArray(draws[0], dims=("case", "lead_time"))
        members = xr.DataArray(draws[1:], dims=("realization", "case", "lead_time"))
        words = verify(members, truth, dim_independent="case").attrs["verdict"]
        n_accused += "at all 4 values" not in words
    assert n_accused <= 6


@pytest.mark.parametrize("name", SCORES)
def test_one_member_is_not_an_ensemble(name: str) -> None:
    if name == "reliability":
        assert SCORES[name](MEMBERS[:1], TRUTH)["share"].sum() == pytest.approx(1)
        return
    with pytest.raises(InputError, match="at least 2"):
        SCORES[name](MEMBERS[:1], TRUTH)
    with pytest.raises(InputError, match="at least 1"):
        crps(MEMBERS[:0], TRUTH, is_fair=False)


@pytest.mark.parametrize("name", SCORES)
def test_what_does_not_match_is_refused(name: str) -> None:
    score = SCORES[name]
    for members, truth in (
        (MEMBERS.rename(realization="member"), TRUTH),
        (MEMBERS, TRUTH.isel(case=0)),
        (MEMBERS, TRUTH.expand_dims("level")),
        (MEMBERS.isel(x=[0, 1]), TRUTH),
        (MEMBERS.assign_coords(x=[0, 1, 2]), TRUTH.assign_coords(x=[1, 2, 3])),
        (MEMBERS.assign_coords(x=[0, 1, 2]), TRUTH.assign_coords(x=[0, 1, 2 + 1e-6])),
    ):
        with pytest.raises(ShapeError):
            score(members, truth)
    with pytest.raises(ShapeError):
        score(MEMBERS, TRUTH, where=xr.DataArray([True], dims="level"))
    with pytest.raises(DTypeError, match="bool"):
        score(MEMBERS, TRUTH, where=xr.ones_like(TRUTH))
    with pytest.raises(DTypeError):
        score(MEMBERS + 0j, TRUTH + 0j)
    with pytest.raises(InputError, match="nothing to evaluate"):
        score(MEMBERS, TRUTH, where=xr.zeros_like(TRUTH, dtype=bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", SCORES)
def test_holes_are_refused_or_left_out(name: str, bad: float) -> None:
    score = SCORES[name]
    is_there = xr.ones_like(TRUTH, dtype=bool)
    is_there[:, 0, 1] = False
    spoilt, holed = MEMBERS.where(is_there, bad), TRUTH.where(is_there, bad)
    with pytest.raises(NonFiniteError, match="where="):
        score(spoilt, TRUTH)
    with pytest.raises(NonFiniteError, match="where="):
        score(MEMBERS, holed)
    left_out = score(spoilt, holed, where=is_there)
    xr.testing.assert_identical(left_out, score(MEMBERS, TRUTH, where=is_there))
    assert not left_out.equals(score(MEMBERS, TRUTH))


@pytest.mark.parametrize("name", WEIGHED)
def test_weights_are_checked(name: str) -> None:
    score = SCORES[name]
    for bad in ([1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(InputError, match="not those of a mean"):
            score(MEMBERS, TRUTH, weights=xr.DataArray(bad, dims="x"))
    with pytest.raises(NonFiniteError, match="weights"):
        score(MEMBERS, TRUTH, weights=xr.DataArray([1.0, np.nan, 1.0], dims="x"))
    with pytest.raises(ShapeError, match="other dims"):
        score(MEMBERS, TRUTH, weights=xr.DataArray([1.0], dims="level"))
    with pytest.raises(ShapeError, match="labels of field and weights"):
        score(MEMBERS, TRUTH, weights=xr.DataArray([1.0, 1.0], dims="x"))


def test_a_mean_of_nothing_is_nan() -> None:
    where = xr.DataArray(np.arange(30) > 3, dims="case")
    found = crps(MEMBERS, TRUTH, by="case", where=where)
    assert (found.isnull().values == (np.arange(30) <= 3)).all()
    assert weighted_mean(TRUTH, by="case", where=where).isnull().sum() == 4
    weights = xr.DataArray([1.0, 0.0, 0.0], dims="x")
    assert crps(MEMBERS, TRUTH, by="x", weights=weights).isnull().values.tolist() == [0, 1, 1]


def test_dims_that_are_kept_are_those_of_the_truth() -> None:
    for by in ("time", ("case", "realization")):
        with pytest.raises(ShapeError, match="named dimension"):
            crps(MEMBERS, TRUTH, by=by)
    with pytest.raises(ShapeError, match="cannot be kept"):
        energy_score(MEMBERS, TRUTH, "x", by="x")
    with pytest.raises(ShapeError, match="all members"):
        energy_score(MEMBERS, TRUTH, "x", where=MEMBERS.notnull())
    with pytest.raises(ShapeError, match="other dims"):
        energy_score(MEMBERS, TRUTH, "x", weights=xr.DataArray(np.ones(3), dims="y"))


def test_an_event_is_a_comparison() -> None:
    for score in (brier_score, reliability_diagram):
        with pytest.raises(DTypeError, match="comparison"):
            score(MEMBERS, TRUTH, lambda x: x - 1)
    with pytest.raises(InputError, match="n_bins=1"):
        reliability_diagram(MEMBERS, TRUTH, lambda x: x > 0, n_bins=1)


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_dims_is_free(name: str) -> None:
    turned = MEMBERS.transpose("x", "case", "realization", "y"), TRUTH.transpose("y", "x", "case")
    xr.testing.assert_allclose(SCORES[name](*turned), SCORES[name](MEMBERS, TRUTH))
