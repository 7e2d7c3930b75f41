"""Priors with a spectral ``Cov[x_0 | x_t]``: a power spectrum times a map of deviations."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.covariance import Covariance, SpectralCovariance
from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid
from invdiff.protocols import BasePrior

__all__ = ["ErrorSpectra", "SpectralPrior"]


@dataclass(frozen=True, eq=False)
class ErrorSpectra:
    r"""Power spectra ``S(r, |k|)`` of the scaled denoising error, by noise level and wavenumber.

    A network's error at one noise level is close to a stationary field once it is divided by the
    network's own estimate of its size. Its spectrum then depends on the noise level and on ``|k|``
    alone, so that a table fitted once (`fit_error_spectra`) serves any image size.

    Assumptions: the scaled error is stationary and isotropic. Cost: `at` interpolates one value per
    pixel.

    Args:
        ratios: noise-to-signal ratios, positive and increasing, ``(n_levels,)``.
        wavenumbers: cycles per pixel, increasing from 0, ``(n_k,)``.
        power: ``S >= 0``, ``(n_levels, n_k)``; white noise of unit variance has power one.

    Raises:
        ShapeError: a table that does not fit its axes.
        InputError: axes that do not increase, or values that are negative or not finite.

    Example:
        >>> import numpy as np
        >>> from invdiff.priors.spectral import ErrorSpectra
        >>> spectra = ErrorSpectra([0.1, 10.0], [0.0, 0.5], [[1.0, 2.0], [3.0, 4.0]])
        >>> spectra.at(1.0, (4,))  # halfway in log(ratio)
        tensor([2.0000, 2.5000, 3.0000, 2.5000], dtype=torch.float64)
    """

    ratios: np.ndarray
    wavenumbers: np.ndarray
    power: np.ndarray

    def __post_init__(self) -> None:
        for name in ("ratios", "wavenumbers", "power"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.power.shape != (self.ratios.size, self.wavenumbers.size):
            raise ShapeError(
                "spectra do not fit their axes",
                got=self.power.shape,
                expected=(self.ratios.size, self.wavenumbers.size),
                hint="Give one row per noise level and one column per wavenumber.",
            )
        increasing = (np.diff(self.ratios) > 0).all() and (np.diff(self.wavenumbers) > 0).all()
        if not (increasing and self.power.size and self.ratios[0] > 0 and self.wavenumbers[0] == 0):
            raise InputError(
                "the axes of the spectra do not increase",
                got=f"ratios {self.ratios}, wavenumbers {self.wavenumbers}",
                expected="positive, increasing ratios; wavenumbers that increase from 0",
                hint="Sort them, and the table with them.",
            )
        if not (np.isfinite(self.power).all() and (self.power >= 0).all()):
            raise InputError(
                "the power of an error is not a finite number >= 0",
                got=f"values from {self.power.min():g} to {self.power.max():g}",
                expected="finite and >= 0",
                hint="Look for NaN or Inf among the fields they were fitted to.",
            )

    def at(self, ratio: float, shape: tuple[int, ...]) -> Tensor:
        """Power at a noise level on the DFT grid of a field, float64 ``(*shape)``.

        Interpolated linearly in ``log(ratio)`` and ``|k|``; beyond the table its edges hold.

        Args:
            ratio: noise-to-signal ratio, in the units of the table.
            shape: of the field.
        """
        axes = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
        k = np.sqrt(sum(axis**2 for axis in axes))
        place = np.interp(np.log(ratio), np.log(self.ratios), np.arange(len(self.ratios)))
        low = min(int(place), len(self.ratios) - 2)
        weight = place - low
        row = (1 - weight) * self.power[low] + weight * self.power[low + 1]
        return torch.from_numpy(np.interp(k, self.wavenumbers, row))


class SpectralPrior(BasePrior):
    r"""A prior with a denoiser, a map of the size of its error, and a spectrum of its shape.

    With ``m, d`` from `mean_and_std` and ``S`` from `power`::

        E[x_0 | x_t] = m,   Cov[x_0 | x_t] = diag(d) F^H diag(S) F diag(d)

    A subclass gives these three and `on`; the rest follows. Cost: one `mean_and_std` per call of
    `moments`, `denoise` or `draw`; products with the covariance take two FFTs.
    """

    @abstractmethod
    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """``E[x_0|x_t]`` and the standard deviation ``d`` about it; None if ``d = 1``.

        Args:
            x_t: noisy fields ``(batch, *grid.shape)``.
            t: their time, a scalar.
        """

    @abstractmethod
    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Power spectrum ``S`` of the error divided by ``d``, on the DFT grid of ``shape``."""

    @abstractmethod
    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> SpectralPrior:
        """The same prior on another grid, or on a window of it."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t]`` of fields ``(batch, *grid.shape)`` at time ``t``, without covariance."""
        return self.mean_and_std(x_t, t)[0]

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Mean ``(batch, *grid.shape)`` and spectral covariance, from one `mean_and_std`."""
        mean, std = self.mean_and_std(x_t, t)
        power = self.power(t, self.grid.shape).to(x_t.device, x_t.dtype.to_real())
        return mean, SpectralCovariance(power, std, is_complex=self.grid.is_complex)
