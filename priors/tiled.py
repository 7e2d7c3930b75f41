r"""TiledPrior: a patch prior serves any image size.

Samples of neighbouring tiles must not be blended: their average has too little variance. What is
fused here, at every step, is ``E[x_0|x_t]`` (and its variance) over one global ``x_t``::

    m = sum_i w_i m_i / sum_i w_i,   d^2 = sum_i w_i d_i^2 / sum_i w_i

with windows ``w_i`` that fall to nearly zero at a tile's edge.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.priors.spectral import SpectralPrior

__all__ = ["TiledPrior"]


class TiledPrior(SpectralPrior):
    """Windowed fusion of a patch prior over a larger grid.

    Args:
        prior: a spectral prior; its own grid is the size of a tile.
        grid: the grid to cover.
        overlap: pixels that neighbouring tiles share at least.

    Raises:
        InputError: an overlap that leaves tiles no step.
    """

    def __init__(self, prior: SpectralPrior, grid: Grid, *, overlap: int = 32) -> None:
        tile = tuple(min(p, n) for p, n in zip(prior.grid.shape, grid.shape, strict=True))
        if not 0 <= overlap < min(prior.grid.shape):
            raise InputError(
                "overlap does not fit the tiles", got=overlap, expected=f"0 to {min(tile) - 1}"
            )
        self.prior, self.grid, self.overlap = prior, grid, overlap
        self.schedule = prior.schedule
        self.card = dict(getattr(prior, "card", {}))
        starts = [_starts(n, p, overlap) for n, p in zip(grid.shape, tile, strict=True)]
        self._windows = [
            tuple(slice(i, i + p) for i, p in zip(corner, tile, strict=True))
            for corner in itertools.product(*starts)
        ]
        self._tiles = [prior.on(grid, window) for window in self._windows]
        self._weight = _window(tile)
        total = torch.zeros(grid.shape)
        for window in self._windows:
            total[window] += self._weight
        self._total = total

    def __repr__(self) -> str:
        """Patch prior and grid."""
        return f"TiledPrior({self.prior!r}, {self.grid}, overlap={self.overlap})"

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> TiledPrior:
        """The same patch prior over another grid."""
        if window is not None:
            raise InputError("a tiled prior has no windows", hint="Tile the patch prior itself.")
        return TiledPrior(self.prior, grid, overlap=self.overlap)

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """One pass a tile, fused."""
        weight, total = self._weight.to(x_t.device), self._total.to(x_t.device)
        mean = torch.zeros_like(x_t)
        variance: Tensor | None = torch.zeros_like(x_t.real)
        for window, tile in zip(self._windows, self._tiles, strict=True):
            place = (slice(None), *window)
            tile_mean, tile_std = tile.mean_and_std(x_t[place], t)
            mean[place] += weight * tile_mean
            if tile_std is None or variance is None:
                variance = None
            else:
                variance[place] += weight * tile_std.square()
        return mean / total, None if variance is None else (variance / total).sqrt()

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """That of the patch prior, on the larger grid."""
        return self.prior.power(t, shape)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length`` evenly with at least ``overlap`` shared."""
    n = 1 if length <= tile else -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / max(n - 1, 1)) for i in range(n)]


def _window(tile: tuple[int, ...]) -> Tensor:
    """Product of Hann windows that stay above zero."""
    weight = torch.ones(tile)
    for axis, n in enumerate(tile):
        shape = [1] * len(tile)
        shape[axis] = n
        weight = weight * (torch.hann_window(n + 2, periodic=False)[1:-1] + 1e-3).reshape(shape)
    return weight
