"""Two labelled fields, checked and made comparable."""

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
    """Both fields on the same labels, finite, in the order ``dims``.

    Args:
        first: A field with ``dims``.
        second: A field with ``dims`` except for ``kept``.
        dims: The dims, in the wanted order.
        kept: The dims that only the first has.

    Raises:
        ShapeError: A field has other dims, or labels do not match.
        NonFiniteError: NaN or Inf in one of them.
    """
    others = [name for name in dims if name not in kept]
    if set(first.dims) != set(dims) or set(second.dims) != set(others):
        raise ShapeError(
            "the dims do not match",
            got=f"{first.dims} and {second.dims}",
            expected=f"{tuple(dims)} and {tuple(others)}",
            hint="Rename or select dims.",
        )
    first, second = aligned(first, second)
    for field in (first, second):
        n_bad = int((~np.isfinite(field)).sum())
        if n_bad:
            raise NonFiniteError(
                "the input holds NaN or Inf",
                got=f"{n_bad} values",
                expected="finite values",
                hint="Leave out the traces or cells that hold them, or fill them.",
            )
    return first.transpose(*dims), second.transpose(*others)


def aligned(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both fields, checked to have the same labels along the dims that they share.

    Raises:
        ShapeError: Labels do not match.
    """
    try:
        return xr.align(first, second, join="exact")
    except ValueError as error:
        raise ShapeError(
            "the labels do not match",
            got=error,
            expected="the same coordinates",
            hint="Select or interpolate one onto the other.",
        ) from error
