"""Localization: correlations that vanish with distance, for covariances of few members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import InputError
from invdiff.grid import Grid

__all__ = ["GaspariCohn", "distances"]

EARTH_RADIUS = 6371.0088  # km, mean radius of the WGS 84 ellipsoid (IUGG)
_LATITUDES, _LONGITUDES = ("lat", "latitude"), ("lon", "longitude")


@dataclass(frozen=True)
class GaspariCohn:
    r"""Correlation that falls to zero at twice a half-width, for the localization of ensembles.

    With ``z`` the distance over the half-width ``c`` (Gaspari & Cohn 1999, equation 4.10, doi
    10.1002/qj.49712555417)::

        -z^5/4 + z^4/2 + 5 z^3/8 - 5 z^2/3 + 1                           z <= 1
        z^5/12 - z^4/2 + 5 z^3/8 + 5 z^2/3 - 5 z + 4 - 2 / (3 z)    1 < z <= 2

    It is close to a Gaussian of the standard deviation ``c sqrt(0.3)``, and a correlation function
    in up to three dimensions: its product with a covariance, element by element, is a covariance.

    Args:
        half_width: Half of the distance at which the correlation is zero: in the units of the
            coordinates, or in km on grids of latitude and longitude.
        periods: Length after which a dim repeats, by name, such as ``{"x": 40.0}``; longitudes
            need none.

    Raises:
        InputError: A half-width or a period that is not positive.

    Example:
        >>> import torch
        >>> from invdiff.covariance import GaspariCohn
        >>> GaspariCohn(2.0).correlation(torch.tensor([0.0, 2.0, 4.0]))
        tensor([1.0000, 0.2083, 0.0000])
    """

    half_width: float
    periods: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        as_number("half_width", self.half_width)
        for dim, period in self.periods.items():
            as_number(f"the period of {dim!r}", period)

    def correlation(self, distance: Tensor) -> Tensor:
        """Correlation at these distances, ``>= 0``, of their shape."""
        z = distance / self.half_width
        near = (((-z / 4 + 1 / 2) * z + 5 / 8) * z - 5 / 3) * z**2 + 1
        far = ((((z / 12 - 1 / 2) * z + 5 / 8) * z + 5 / 3) * z - 5) * z + 4
        far = far - 2 / (3 * z.clamp_min(1))
        return torch.where(z <= 1, near, torch.where(z < 2, far.clamp_min(0), 0))

    def matrix(self, grid: Grid) -> Tensor:
        """Correlations ``(n, n)`` between the points of a grid, in double precision."""
        return self.correlation(distances(grid, self.periods))


def distances(grid: Grid, periods: Mapping[str, float]) -> Tensor:
    """Distances ``(n, n)`` between the points of a grid, in double precision.

    They are along great circles, in km, where the grid has a latitude and a longitude in degrees.
    Other dims with coordinates, or without dims that have any all dims by index, make Euclidean
    distances. Points that differ in further dims alone, such as variables, have the distance zero.

    Args:
        grid: Grid whose points are compared.
        periods: Length after which a dim repeats, by name.

    Raises:
        InputError: A period of a dim that the grid does not have.
    """
    unknown = set(periods) - set(grid.dims)
    if unknown:
        raise InputError(
            "a period names a dim that the grid does not have",
            got=sorted(unknown),
            expected=f"some of {grid.dims}",
        )
    points = {
        dim: np.asarray(values, float)
        for dim, values in grid.coords.items()
        if np.issubdtype(np.asarray(values).dtype, np.number)
    }
    points = points or {
        d: np.arange(n, dtype=float) for d, n in zip(grid.dims, grid.shape, strict=True)
    }
    axes = [grid.dims.index(dim) for dim in points]
    mesh = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    place = {
        dim: torch.from_numpy(values[mesh[axis].ravel()])
        for (dim, values), axis in zip(points.items(), axes, strict=True)
    }
    lat = next((d for d in _LATITUDES if d in place), None)
    lon = next((d for d in _LONGITUDES if d in place), None)
    if lat and lon:
        return _great_circle(torch.deg2rad(place[lat]), torch.deg2rad(place[lon]))
    squares = torch.zeros(grid.size, grid.size, dtype=torch.float64)
    for dim, x in place.items():
        gap = (x[:, None] - x).abs()
        if dim in periods:
            gap = gap % periods[dim]
            gap = torch.minimum(gap, periods[dim] - gap)
        squares += gap**2
    return squares.sqrt()


def _great_circle(lat: Tensor, lon: Tensor) -> Tensor:
    """Distances in km of points in radians, by the haversine formula."""
    half = ((lat[:, None] - lat) / 2).sin() ** 2
    half = half + lat.cos()[:, None] * lat.cos() * ((lon[:, None] - lon) / 2).sin() ** 2
    return 2 * EARTH_RADIUS * half.clamp(0, 1).sqrt().asin()
