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

from invdiff.errors import InputError, ShapeError

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
        ShapeError: an ensemble without ``dim``, or a truth with other dims or labels.
    """
    if dim not in ensemble.dims or set(ensemble.dims) - {dim} != set(truth.dims):
        raise ShapeError(
            "ensemble and truth do not match",
            got=f"{ensemble.dims} against {truth.dims}",
            expected=f"the truth's dims and {dim!r}",
        )
    ensemble, truth = xr.align(ensemble, truth, join="exact")
    pairs = [(ensemble, truth)]
    if np.iscomplexobj(ensemble):
        pairs = [(ensemble.real, truth.real), (ensemble.imag, truth.imag)]
    shares = []
    for level in levels:
        inside = [
            abs(exact - members.mean(dim)) <= half_width(members, level, dim=dim)
            for members, exact in pairs
        ]
        kept = [hit if where is None else hit.where(where) for hit in inside]
        shares.append(float(np.mean([float(hit.mean()) for hit in kept])))
    return xr.DataArray(
        shares,
        dims="level",
        coords={"level": list(levels)},
        name="coverage",
        attrs={"long_name": "share of the truth inside the interval", "units": "1"},
    )
