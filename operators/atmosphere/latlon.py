"""Latitudes and longitudes of a grid, and the grid points around a place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from invdiff.errors import ShapeError
from invdiff.grid import LATITUDES, LONGITUDES, Grid

__all__ = [
    "SAME_PLACE",
    "Neighbours",
    "around",
    "between",
    "coordinate",
    "horizontal",
]

SAME_PLACE = 1e-6
"""Degrees within which two places are one: a tenth of a metre."""


class Neighbours(NamedTuple):
    """The grid points on both sides of each station along one dim."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    """Of the distance from low to high."""
    is_inside: np.ndarray
    is_periodic: bool = False


def between(degrees: np.ndarray, at: np.ndarray) -> Neighbours:
    """Neighbours along a coordinate that runs either way."""
    order = np.argsort(degrees)
    ascending = degrees[order]
    last = len(order) - 1
    low = np.clip(np.searchsorted(ascending, at, side="right") - 1, 0, max(last - 1, 0))
    high = np.minimum(low + 1, last)
    step = np.where(high > low, ascending[high] - ascending[low], 1.0)
    share = (at - ascending[low]) / step
    inside = (at >= ascending[0] - SAME_PLACE) & (at <= ascending[last] + SAME_PLACE)
    return Neighbours(order[low], order[high], share.clip(0, 1), inside)


def around(longitude: np.ndarray, at: np.ndarray) -> Neighbours:
    """Neighbours along longitudes; a gap no wider than the others closes the circle."""
    offsets, at = np.mod(longitude - longitude[0], 360), np.mod(at - longitude[0], 360)
    order = np.argsort(offsets)
    ascending = offsets[order]
    gap = 360 - ascending[-1]
    if len(order) > 1 and gap < 1.5 * np.diff(ascending).max():
        found = between(np.append(ascending, 360.0), at)
        return found._replace(
            low=order[found.low], high=np.append(order, order[0])[found.high], is_periodic=True
        )
    at = np.where(at > 360 - SAME_PLACE, at - 360, at)
    found = between(ascending, at)
    return found._replace(low=order[found.low], high=order[found.high])


def horizontal(grid: Grid, owner: str) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of a grid whose last dims they are, in degrees."""
    dims = grid.dims[-2:]
    if len(dims) < 2 or dims[0] not in LATITUDES or dims[1] not in LONGITUDES:
        raise ShapeError(
            f"{owner} needs latitudes and longitudes",
            got=f"dims {grid.dims}",
            expected="('lat', 'lon') or ('latitude', 'longitude') last",
            hint="Rename or transpose the dims.",
        )
    lat, lon = (coordinate(grid, dim, owner) for dim in dims)
    return lat, lon


def coordinate(grid: Grid, dim: str, owner: str) -> np.ndarray:
    """The coordinate of a dim, refused if it is missing or has a value twice."""
    if dim not in grid.coords:
        raise ShapeError(
            f"{owner} needs the coordinate {dim!r}",
            got=f"coordinates {sorted(grid.coords)}",
            expected="degrees along it",
            hint=f"Build the grid with coords={{{dim!r}: ...}}.",
        )
    degrees = np.asarray(grid.coords[dim], np.float64)
    circle = np.mod(degrees, 360) if dim in LONGITUDES else degrees
    if not np.isfinite(degrees).all() or len(np.unique(circle)) < len(circle):
        raise ShapeError(
            f"the coordinate {dim!r} is not finite or has a value twice",
            got=np.array2string(degrees, threshold=6),
            expected="different degrees, without the meridian at both ends",
        )
    return degrees
