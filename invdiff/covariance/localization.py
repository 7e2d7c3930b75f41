"""Localization: correlations that vanish with distance, for covariances of few members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import InputError
from invdiff.grid import LATITUDES, LONGITUDES, Grid

__all__ = ["GaspariCohn", "distances"]

EARTH_RADIUS = 6371.0088  # km, mean radius of the WGS 84 ellipsoid (IUGG)


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
    """Distances ``(n, n)`` between the points of a grid, in double precision, not to be changed.

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
    if not points:
        points = {d: np.arange(n, dtype=float) for d, n in zip(grid.dims, grid.shape, strict=True)}
    axes = tuple(
        (dim, tuple(points[dim].tolist())) if dim in points else ("", (0.0,) * n)
        for dim, n in zip(grid.dims, grid.shape, strict=True)
    )
    return _distances(axes, tuple(periods.items()))


@lru_cache(maxsize=1)  # the cycles of an assimilation ask for those of one grid again and again
def _distances(
    axes: tuple[tuple[str, tuple[float, ...]], ...], periods: tuple[tuple[str, float], ...]
) -> Tensor:
    """Distances ``(n, n)`` between all points of axes; one without a name does not count."""
    mesh = np.meshgrid(*(values for _, values in axes), indexing="ij")
    place = {
        dim: torch.from_numpy(x.ravel()) for (dim, _), x in zip(axes, mesh, strict=True) if dim
    }
    lat = next((d for d in LATITUDES if d in place), None)
    lon = next((d for d in LONGITUDES if d in place), None)
    if lat and lon:
        return _great_circle(torch.deg2rad(place[lat]), torch.deg2rad(place[lon]))
    n, period_of = len(next(iter(place.values()))), dict(periods)
    squares = torch.zeros(n, n, dtype=torch.float64)
    for dim, x in place.items():
        gap = (x[:, None] - x).abs()
        if dim in period_of:
            gap = gap % period_of[dim]
            gap = torch.minimum(gap, period_of[dim] - gap)
        squares += gap**2
    return squares.sqrt()


def _great_circle(lat: Tensor, lon: Tensor) -> Tensor:
    """Distances in km of points in radians, by the haversine formula."""
    half = ((lat[:, None] - lat) / 2).sin() ** 2
    half = half + lat.cos()[:, None] * lat.cos() * ((lon[:, None] - lon) / 2).sin() ** 2
    return 2 * EARTH_RADIUS * half.clamp(0, 1).sqrt().asin()
