"""Denoisers of deepinv as priors of ours, and our priors as deepinv's denoisers.

deepinv keeps a complex field as two real channels and gives the noise level of one of them: complex
noise of level ``s`` (``E|n|^2 = s^2``) is ``s / sqrt(2)`` there. A real field of two axes has one
channel; one of three axes has its first as channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior
from invdiff.protocols import Prior
from invdiff.schedule import VE, Schedule

__all__ = ["DeepinvPrior", "from_deepinv", "to_deepinv"]


class DeepinvPrior(SpectralPrior):
    """A deepinv ``Denoiser`` as a prior.

    Args:
        denoiser: called as ``denoiser(x, sigma)`` with ``x`` ``(batch, channels, y, x)`` and one
            ``sigma``; held, not copied.
        grid: of the fields.
        schedule: noise levels of ``x_t``, in the units of the field; default ``VE()``. Its
            ``ratio_max`` should not exceed what the denoiser was trained on.
        spectra: of the denoiser's error, in the units of the field, from `fit_error_spectra`.
            Without them the prior denoises but has no covariance.
        value_range: field values that are 0 and 1 to the denoiser.

    Raises:
        InputError: an empty value range.
        ShapeError: a grid of other than two or three axes.
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
        low, high = value_range
        if not low < high:
            raise InputError("value range is empty", got=value_range, expected="low < high")
        if grid.ndim != 2 and (grid.is_complex or grid.ndim != 3):
            raise ShapeError(
                "deepinv's denoisers work on images",
                got=f"{grid.dims} of {grid.dtype}",
                expected="two axes, or three if real (the first is that of the channels)",
            )
        self.denoiser, self.grid, self.spectra = denoiser, grid, spectra
        self.schedule: Schedule = schedule or VE()
        self.value_range = (float(low), float(high))

    def __repr__(self) -> str:
        """Denoiser and grid."""
        return f"DeepinvPrior({type(self.denoiser).__name__}, {self.grid})"

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> DeepinvPrior:
        """The same denoiser on another grid, or on a window of it."""
        if window is not None:
            shape = tuple(w.stop - w.start for w in window)
            grid = Grid(grid.dims, shape, grid.dtype, units=grid.units)
        return DeepinvPrior(
            self.denoiser,
            grid,
            schedule=self.schedule,
            spectra=self.spectra,
            value_range=self.value_range,
        )

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
        """One call of the denoiser; it says nothing of its error's size.

        Raises:
            ShapeError: a denoiser that changes the shape of its input.
        """
        alpha, ratio = self.levels(t)
        low, high = self.value_range
        channels = self.grid.to_channels(x_t / alpha)
        sigma = ratio * (0.5**0.5 if self.grid.is_complex else 1.0) / (high - low)
        denoised = self.denoiser((channels - low) / (high - low), sigma)
        if denoised.shape != channels.shape:
            raise ShapeError(
                "the denoiser changes the shape",
                got=tuple(denoised.shape),
                expected=tuple(channels.shape),
            )
        return self.grid.from_channels(low + (high - low) * denoised), None

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """From the table.

        Raises:
            UnsupportedError: no spectra were given.
        """
        if self.spectra is None:
            raise UnsupportedError(
                "a denoiser alone does not tell Cov[x_0 | x_t]",
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
    """A deepinv ``Denoiser`` as one of our priors; see `DeepinvPrior`."""
    return DeepinvPrior(denoiser, grid, schedule=schedule, spectra=spectra, value_range=value_range)


def to_deepinv(prior: Prior) -> Any:
    """One of our priors as a deepinv ``Denoiser``, for deepinv's algorithms.

    Fields keep the units of the prior (deepinv's samplers assume values in [0, 1] unless told
    otherwise); ``sigma`` is the noise of one real channel in these units. Beyond the largest level
    of the prior's schedule the input is scaled down to that level: data so noisy say next to
    nothing. Below the smallest it is denoised at the smallest.

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
