"""Figures of calibration inside masks, beside the whole."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from invdiff.calibration import (
    by_region,
    coverage,
    coverage_curve,
    rank_histogram,
    report,
    spread_skill,
    spread_skill_curve,
)
from invdiff.errors import InputError
from tests.support.forecasts import forecasts

MEMBERS, TRUTH = forecasts(n_cases=150, correlation=0.2)
LESION = xr.DataArray(np.arange(6) < 2, dims="x")
CENTRE = MEMBERS.mean("realization")
NARROW = MEMBERS.where(~LESION, CENTRE + (MEMBERS - CENTRE) / 2)  # in the lesion alone
REGIONS = {"lesion": LESION, "rest": ~LESION}

Where = xr.DataArray | None
FIGURES: dict[str, Callable[[xr.DataArray, xr.DataArray, Where], xr.Dataset]] = {
    "coverage": lambda m, t, w: coverage(m, t, where=w).to_dataset(),
    "coverage_curve": lambda m, t, w: coverage_curve(m, t, dim_independent="case", where=w),
    "rank_histogram": lambda m, t, w: rank_histogram(
        m, t, dim_independent="case", n_bins=8, where=w
    ),
    "spread_skill": lambda m, t, w: spread_skill(m, t, dim_independent="case", where=w),
    "spread_skill_curve": lambda m, t, w: spread_skill_curve(m, t, n_bins=5, where=w),
    "report": lambda m, t, w: report(m, t, dim_independent="case", where=w).table,
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_a_region_is_that_of_its_values_alone(name: str) -> None:
    """The mask gives what a selection of its values gives; ties are none here."""
    figure = FIGURES[name]
    found = by_region(lambda where: figure(NARROW, TRUTH, where), REGIONS)
    assert found["region"].values.tolist() == ["whole", "lesion", "rest"]
    xr.testing.assert_allclose(
        found.sel(region="whole", drop=True), figure(NARROW, TRUTH, None), rtol=1e-12
    )
    if name in ("rank_histogram", "report"):
        return  # the draws inside the steps of 1 / (n + 1) are others on another grid
    cut = figure(NARROW.isel(x=slice(0, 2)), TRUTH.isel(x=slice(0, 2)), None)
    xr.testing.assert_allclose(found.sel(region="lesion", drop=True), cut, rtol=1e-9)


def test_a_fault_in_a_region_is_named_there_alone() -> None:
    verdicts = {
        name: report(NARROW, TRUTH, dim_independent="case", where=mask).verdict
        for name, mask in REGIONS.items()
    }
    assert verdicts["lesion"].startswith("The ensemble is too narrow")
    assert verdicts["rest"].startswith("The ensemble is calibrated")
    share = by_region(lambda where: coverage(NARROW, TRUTH, (0.9,), where=where), REGIONS)
    assert share.dims == ("region", "level")
    assert float(share.sel(region="lesion")[0]) < 0.72
    assert abs(float(share.sel(region="rest")[0]) - 0.9) < 0.03


def test_regions_have_names_of_their_own() -> None:
    for regions in ({}, {"whole": LESION}):
        with pytest.raises(InputError, match="regions"):
            by_region(lambda where: coverage(NARROW, TRUTH, where=where), regions)
