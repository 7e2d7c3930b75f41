"""Figures of calibration inside regions, beside the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import xarray as xr

from invdiff.errors import InputError

__all__ = ["WHOLE", "by_region"]

WHOLE = "whole"

Figure = TypeVar("Figure", xr.Dataset, xr.DataArray)


def by_region(
    figure: Callable[[xr.DataArray | None], Figure], regions: Mapping[str, xr.DataArray]
) -> Figure:
    """One figure of calibration for the whole and inside regions, side by side.

    An ensemble may be right on the whole and wrong where it matters: a lesion is a small share of
    an image. Each region has its own uncertainty; of twenty regions of an exact ensemble one is
    outside a band of 95 % by chance. Cost: one call of the figure for each region and the whole.

    Args:
        figure: A function of ``where``, such as ``lambda where: coverage_curve(ensemble, truth,
            where=where)``. Its results have the same sizes for every region, hence give
            ``n_bins`` to histograms.
        regions: A boolean mask by name, True inside. Regions may overlap and need not fill the
            whole.

    Returns:
        The results of the figure, with a first dimension ``region`` that holds ``"whole"``, which
        is ``figure(None)``, and then the names.

    Raises:
        InputError: There are no regions, or one is called ``"whole"``.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import by_region, coverage_curve
        >>> draws = np.random.default_rng(0).standard_normal((21, 200, 8))
        >>> truth = xr.DataArray(draws[0], dims=("case", "x"))
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case", "x"))
        >>> is_left = xr.DataArray(np.arange(8) < 2, dims="x")
        >>> ensemble = ensemble.where(~is_left, ensemble / 2)  # too narrow on the left
        >>> found = by_region(
        ...     lambda where: coverage_curve(
        ...         ensemble, truth, [0.9], dim_independent="case", where=where
        ...     ),
        ...     {"left": is_left, "right": ~is_left},
        ... )
        >>> found["coverage"].sel(level=0.9).round(2).to_series().to_dict()
        {'whole': 0.84, 'left': 0.62, 'right': 0.91}
    """
    if not regions or WHOLE in regions:
        raise InputError(
            "the regions are not named masks beside the whole",
            got=f"names {list(regions)}",
            expected=f"at least one name other than {WHOLE!r}",
            hint='Give, for instance, regions={"lesion": mask}.',
        )
    results: list[Figure] = [figure(mask) for mask in (None, *regions.values())]
    label = xr.DataArray([WHOLE, *regions], dims="region", name="region")
    together: Figure = xr.concat(
        results,
        label,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )
    return together
