"""Two labelled fields made fit to be compared."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from invdiff.errors import NonFiniteError, ShapeError

__all__ = ["aligned", "matched"]


def matched(
    first: xr.DataArray,
    second: xr.DataArray,
    dims: Sequence[Hashable],
    *,
    kept: Sequence[Hashable] = (),
) -> tuple[xr.DataArray, xr.DataArray]:
    """Both on the same labels, finite, in the order ``dims``; the second without ``kept``.

    Raises:
        ShapeError: other dims, or labels that do not match.
        NonFiniteError: NaN or Inf in one of them.
    """
    others = [name for name in dims if name not in kept]
    if set(first.dims) != set(dims) or set(second.dims) != set(others):
        raise ShapeError(
            "dims do not match",
            got=f"{first.dims} and {second.dims}",
            expected=f"{tuple(dims)} and {tuple(others)}",
            hint="Rename or select dims.",
        )
    first, second = aligned(first, second)
    for field in (first, second):
        n_bad = int((~np.isfinite(field)).sum())
        if n_bad:
            raise NonFiniteError("NaN or Inf in the input", got=f"{n_bad} values")
    return first.transpose(*dims), second.transpose(*others)


def aligned(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both, of the same labels where they share dims.

    Raises:
        ShapeError: labels that do not match.
    """
    try:
        return xr.align(first, second, join="exact")
    except ValueError as error:
        raise ShapeError(
            "labels do not match",
            got=error,
            expected="the same coordinates",
            hint="Select or interpolate one onto the other.",
        ) from error
