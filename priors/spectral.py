r"""Priors with a spectral ``Cov[x_0 | x_t]``: a power spectrum times a map of deviations.

A network's error at one noise level is close to a stationary field once it is divided by the
network's own estimate of its size. Its spectrum depends on the noise level and on ``|k|`` alone, so
that a table fitted once serves any image size.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.covariance import Covariance, SpectralCovariance
from invdiff.errors import ShapeError
from invdiff.grid import Grid
from invdiff.protocols import BasePrior

__all__ = ["ErrorSpectra", "SpectralPrior"]


@dataclass(frozen=True, eq=False)
class ErrorSpectra:
    """Power spectra of the scaled denoising error, by noise level and wavenumber.

    Args:
        ratios: noise-to-signal ratios, increasing, ``(n_levels,)``.
        wavenumbers: cycles a pixel, increasing from 0, ``(n_k,)``.
        power: ``(n_levels, n_k)``; white noise of unit variance has power one.
    """

    ratios: np.ndarray
    wavenumbers: np.ndarray
    power: np.ndarray

    def __post_init__(self) -> None:
        if self.power.shape != (len(self.ratios), len(self.wavenumbers)):
            raise ShapeError(
                "spectra do not fit their axes",
                got=self.power.shape,
                expected=(len(self.ratios), len(self.wavenumbers)),
            )

    def at(self, ratio: float, shape: tuple[int, ...]) -> Tensor:
        """Power at a noise level on the DFT grid of a field, float64 ``(*shape)``.

        Interpolated linearly in ``log(ratio)`` and ``|k|``; beyond the table its edges hold.
        """
        axes = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
        k = np.sqrt(sum(axis**2 for axis in axes))
        place = np.interp(np.log(ratio), np.log(self.ratios), np.arange(len(self.ratios)))
        low = min(int(place), len(self.ratios) - 2)
        weight = place - low
        row = (1 - weight) * self.power[low] + weight * self.power[low + 1]
        return torch.from_numpy(np.interp(k, self.wavenumbers, row))


class SpectralPrior(BasePrior):
    """A prior with a denoiser, a map of its error's size, and a spectrum of its shape."""

    @abstractmethod
    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """``E[x_0|x_t]`` and the standard deviation about it; None for a constant one."""

    @abstractmethod
    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Power spectrum of the error divided by that map, on the DFT grid of ``shape``."""

    @abstractmethod
    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> SpectralPrior:
        """The same prior on another grid, or on a window of it."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t]``."""
        return self.mean_and_std(x_t, t)[0]

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Mean and spectral covariance from one network pass."""
        mean, std = self.mean_and_std(x_t, t)
        power = self.power(t, self.grid.shape).to(x_t.device, x_t.dtype.to_real())
        return mean, SpectralCovariance(power, std, is_complex=self.grid.is_complex)
