"""Denoisers of deepinv as priors of ours, and our priors as deepinv's denoisers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.priors.checks import check_grid, window_grid
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior
from invdiff.protocols import Prior
from invdiff.schedule import Schedule
from invdiff.spread import Spread

__all__ = ["DeepinvPrior", "from_deepinv", "to_deepinv"]

_HIDES = 160.0  # ratio_max over half the value range


class DeepinvPrior(SpectralPrior):
    r"""A deepinv ``Denoiser`` as a prior.

    With ``(low, high)`` the value range and ``r`` the noise-to-signal ratio of ``x_t``::

        E[x_0 | x_t] = low + (high - low) D((x_t / alpha - low) / (high - low); sigma)
        sigma = r / (high - low)              (real),   r / (sqrt(2) (high - low))   (complex)

    deepinv keeps a complex field as two real channels and gives the noise level of one of them:
    complex noise of level ``s`` (``E|n|^2 = s^2``) is ``s / sqrt(2)`` there. A real field of two
    axes has one channel; one of three axes has its first as channels. Reference: Tachella et al.
    2025 (arXiv 2505.20160).

    Assumptions: the denoiser approximates the posterior mean at every level of the schedule. Many
    restoration networks do so in a narrow range only; check it with `validate`.

    Cost: one call of the denoiser per call of `moments`, `denoise` or `draw`.

    Args:
        denoiser: called as ``denoiser(x, sigma)`` with ``x`` ``(batch, channels, y, x)`` and one
            ``sigma``; held, not copied.
        grid: of the fields.
        schedule: noise levels of ``x_t``, in the units of the field; default: from 0.001 to 80
            times ``high - low``. Its ``ratio_max`` should not exceed what the denoiser was trained
            on.
        spectra: of the denoiser's error, in the units of the field, from `fit_error_spectra`.
            Without them the prior denoises but has no covariance.
        value_range: field values that are 0 and 1 to the denoiser.

    Raises:
        InputError: an empty value range, or a denoiser that cannot be called.
        ShapeError: a grid of other than two or three axes.

    Example:
        >>> import torch
        >>> from deepinv.models import MedianFilter
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import from_deepinv
        >>> prior = from_deepinv(MedianFilter(), Grid(("y", "x"), (8, 8)))
        >>> prior.denoise(torch.ones(1, 8, 8), torch.tensor(0.1)).shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        denoiser: Any,
        grid: Grid,
        *,
        schedule: Schedule | None = None,
        spectra: ErrorSpectra | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        low, high = (
            as_number("a bound of the value range", value, above=-math.inf) for value in value_range
        )
        if not low < high:
            raise InputError(
                "value range is empty",
                got=value_range,
                expected="low < high",
                hint="Give the field values that are 0 and 1 to the denoiser.",
            )
        if not callable(denoiser):
            raise InputError(
                "the denoiser cannot be called",
                got=type(denoiser).__name__,
                expected="a deepinv Denoiser, called as denoiser(x, sigma)",
                hint="Give the model itself, such as deepinv.models.DRUNet(...).",
            )
        if grid.ndim != 2 and (grid.is_complex or grid.ndim != 3):
            raise ShapeError(
                "deepinv's denoisers work on images",
                got=f"{grid.dims} of {grid.dtype}",
                expected="two axes, or three if real (the first is that of the channels)",
                hint="Work on a volume slice by slice.",
            )
        self.denoiser, self.grid, self.spectra = denoiser, grid, spectra
        self.value_range = (low, high)
        # No field within its range deviates more from the middle.
        self.spread = Spread((high - low) / 2, (high - low) / 2, (low + high) / 2)
        self.schedule: Schedule = self.spread.schedule(schedule, hides=_HIDES)

    def __repr__(self) -> str:
        """Denoiser and grid."""
        return f"DeepinvPrior({type(self.denoiser).__name__}, {self.grid})"

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> DeepinvPrior:
        """The same denoiser on another grid, or on a window of it.

        Raises:
            ShapeError: another number of dims or channels, the same dims in another order, or a
                window that does not lie within the grid.
            DTypeError: a real grid for a prior of complex fields, or the reverse.
            InputError: other units.
        """
        check_grid(grid, self.grid, repr(self))
        if grid.ndim == 3 and grid.shape[0] != self.grid.shape[0]:
            raise ShapeError(
                "the grid has another number of channels than the prior",
                got=grid.shape[0],
                expected=self.grid.shape[0],
                hint="The first axis of a real 3-D grid is that of the channels.",
            )
        if window is not None:
            grid = window_grid(grid, window)
        return DeepinvPrior(
            self.denoiser,
            grid,
            schedule=self.schedule,
            spectra=self.spectra,
            value_range=self.value_range,
        )

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
        """Mean ``(batch, *grid.shape)`` by one call of the denoiser; it does not state its error.

        Raises:
            ShapeError: a denoiser of another number of channels, or one that changes the shape of
                its input.
        """
        alpha, ratio = self.levels(t)
        low, high = self.value_range
        channels = self.grid.to_channels(x_t / alpha)
        sigma = ratio * (0.5**0.5 if self.grid.is_complex else 1.0) / (high - low)
        try:
            denoised = self.denoiser((channels - low) / (high - low), sigma)
        except RuntimeError as error:
            if "channels" not in str(error):  # torch has no error of its own for them
                raise
            raise ShapeError(
                "the denoiser has another number of channels than the field",
                got=error,
                expected=f"a denoiser of {channels.shape[1]} channel(s)",
                hint="A complex field is two real channels; a real 2-D field is one.",
            ) from error
        if denoised.shape != channels.shape:
            raise ShapeError(
                "the denoiser changes the shape",
                got=tuple(denoised.shape),
                expected=tuple(channels.shape),
                hint="Use a denoiser whose output has the shape of its input.",
            )
        return self.grid.from_channels(low + (high - low) * denoised), None

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Power spectrum of the error, interpolated in the table `ErrorSpectra`.

        Raises:
            UnsupportedError: no spectra were given.
        """
        if self.spectra is None:
            raise UnsupportedError(
                "a denoiser alone does not give Cov[x_0 | x_t]",
                got=f"{self!r} without spectra",
                expected="spectra of its error",
                hint="Fit them with invdiff.priors.fit.fit_error_spectra(prior, fields, ratios=...)"
                " and give spectra=..., or use a conditioning that only denoises, such as DPS().",
            )
        return self.spectra.at(self.levels(t)[1], shape)


def from_deepinv(
    denoiser: Any,
    grid: Grid,
    *,
    schedule: Schedule | None = None,
    spectra: ErrorSpectra | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> DeepinvPrior:
    """A deepinv ``Denoiser`` as one of our priors: `DeepinvPrior` of the same arguments."""
    return DeepinvPrior(denoiser, grid, schedule=schedule, spectra=spectra, value_range=value_range)


def to_deepinv(prior: Prior) -> Any:
    """One of our priors as a deepinv ``Denoiser``, for deepinv's algorithms.

    Fields keep the units of the prior (deepinv's samplers assume values in [0, 1] unless told
    otherwise); ``sigma`` is the noise of one real channel in these units. Beyond the largest level
    of the prior's schedule the input is scaled down to that level: such data hold next to no
    information. Below the smallest it is denoised at the smallest. Cost: one pass of the prior per
    call, or one per member where levels differ.

    Args:
        prior: any prior; differentiable if it is.

    Returns:
        ``deepinv.models.Denoiser``, ``forward(x, sigma)`` with ``x`` ``(batch, channels, ...)``.
    """
    from deepinv.models import Denoiser

    class PriorDenoiser(Denoiser):  # type: ignore[misc]  # deepinv is untyped
        def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            given = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().reshape(-1)
            levels = given.expand(len(x)).tolist()
            if len(set(levels)) == 1:
                return _denoised(prior, x, levels[0])
            return torch.cat([_denoised(prior, x[i, None], s) for i, s in enumerate(levels)])

    return PriorDenoiser()


def _denoised(prior: Prior, x: Tensor, sigma: float) -> Tensor:
    schedule = prior.schedule
    ratio = sigma * (2**0.5 if prior.grid.is_complex else 1.0)
    level = min(max(ratio, schedule.ratio_min), schedule.ratio_max)
    shrink = level / ratio if ratio > level else 1.0
    t = schedule.time(torch.tensor(level, dtype=torch.float64))
    z = prior.grid.from_channels(x) * shrink
    return prior.grid.to_channels(prior.denoise(float(schedule.alpha(t)) * z, t)).to(x.dtype)
