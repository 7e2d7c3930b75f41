"""What is seen of fields on latitudes and longitudes: values at stations, means over areas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integers
from invdiff.errors import InputError, ShapeError
from invdiff.grid import LATITUDES, Grid
from invdiff.operators.atmosphere.latlon import SAME_PLACE, around, between, coordinate, horizontal
from invdiff.operators.base import Linear
from invdiff.operators.inputs import as_tensor, check_grid, describe

__all__ = ["AreaMean", "Stations"]


class Stations(Linear):
    """Values at stations, bilinear in latitude and longitude between the grid points around them.

    ::

        y_s = (1 - a) ((1 - b) x_(i, j) + b x_(i, j+1)) + a ((1 - b) x_(i+1, j) + b x_(i+1, j+1))

    All variables and levels in front of the horizontal dims are seen at every station. The grid's
    coordinates may run either way and need not be even (Gaussian latitudes are not); a grid around
    the whole globe is periodic. Station longitudes may be from -180 to 180 or from 0 to 360. A
    product costs four multiplications per value.

    Args:
        domain: grid whose last dims are ``lat`` and ``lon``, or ``latitude`` and ``longitude``,
            with coordinates in degrees.
        latitudes: of the stations, degrees north, ``(n,)``.
        longitudes: of the stations, degrees east, ``(n,)``.

    Raises:
        ShapeError: a domain without such dims or coordinates, or lists of different length.
        InputError: no stations, some outside of the grid or at one place, or values that are no
            latitudes or longitudes.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators.atmosphere import Stations
        >>> coords = {"lat": np.array([60.0, 0.0, -60.0]), "lon": np.arange(0.0, 360.0, 90.0)}
        >>> grid = Grid(("lat", "lon"), (3, 4), coords=coords)
        >>> stations = Stations(grid, [30.0, 0.0], [0.0, -45.0])
        >>> stations(torch.arange(12.0).reshape(1, 3, 4))  # between 0 and 4; between 7 and 4
        tensor([[2.0000, 5.5000]])
    """

    def __init__(
        self, domain: Grid, latitudes: Sequence[float], longitudes: Sequence[float]
    ) -> None:
        check_grid(domain, type(self))
        lat, lon = horizontal(domain, type(self).__name__)
        where = _positions(latitudes, longitudes)
        _check_stations(where)
        rows, columns = between(lat, where[:, 0]), around(lon, where[:, 1])
        outside = ~(rows.is_inside & columns.is_inside)
        if outside.any():
            first = where[np.argmax(outside)]
            raise InputError(
                f"{outside.sum()} of {len(where)} stations are outside of the grid",
                got=f"station {np.argmax(outside)} at {first[0]:g} N, {first[1]:g} E",
                expected=f"latitudes from {lat.min():g} to {lat.max():g}, longitudes from "
                f"{lon.min():g} to {lon.max():g}" + (", periodic" if columns.is_periodic else ""),
                hint="Leave them out: a value there would be an extrapolation.",
            )
        n_lon = domain.shape[-1]
        indices, weights = [], []
        for i, a in ((rows.low, 1 - rows.share), (rows.high, rows.share)):
            for j, b in ((columns.low, 1 - columns.share), (columns.high, columns.share)):
                indices.append(i * n_lon + j)
                weights.append(a * b)
        self.indices = torch.from_numpy(np.stack(indices))
        self.weights = torch.from_numpy(np.stack(weights)).to(domain.real_dtype)
        coords = {d: c for d, c in domain.coords.items() if d in domain.dims[:-2]}
        shape = (*domain.shape[:-2], len(where))
        dims = (*domain.dims[:-2], "station")
        super().__init__(domain, Grid(dims, shape, domain.dtype, coords, domain.units))

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = (x.flatten(-2)[..., self.indices] * self.weights).sum(-2)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[:-1], math.prod(self.domain.shape[-2:]))
        parts = (y[..., None, :] * self.weights).flatten(-2)
        x = x.index_add(-1, self.indices.flatten(), parts)
        return x.reshape(-1, *self.domain.shape)


class AreaMean(Linear):
    """Means over blocks of grid cells: a coarse model, a large footprint, downscaling.

    ``y_b = sum_(i in b) w_i x_i / sum_(i in b) w_i`` over the last two dims, with the cosine of the
    latitude as the weight where one of them is ``lat`` or ``latitude``, else with equal weights.
    All dims in front are kept. A product costs one multiplication per grid point.

    Args:
        domain: grid of two or more dims; latitudes need coordinates in degrees.
        factor: cells of a block along each of the last two dims, ``(rows, columns)``.

    Raises:
        ShapeError: a domain of one dim, one that the blocks do not divide, or latitudes without
            coordinates.
        InputError: factors that are not positive integers, or anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators.atmosphere import AreaMean
        >>> mean = AreaMean(Grid(("y", "x"), (2, 4)), (2, 2))
        >>> mean(torch.arange(8.0).reshape(1, 2, 4))
        tensor([[[2.5000, 4.5000]]])
    """

    def __init__(self, domain: Grid, factor: tuple[int, int]) -> None:
        check_grid(domain, type(self))
        if not isinstance(factor, Sequence) or len(factor) != 2:
            raise InputError(
                "factor is not a pair", got=describe(factor), expected="such as (4, 4)"
            )
        self.factor = tuple(as_integers("a factor", factor, least=1))
        n = domain.shape[-2:]
        if domain.ndim < 2 or any(size % f for size, f in zip(n, self.factor, strict=True)):
            raise ShapeError(
                "the blocks do not divide the domain",
                got=f"{self.factor} on {domain.shape}",
                expected="factors of the last two lengths",
                hint="Crop the fields, or choose other factors.",
            )
        weights = np.ones(n)
        for axis, dim in enumerate(domain.dims[-2:]):
            if dim in LATITUDES:
                cosine = np.cos(np.radians(coordinate(domain, dim, type(self).__name__)))
                weights = weights * np.expand_dims(cosine, 1 - axis)
        blocks = self._blocks(torch.from_numpy(weights))
        self.weights = (blocks / blocks.sum((-3, -1), keepdim=True)).to(domain.real_dtype)
        coords = dict(domain.coords)
        for dim, f in zip(domain.dims[-2:], self.factor, strict=True):
            if dim in coords:
                coords[dim] = np.asarray(coords[dim]).reshape(-1, f).mean(1)
        shape = (*domain.shape[:-2], n[0] // self.factor[0], n[1] // self.factor[1])
        super().__init__(domain, Grid(domain.dims, shape, domain.dtype, coords, domain.units))

    def _blocks(self, x: Tensor) -> Tensor:
        """Fields ``(..., row, column)`` as ``(..., block, row in it, block, column in it)``."""
        rows, columns = self.factor
        blocks: Tensor = x.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))
        return blocks

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self._blocks(x) * self.weights).sum((-3, -1))
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = (y[..., None, :, None] * self.weights).flatten(-4, -3).flatten(-2)
        return x


def _positions(latitudes: object, longitudes: object) -> np.ndarray:
    """Stations as ``(n, 2)``, degrees in double precision."""
    lat, lon = as_tensor(latitudes, "latitudes"), as_tensor(longitudes, "longitudes")
    if lat.ndim != 1 or lat.shape != lon.shape:
        raise ShapeError(
            "latitudes and longitudes are not two lists of one length",
            got=f"{tuple(lat.shape)} and {tuple(lon.shape)}",
            expected="(n,) both",
        )
    return torch.stack([lat.double(), lon.double()], 1).numpy(force=True)


def _check_stations(where: np.ndarray) -> None:
    """Refuse no stations, what is no position, and two stations at one place."""
    if not len(where):
        raise InputError("there are no stations", got="empty lists", expected="one or more")
    bad = ~np.isfinite(where).all(1) | (np.abs(where[:, 0]) > 90) | (np.abs(where[:, 1]) > 360)
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{bad.sum()} of {len(where)} stations have no valid position",
            got=f"station {at} at latitude {where[at, 0]:g}, longitude {where[at, 1]:g}",
            expected="latitudes from -90 to 90, longitudes from -180 to 360",
            hint="The order is latitudes, longitudes.",
        )
    rounded = np.round(np.stack([where[:, 0], np.mod(where[:, 1], 360)], 1) / SAME_PLACE)
    rounded[:, 1] %= round(360 / SAME_PLACE)
    _, first, counts = np.unique(rounded, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        at = int(first[np.argmax(counts > 1)])
        twins = np.flatnonzero((rounded == rounded[at]).all(1))
        raise InputError(
            f"stations {', '.join(map(str, twins))} are at one place",
            got=f"{where[at, 0]:g} N, {where[at, 1]:g} E",
            expected="different places",
            hint="Average their data, and reduce the noise level accordingly.",
        )
