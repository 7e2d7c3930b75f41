"""TiledPrior: a patch prior serves any image size."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError, UnsupportedError
from invdiff.grid import Grid
from invdiff.priors.checks import check_grid
from invdiff.priors.spectral import SpectralPrior

__all__ = ["TiledPrior"]


class TiledPrior(SpectralPrior):
    r"""Windowed fusion of a patch prior over a larger grid.

    Samples of neighbouring tiles must not be blended: their average has too little variance. What
    is fused here, at every step, is ``E[x_0|x_t]`` and its variance over one global ``x_t``::

        m = sum_i w_i m_i / sum_i w_i,   d^2 = sum_i w_i d_i^2 / sum_i w_i

    with windows ``w_i`` that fall to nearly zero at a tile's edge: the fusion of MultiDiffusion
    (Bar-Tal et al. 2023, arXiv 2302.08113), windowed and with the variance.

    Assumptions: what lies outside a tile has little influence on its middle, so the overlap should
    exceed the correlation length of the field; the error's spectrum is that of the patch prior.

    Cost: one pass of the patch prior per tile and step. A `NetworkPrior` runs at any size without
    tiles; they save memory and keep each pass at the size of the training patches.

    Args:
        prior: a spectral prior; its own grid is the size of a tile.
        grid: the grid to cover, of the same kind of field as the prior's.
        overlap: pixels that neighbouring tiles share at least.

    Raises:
        InputError: an overlap that is not a whole number or leaves tiles without a step; units or
            cells that are not the prior's.
        ShapeError: another number of dims, or the prior's dims in another order.
        DTypeError: a real grid for a prior of complex fields, or the reverse.
        UnsupportedError: a prior that has no windows, such as one in closed form.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import TiledPrior, load_prior
        >>> tile = Grid(("z", "x"), (64, 64), torch.float32, units="m s-1")
        >>> line = Grid(("z", "x"), (70, 190), torch.float32, units="m s-1")
        >>> prior = TiledPrior(load_prior("velocity-2d", grid=tile), line, overlap=16)
        >>> prior.grid.shape
        (70, 190)
    """

    def __init__(self, prior: SpectralPrior, grid: Grid, *, overlap: int = 32) -> None:
        if not isinstance(prior, SpectralPrior):
            raise UnsupportedError(
                "only a spectral prior can be tiled",
                got=type(prior).__name__,
                expected="a NetworkPrior, a DeepinvPrior or another SpectralPrior",
                hint="Build a prior in closed form on the whole grid.",
            )
        check_grid(grid, prior.grid, "the prior to tile")
        overlap = as_integer("overlap", overlap, least=0)
        tile = tuple(min(p, n) for p, n in zip(prior.grid.shape, grid.shape, strict=True))
        if overlap >= min(prior.grid.shape):
            raise InputError(
                "the overlap does not fit the tiles",
                got=overlap,
                expected=f"0 to {min(prior.grid.shape) - 1}",
                hint="Put the prior on a larger grid, or let the tiles share fewer pixels.",
            )
        self.prior, self.grid, self.overlap = prior, grid, overlap
        self.schedule, self.spread = prior.schedule, prior.spread
        self.needs_grad = prior.needs_grad
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

    @property
    def settings(self) -> dict[str, object]:
        """All that changes the moments, for the identity of a stored run."""
        return {"prior": self.prior, "grid": self.grid, "overlap": self.overlap}

    def __repr__(self) -> str:
        """Patch prior and grid."""
        return f"TiledPrior({self.prior!r}, {self.grid}, overlap={self.overlap})"

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> TiledPrior:
        """The same patch prior over another grid, with tiles and overlap as here.

        Raises:
            InputError: a window, or a grid that is refused as by the constructor.
        """
        if window is not None:
            raise InputError(
                "a tiled prior has no windows",
                got=window,
                expected="a whole grid",
                hint="Tile the patch prior itself.",
            )
        return TiledPrior(self.prior, grid, overlap=self.overlap)

    def to(self, device: str | torch.device) -> TiledPrior:
        """The same tiles with the patch prior on ``device``, if it can be moved."""
        move = getattr(self.prior, "to", None)
        return self if move is None else TiledPrior(move(device), self.grid, overlap=self.overlap)

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation ``(batch, *grid.shape)``, by one pass per tile."""
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
        """Power spectrum of the patch prior, on the DFT grid of ``shape``."""
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
