"""NetworkPrior: a trained network, its error spectra and its units, as a prior on a grid."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid
from invdiff.priors.checks import check_grid, window_grid
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.fit import fit_error_spectra, validate
from invdiff.priors.positions import Centred, Positions
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior
from invdiff.schedule import Schedule
from invdiff.spread import Spread

__all__ = ["NetworkPrior", "cell_sizes"]

_CENTRED = Centred()
_HIDES = 80.0  # ratio_max over the deviation of a point, as in Karras et al. 2022
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class NetworkPrior(SpectralPrior):
    r"""A trained denoising network as a prior of 2-D fields, real or complex, of any size.

    With ``z = (x_t / alpha - offset) / scale`` and ``s`` the noise level of ``z``, the network
    gives the mean and the size of its own error in one pass (`EDMNetwork`), and the table
    `ErrorSpectra` gives the spectrum ``S`` of what remains::

        E[x_0 | x_t]   = offset + scale * D(z; s)
        Cov[x_0 | x_t] = scale^2 * diag(d) F^H S(s, |k|) F diag(d),   d = std of D(z; s)

    A complex field is two real channels, each with half of the variance of the noise. The network
    computes in single precision whatever the dtype of the grid.

    Reference: the preconditioning is that of Karras et al. 2022 (arXiv 2206.00364), table 1.

    Assumptions: the error, divided by the network's estimate of its size, is close to a stationary
    and isotropic field with the spectrum of the validation fields; the field resembles those that
    the network was trained on, in the same units and on cells of the same size.

    Cost: `moments`, `denoise` and `draw` take one network pass each; products with the covariance
    take two FFTs.

    Args:
        network: a trained `EDMNetwork` of one channel (real fields) or two (complex fields).
        spectra: power spectra of its error in network units, from `fit_error_spectra`; or use
            `NetworkPrior.fitted`, which fits them.
        grid: 2-D grid of the fields, ``(rows, columns)``. A `Grid` of units ``"1"`` states none.
        schedule: noise levels of ``x_t`` in the units of the field; default: from ``1/500`` to 80
            times its standard deviation, ``scale * network.sigma_data`` (of a complex field,
            ``2^(1/2)`` times that).
        scale: field units of one network unit, > 0.
        offset: value of the field, in its units, where the network's is zero.
        coordinates: position channels that the network was trained with.
        positions: channels ``(coordinates.n_channels, *grid.shape)``; default
            ``coordinates(grid.shape)``. `on` sets them for a window of a larger grid.
        card: JSON-like description of the prior: name, data, licence, recipe, seed, metrics. An
            entry ``spacing`` maps each dim to the size of the training cells; grids with
            coordinates are held to it.

    Raises:
        ShapeError: a grid that is not 2-D, positions of another shape, or a network of another
            number of channels or positions.
        DTypeError: a real grid for a network of complex fields or the reverse, or a dtype that is
            not single or double precision.
        InputError: a network that is not an `EDMNetwork`, a scale that is not positive, an offset
            that is not finite, or cells of another size than the card's ``spacing``.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import load_prior
        >>> grid = Grid(("z", "x"), (48, 64), torch.float32, units="m s-1")
        >>> prior = load_prior("velocity-2d", grid=grid)
        >>> x_t = torch.full((1, 48, 64), 2500.0)  # noise of 200 m/s at this time
        >>> mean, covariance = prior.moments(x_t, torch.tensor(200.0, dtype=torch.float64))
        >>> mean.shape, covariance(x_t).shape
        (torch.Size([1, 48, 64]), torch.Size([1, 48, 64]))
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
        self.card = dict(card or {})
        _check_network(network, grid, coordinates)
        positions = coordinates(grid.shape) if positions is None else positions
        if positions.shape != (coordinates.n_channels, *grid.shape):
            raise ShapeError(
                "positions do not fit the grid",
                got=tuple(positions.shape),
                expected=(coordinates.n_channels, *grid.shape),
                hint="Leave them out, or take those of a window by on(grid, window).",
            )
        self.network = network
        self.spectra, self.grid = spectra, grid
        self.scale = as_number("scale", scale)
        self.offset = as_number("offset", offset, above=-math.inf)
        self.coordinates = coordinates
        self.spread = _spread(network, grid, self.scale, self.offset)
        self.schedule = self.spread.schedule(schedule, hides=_HIDES)
        self.positions = positions.to(next(network.parameters()).device)
        self._made_for = grid  # `on` keeps it: what later grids are compared to
        self._check(grid)

    @classmethod
    def fitted(
        cls,
        network: EDMNetwork,
        fields: Iterable[Tensor],
        grid: Grid,
        *,
        validation: Iterable[Tensor],
        schedule: Schedule | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        coordinates: Positions = _CENTRED,
        card: Mapping[str, object] | None = None,
        n_levels: int = 20,
    ) -> NetworkPrior:
        """A prior of a trained network, with the spectra of its error fitted and evaluated.

        The spectra are fitted at ``n_levels`` noise levels, spaced evenly in their logarithm over
        the schedule, on ``fields``; every second level is then evaluated on ``validation`` (see
        `validate`) and written to the card as ``metrics``. The network is copied, and its weights
        are rounded to the half precision they are stored in, so that the spectra are those of the
        prior that `save_prior` stores. Cost: ``n_levels`` network passes per field, and half as
        many per validation field.

        Args:
            network: as `train` returns it.
            fields: batches ``(batch, *grid.shape)`` of fields, in their units, that the network was
                not trained on, such as ``images.split(4)``; on the device of the network.
            grid: 2-D grid of these fields.
            validation: batches of other fields of the same kind, for the figures in the card.
            schedule: noise levels in the units of the field; default: that of the class.
            scale: field units of one network unit.
            offset: value of the field where the network's is zero.
            coordinates: position channels that the network was trained with.
            card: what else to say of the prior; `save_prior` asks for name, data, licence, recipe
                and seed.
            n_levels: noise levels of the table, >= 2.

        Raises:
            InputError: no fields, or numbers that are not possible.
            ShapeError: fields that do not lie on the grid.
            DTypeError: real fields where complex ones are expected, or the reverse.
        """
        network = copy.deepcopy(network).requires_grad_(False)
        for parameter in network.parameters():
            parameter.data = parameter.half().float()
        scale = as_number("scale", scale)
        schedule = _spread(network, grid, scale, offset).schedule(schedule, hides=_HIDES)
        levels = as_integer("n_levels", n_levels, least=2)
        ratios = np.geomspace(schedule.ratio_min, schedule.ratio_max, levels)
        white = ErrorSpectra(ratios[[0, -1]], np.array([0.0, 1.0]), np.ones((2, 2)))
        prior = cls(
            network,
            white,
            grid,
            schedule=schedule,
            scale=scale,
            offset=offset,
            coordinates=coordinates,
            card=card,
        )
        found = fit_error_spectra(prior, fields, ratios=ratios)
        # Fitted by noise levels in field units; the table is asked in network units.
        prior.spectra = ErrorSpectra(ratios / prior.scale, found.wavenumbers, found.power)
        prior.card["metrics"] = validate(prior, validation, ratios=ratios[::2])
        return prior

    @property
    def settings(self) -> dict[str, object]:
        """All that changes the moments, for the identity of a stored run; the card does not."""
        names = ("network", "spectra", "grid", "schedule", "scale", "offset", "positions")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        """Name and grid."""
        return f"NetworkPrior({self.card.get('name', 'unnamed')!r}, {self.grid})"

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> NetworkPrior:
        """The same network on another grid, or on a window of it; the weights are shared.

        A grid without coordinates, or of units ``"1"``, says nothing of its cells or units: it is
        taken to have those of the prior.

        Args:
            grid: 2-D; of the same kind, real or complex, as the prior's grid. Its dims may have
                other names, but not the prior's names in another order.
            window: one slice per axis of ``grid``; positions are those within the whole grid.

        Raises:
            ShapeError: a grid that is not 2-D or whose dims stand in another order, or a window
                that does not lie within it.
            DTypeError: a real grid for a prior of complex fields, or the reverse.
            InputError: other units, or cells of another size than the card's ``spacing``.
        """
        self._check(grid)
        positions = self.coordinates(grid.shape)
        if window is not None:
            grid, positions = window_grid(grid, window), positions[(slice(None), *window)]
        return self._with(grid, positions)

    def to(self, device: str | torch.device) -> NetworkPrior:
        """The same prior with its network on ``device`` (the network moves, it is not copied)."""
        self.network.to(device)
        return self._with(self.grid, self.positions)

    def _with(self, grid: Grid, positions: Tensor) -> NetworkPrior:
        other = copy.copy(self)
        other.grid, other.card = grid, dict(self.card)
        other.positions = positions.to(next(self.network.parameters()).device)
        return other

    def _check(self, grid: Grid) -> None:
        """Refuse a grid of another kind of field, or of cells of another size."""
        name = repr(self.card["name"]) if "name" in self.card else "this prior"
        check_grid(grid, self._made_for, name)
        if grid.dtype not in _DTYPES:
            raise DTypeError(
                "the precision of the grid is not supported",
                got=grid.dtype,
                expected=f"one of {', '.join(map(str, _DTYPES))}",
                hint="Use grid.with_dtype with single or double precision.",
            )
        for dim, size in zip(grid.dims, cell_sizes(self.card, self._made_for), strict=True):
            if size is not None and dim in grid.coords:
                _check_spacing(np.asarray(grid.coords[dim]), dim, size)

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(batch, *grid.shape)`` and standard deviation, by one network pass.

        Args:
            x_t: noisy fields ``(batch, *grid.shape)``.
            t: their time, a scalar.
        """
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
        """Power spectrum of the scaled error, interpolated in the table `ErrorSpectra`."""
        return self.spectra.at(self.levels(t)[1] / self.scale, shape)


def _spread(network: EDMNetwork, grid: Grid, scale: float, offset: float) -> Spread:
    """Deviation of a point: a network does not state that of its longest waves."""
    std = scale * network.sigma_data * (2**0.5 if grid.is_complex else 1.0)
    return Spread(std, std, centre=offset)


def cell_sizes(card: Mapping[str, object], grid: Grid) -> list[float | None]:
    """The size of the training cells along each axis of ``grid``, from a card's ``spacing``.

    Raises:
        InputError: a spacing that does not map dims of the grid to positive numbers.
    """
    spacing = card.get("spacing", {})
    if not isinstance(spacing, Mapping) or not set(spacing) <= set(grid.dims):
        raise InputError(
            "the card's spacing does not fit the dims of the grid",
            got=spacing,
            expected=f"a size for each of {grid.dims}",
            hint="Name the dims as the grid does.",
        )
    return [
        as_number(f"the spacing of {dim!r}", spacing[dim]) if dim in spacing else None
        for dim in grid.dims
    ]


def _check_network(network: EDMNetwork, grid: Grid, coordinates: Positions) -> None:
    """Refuse a network of another kind, and a grid whose fields the network cannot take."""
    if not isinstance(network, EDMNetwork):
        raise InputError(
            "the network does not state its own error",
            got=type(network).__name__,
            expected="an EDMNetwork",
            hint="Wrap a denoiser(x, sigma) by invdiff.priors.from_deepinv instead.",
        )
    if grid.ndim != 2:
        raise ShapeError(
            "the network works on 2-D images",
            got=f"a {grid.ndim}-D grid of shape {grid.shape}",
            expected="a 2-D grid",
            hint="Give it a volume slice by slice.",
        )
    config = network.network.config
    channels = 2 if grid.is_complex else 1
    if config.channels != channels:
        raise DTypeError(
            f"a field of {grid.dtype} has {channels} channel(s), the network has {config.channels}",
            got=grid.dtype,
            expected="a real grid for one channel, a complex grid for two",
            hint="Use grid.with_dtype, or train a network of as many channels.",
        )
    if config.positions != coordinates.n_channels:
        raise ShapeError(
            "the position channels are not those the network was trained with",
            got=f"{coordinates!r} with {coordinates.n_channels} channel(s)",
            expected=f"{config.positions} channel(s)",
            hint="Give the coordinates of the training run, such as Centred() or Depth().",
        )


def _check_spacing(values: np.ndarray, dim: str, size: float) -> None:
    """A network knows its cells, not metres."""
    if values.dtype.kind not in "iuf":
        raise InputError(
            f"coordinate {dim!r} is not numeric",
            got=values.dtype,
            expected=f"positions of cells of {size:g}",
            hint="Give distances as numbers.",
        )
    steps = np.diff(values.astype(np.float64))
    if np.allclose(steps, size, rtol=0.01, atol=0):
        return
    hint = "Interpolate the start onto such a grid, or train a prior for yours."
    if np.allclose(1000 * steps, size, rtol=0.01, atol=0):
        hint = "The coordinates look like km where m are expected: multiply them by 1000."
    elif np.allclose(-steps, size, rtol=0.01, atol=0):
        hint = "Flip the field along this dim, so that its coordinate increases."
    raise InputError(
        f"the prior is of other cells along {dim!r}",
        got=f"cells of {steps.min():g} to {steps.max():g}",
        expected=f"cells of {size:g}",
        hint=hint,
    )
