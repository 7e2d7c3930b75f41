r"""Gaussian priors in closed form: the oracle of tests, and an honest baseline.

For ``x_0 ~ N(mu, C)`` and ``z = x_0 + r eps``::

    E[x_0 | z] = mu + C (C + r^2 I)^(-1) (z - mu),   Cov[x_0 | z] = r^2 C (C + r^2 I)^(-1)
"""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.covariance import Covariance, DenseCovariance, SpectralCovariance
from invdiff.errors import ShapeError
from invdiff.grid import Grid
from invdiff.protocols import BasePrior
from invdiff.schedule import VE, Schedule

__all__ = ["GaussianPrior", "StationaryGaussianPrior"]


class GaussianPrior(BasePrior):
    """``N(mean, covariance)`` with a dense covariance.

    Args:
        grid: of the field.
        mean: ``(*grid.shape)``.
        covariance: ``(n, n)`` with ``n = grid.size``, Hermitian positive semi-definite.
        schedule: noise levels of ``x_t``.

    Raises:
        ShapeError: mean or covariance of another size than the grid.
    """

    def __init__(
        self, grid: Grid, mean: Tensor, covariance: Tensor, *, schedule: Schedule | None = None
    ) -> None:
        if tuple(mean.shape) != grid.shape or tuple(covariance.shape) != (grid.size,) * 2:
            raise ShapeError(
                "mean or covariance do not fit the grid",
                got=f"{tuple(mean.shape)}, {tuple(covariance.shape)}",
                expected=f"{grid.shape}, {(grid.size,) * 2}",
            )
        self.grid, self.schedule = grid, schedule or VE()
        self.mean = mean.to(grid.dtype)
        values, vectors = torch.linalg.eigh(covariance.to(grid.dtype))
        self._values, self._vectors = values.clamp_min(0), vectors

    def __repr__(self) -> str:
        """Grid."""
        return f"GaussianPrior({self.grid}, mean, covariance, schedule={self.schedule!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact moments."""
        alpha, ratio = self.levels(t)
        deviation = (x_t / alpha - self.mean).flatten(1)
        gain = self._values / (self._values + ratio**2)
        shrunk = ((deviation @ self._vectors.conj()) * gain) @ self._vectors.mT
        covariance = DenseCovariance(self._vectors * (ratio * gain.sqrt()))
        return self.mean + shrunk.reshape(x_t.shape), covariance


class StationaryGaussianPrior(BasePrior):
    """``N(mean, F^H S F)``: a periodic stationary field, all by FFT.

    Args:
        grid: of the field.
        mean: ``(*grid.shape)``.
        spectrum: eigenvalues ``S >= 0`` in ``torch.fft.fftn`` order; their mean is the variance of
            a point. For a real grid ``S(-k) = S(k)``.
        schedule: noise levels of ``x_t``.

    Raises:
        ShapeError: mean or spectrum of another shape, or an asymmetric spectrum of a real field.
    """

    def __init__(
        self, grid: Grid, mean: Tensor, spectrum: Tensor, *, schedule: Schedule | None = None
    ) -> None:
        if tuple(mean.shape) != grid.shape or tuple(spectrum.shape) != grid.shape:
            raise ShapeError(
                "mean or spectrum do not fit the grid",
                got=f"{tuple(mean.shape)}, {tuple(spectrum.shape)}",
                expected=grid.shape,
            )
        axes = tuple(range(grid.ndim))
        mirrored = spectrum.flip(axes).roll((1,) * grid.ndim, axes)
        if not grid.is_complex and not torch.allclose(mirrored, spectrum):
            raise ShapeError("the spectrum of a real field must satisfy S(-k) = S(k)")
        self.grid, self.schedule = grid, schedule or VE()
        self.mean, self.spectrum = mean.to(grid.dtype), spectrum.to(grid.real_dtype)

    def __repr__(self) -> str:
        """Grid."""
        return f"StationaryGaussianPrior({self.grid}, mean, spectrum, schedule={self.schedule!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact moments."""
        alpha, ratio = self.levels(t)
        gain = self.spectrum / (self.spectrum + ratio**2)
        axes = tuple(range(1, x_t.ndim))
        shrunk = torch.fft.ifftn(gain * torch.fft.fftn(x_t / alpha - self.mean, dim=axes), dim=axes)
        mean = self.mean + (shrunk if self.grid.is_complex else shrunk.real)
        return mean, SpectralCovariance(ratio**2 * gain, is_complex=self.grid.is_complex)
