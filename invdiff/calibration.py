r"""Is the spread of an ensemble what it should be? xarray in, xarray out.

An interval predicted from ``n`` members must allow for ``n`` being small: with mean ``m`` and
standard deviation ``s`` of the members, the next draw falls with probability ``level`` into

    m +- t_{n-1}((1 + level) / 2) s sqrt(1 + 1/n)

if it comes from the same normal distribution (Student's prediction interval). Complex values are
judged by their real and imaginary parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import t as student

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError

__all__ = ["coverage", "half_width"]


def half_width(ensemble: xr.DataArray, level: float, *, dim: str = "realization") -> xr.DataArray:
    """Half the width of the prediction interval of a real ensemble.

    Args:
        ensemble: real, with dimension ``dim`` of at least two members.
        level: nominal probability, between 0 and 1.
        dim: the dimension of the members.

    Raises:
        InputError: a level outside (0, 1), or fewer than two members.
    """
    n = ensemble.sizes[dim]
    if not 0 < level < 1 or n < 2:
        raise InputError(
            "no interval", got=f"level={level}, {n} members", expected="0 < level < 1, >= 2 members"
        )
    factor = student.ppf((1 + level) / 2, n - 1) * (1 + 1 / n) ** 0.5
    width: xr.DataArray = factor * ensemble.std(dim, ddof=1)
    return width


def coverage(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    *,
    dim: str = "realization",
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    """Share of the truth that lies inside the prediction intervals, by nominal level.

    Args:
        ensemble: members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        levels: nominal levels.
        dim: the dimension of the members.
        where: boolean; judge only there.

    Returns:
        ``coverage(level)``; equal to ``level`` for a calibrated ensemble.

    Raises:
        ShapeError: an ensemble without ``dim``, or a truth or ``where`` with other dims or labels.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
        InputError: nowhere to judge, a level outside (0, 1), or fewer than two members.
    """
    ensemble, truth, where = _aligned(ensemble, truth, where, dim=dim)
    pairs = [(ensemble, truth)]
    if np.iscomplexobj(ensemble):
        pairs = [(ensemble.real, truth.real), (ensemble.imag, truth.imag)]
    shares = []
    for level in levels:
        inside = [
            abs(exact - members.mean(dim)) <= half_width(members, level, dim=dim)
            for members, exact in pairs
        ]
        shares.append(float(np.mean([float(hit.where(where).mean()) for hit in inside])))
    return xr.DataArray(
        shares,
        dims="level",
        coords={"level": list(levels)},
        name="coverage",
        attrs={"long_name": "share of the truth inside the interval", "units": "1"},
    )


def _aligned(
    ensemble: xr.DataArray, truth: xr.DataArray, where: xr.DataArray | None, *, dim: str
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The three on the same labels, fit to be compared."""
    where = xr.ones_like(truth, dtype=bool) if where is None else where
    if (
        dim not in ensemble.dims
        or set(ensemble.dims) - {dim} != set(truth.dims)
        or not set(where.dims) <= set(truth.dims)
    ):
        raise ShapeError(
            "ensemble, truth and where do not match",
            got=f"{ensemble.dims}, {truth.dims} and {where.dims}",
            expected=f"the truth's dims, and {dim!r} in the ensemble",
            mend="Rename, select or transpose dims.",
        )
    if np.iscomplexobj(ensemble) != np.iscomplexobj(truth):
        raise DTypeError(
            "one of ensemble and truth is complex",
            got=f"{ensemble.dtype}, {truth.dtype}",
            expected="both or neither",
            mend="Take abs() or .real of the complex one.",
        )
    try:
        ensemble, truth, where = xr.align(ensemble, truth, where, join="exact")
    except ValueError as error:
        raise ShapeError(
            "labels of ensemble, truth and where do not match",
            got=error,
            expected="the same coordinates",
            mend="Select or interpolate one onto the other.",
        ) from error
    if not where.any():
        raise InputError("coverage is asked for nowhere", got="where is False everywhere")
    for name, finite in (("truth", np.isfinite(truth)), ("ensemble", np.isfinite(ensemble))):
        n_bad = int((~finite & where).sum())
        if n_bad:
            raise NonFiniteError(
                f"the {name} holds NaN or Inf",
                got=f"{n_bad} values",
                expected="finite values",
                mend="Leave them out by where=.",
            )
    return ensemble, truth, where
