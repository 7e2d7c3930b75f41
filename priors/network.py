"""NetworkPrior: a trained network, its error spectra and its units, as a prior on a grid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.positions import Centred, Positions
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior
from invdiff.schedule import VE, Schedule

__all__ = ["NetworkPrior"]


_CENTRED = Centred()


class NetworkPrior(SpectralPrior):
    """A denoising network as a prior: ``field = offset + scale * network unit``.

    The network runs at any image size. A complex field is two channels, each with half the noise.

    Args:
        network: trained.
        spectra: of its error, from `fit_error_spectra`.
        grid: 2-D grid of the fields.
        schedule: noise levels of ``x_t``, in the units of the field.
        scale: field units of one network unit.
        offset: field where the network's is zero.
        coordinates: which position channels the network was trained with.
        positions: ``(n_channels, *grid.shape)``; default ``coordinates(grid.shape)``.
        card: what it was trained on; ``spacing``, if there is one, is that of the cells by dim.

    Raises:
        ShapeError: a grid that is not 2-D, or positions of another shape.
    """

    def __init__(
        self,
        network: EDMNetwork,
        spectra: ErrorSpectra,
        grid: Grid,
        *,
        schedule: Schedule | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        coordinates: Positions = _CENTRED,
        positions: Tensor | None = None,
        card: Mapping[str, object] | None = None,
    ) -> None:
        if grid.ndim != 2:
            raise ShapeError(
                "the network works on images",
                got=f"{grid.ndim}-D grid of shape {grid.shape}",
                expected="a 2-D grid",
                hint="Give it a volume slice by slice.",
            )
        positions = coordinates(grid.shape) if positions is None else positions
        if positions.shape != (coordinates.n_channels, *grid.shape):
            raise ShapeError(
                "positions do not fit the grid",
                got=tuple(positions.shape),
                expected=(coordinates.n_channels, *grid.shape),
                hint="Leave them out, or take those of a window by on(grid, window).",
            )
        device = next(network.parameters()).device
        self.network = network
        self.spectra, self.grid = spectra, grid
        self.scale, self.offset, self.coordinates = scale, offset, coordinates
        self.schedule = schedule or VE()
        self.positions = positions.to(device)
        self.card = dict(card or {})

    def __repr__(self) -> str:
        """Name and grid."""
        return f"NetworkPrior({self.card.get('name', 'unnamed')!r}, {self.grid})"

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> NetworkPrior:
        """The same network on another grid, or on a window of it.

        Raises:
            InputError: a grid with other cells than those of the card's ``spacing``.
        """
        _check_spacing(self.card.get("spacing"), grid)
        positions = self.coordinates(grid.shape)
        if window is not None:
            positions = positions[(slice(None), *window)]
            shape = tuple(positions.shape[1:])
            grid = Grid(grid.dims, shape, grid.dtype, units=grid.units)
        return NetworkPrior(
            self.network,
            self.spectra,
            grid,
            schedule=self.schedule,
            scale=self.scale,
            offset=self.offset,
            coordinates=self.coordinates,
            positions=positions,
            card=self.card,
        )

    def to(self, device: str | torch.device) -> NetworkPrior:
        """The same prior with its network on ``device`` (the network moves, it is not copied)."""
        return NetworkPrior(
            self.network.to(device),
            self.spectra,
            self.grid,
            schedule=self.schedule,
            scale=self.scale,
            offset=self.offset,
            coordinates=self.coordinates,
            positions=self.positions,
            card=self.card,
        )

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """One network pass."""
        alpha, ratio = self.levels(t)
        grid = self.grid
        unit = x_t / (alpha * self.scale) - self.offset / self.scale
        channels = grid.to_channels(unit).float()
        share = 0.5**0.5 if grid.is_complex else 1.0  # of the noise level, in each real channel
        sigma = torch.full((len(x_t),), ratio / self.scale * share, device=x_t.device)
        mean, std = self.network(
            channels.contiguous(memory_format=torch.channels_last),
            sigma,
            self.positions.expand(len(x_t), -1, -1, -1),
        )
        scaled_std = std[:, 0].to(grid.real_dtype) * (self.scale / share)
        return grid.from_channels(mean) * self.scale + self.offset, scaled_std

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """From the table."""
        return self.spectra.at(self.levels(t)[1] / self.scale, shape)


def _check_spacing(spacing: object, grid: Grid) -> None:
    """A network knows its cells, not metres."""
    if not isinstance(spacing, Mapping):
        return
    for dim, step in spacing.items():
        values = np.asarray(grid.coords.get(dim, ()), np.float64)
        if len(values) > 1 and not np.allclose(np.diff(values), step, rtol=0.01):
            raise InputError(
                f"the prior is of other cells along {dim!r}",
                got=f"cells of {np.diff(values).min():g} to {np.diff(values).max():g}",
                expected=f"cells of {step:g}",
                hint="Interpolate the start onto such a grid, or train a prior for yours.",
            )
