"""Gaussian priors in closed form: the reference of tests, and a baseline."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from invdiff.covariance import Covariance, DenseCovariance, SpectralCovariance
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.priors.checks import as_tensor, check_hermitian, check_mirrored, semidefinite_eigen
from invdiff.protocols import BasePrior
from invdiff.schedule import Schedule
from invdiff.spread import Spread

__all__ = ["GaussianPrior", "StationaryGaussianPrior"]


class _Gaussian(BasePrior):
    """A prior whose state is its tensors."""

    def to(self, device: str | torch.device) -> Self:
        """The same prior on ``device``."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(other, name, value.to(device))
        return other


class GaussianPrior(_Gaussian):
    r"""``N(mean, C)`` with a dense covariance, in closed form.

    For ``z = x_t / alpha = x_0 + r eps`` with noise-to-signal ratio ``r`` (Wiener filter)::

        E[x_0 | x_t] = mean + C (C + r^2 I)^-1 (z - mean),   Cov[x_0 | x_t] = r^2 C (C + r^2 I)^-1

    Assumptions: none beyond the Gaussian law; the moments are exact. Cost: one eigendecomposition
    of ``C``, O(n^3) for ``n`` points, when it is built; then O(n^2) per member and call.

    Args:
        grid: of the field, real or complex, of any number of dims.
        mean: ``(*grid.shape)``, a tensor or an array.
        covariance: ``C``, ``(n, n)`` with ``n = grid.size``, Hermitian positive semi-definite; for
            a complex field ``E[(x - mean)(x - mean)^H]`` of a circular one.
        schedule: noise levels of ``x_t`` in the units of the field; default: from its spread.

    Raises:
        ShapeError: mean or covariance of another size than the grid.
        DTypeError: complex values on a real grid.
        NonFiniteError: NaN or Inf.
        InputError: a covariance that is not Hermitian, or that has negative eigenvalues.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import GaussianPrior
        >>> prior = GaussianPrior(Grid(("x",), (3,)), torch.zeros(3), torch.eye(3))
        >>> prior.denoise(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor(1.0))  # halfway to the mean
        tensor([[0.0000, 0.5000, 1.0000]])
    """

    def __init__(
        self, grid: Grid, mean: Any, covariance: Any, *, schedule: Schedule | None = None
    ) -> None:
        self.grid = grid
        self.mean = as_tensor(mean, "mean", shape=grid.shape, dtype=grid.dtype)
        matrix = as_tensor(covariance, "covariance", shape=(grid.size, grid.size), dtype=grid.dtype)
        check_hermitian(matrix, "covariance")
        self._values, self._vectors = semidefinite_eigen(matrix)
        self.spread = _spread(self._values, self.mean)
        self.schedule = self.spread.schedule(schedule)

    def __repr__(self) -> str:
        """Grid and schedule."""
        return f"GaussianPrior({self.grid}, mean, covariance, schedule={self.schedule!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact mean ``(batch, *grid.shape)`` and covariance of ``x_0`` given ``x_t``."""
        alpha, ratio = self.levels(t)
        deviation = (x_t / alpha - self.mean).flatten(1)
        gain = self._values / (self._values + ratio**2)
        shrunk = ((deviation @ self._vectors.conj()) * gain) @ self._vectors.mT
        covariance = DenseCovariance(self._vectors * (ratio * gain.sqrt()))
        return self.mean + shrunk.reshape(x_t.shape), covariance


class StationaryGaussianPrior(_Gaussian):
    r"""``N(mean, F^H S F)``: a periodic stationary Gaussian field in closed form, all by FFT.

    For ``z = x_t / alpha = x_0 + r eps`` with noise-to-signal ratio ``r`` (Wiener filter)::

        E[x_0 | x_t] = mean + F^H S (S + r^2)^-1 F (z - mean)
        Cov[x_0 | x_t] = F^H r^2 S (S + r^2)^-1 F

    Assumptions: periodic boundaries and a covariance that depends on the lag alone. Cost: two FFTs
    per member and call, O(n log n) for ``n`` points.

    Args:
        grid: of the field, real or complex, of any number of dims.
        mean: ``(*grid.shape)``, a tensor or an array.
        spectrum: eigenvalues ``S >= 0`` in ``torch.fft.fftn`` order, ``(*grid.shape)``; their mean
            is the variance of a point. For a real grid ``S(-k) = S(k)``.
        schedule: noise levels of ``x_t`` in the units of the field; default: from its spread.

    Raises:
        ShapeError: mean or spectrum of another shape, or an asymmetric spectrum of a real field.
        DTypeError: a complex spectrum, or a complex mean on a real grid.
        NonFiniteError: NaN or Inf.
        InputError: a negative eigenvalue.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> k = torch.fft.fftfreq(64)
        >>> spectrum = 1 / (1 + (k / 0.05) ** 2)
        >>> prior = StationaryGaussianPrior(Grid(("x",), (64,)), torch.zeros(64), spectrum)
        >>> prior.denoise(torch.ones(1, 64), torch.tensor(1.0))[0, :3]
        tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(
        self, grid: Grid, mean: Any, spectrum: Any, *, schedule: Schedule | None = None
    ) -> None:
        self.grid = grid
        self.mean = as_tensor(mean, "mean", shape=grid.shape, dtype=grid.dtype)
        self.spectrum = as_tensor(spectrum, "spectrum", shape=grid.shape, dtype=grid.real_dtype)
        if (self.spectrum < 0).any():
            raise InputError(
                "the spectrum has negative values",
                got=f"values down to {float(self.spectrum.min()):.3g}",
                expected="variances >= 0",
                hint="Give the power of each mode, not its amplitude.",
            )
        if not grid.is_complex:
            check_mirrored(self.spectrum, grid.ndim, "the spectrum")
        self.spread = _spread(self.spectrum, self.mean)
        self.schedule = self.spread.schedule(schedule)

    def __repr__(self) -> str:
        """Grid and schedule."""
        return f"StationaryGaussianPrior({self.grid}, mean, spectrum, schedule={self.schedule!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact mean ``(batch, *grid.shape)`` and covariance of ``x_0`` given ``x_t``."""
        alpha, ratio = self.levels(t)
        gain = self.spectrum / (self.spectrum + ratio**2)
        axes = tuple(range(1, x_t.ndim))
        shrunk = torch.fft.ifftn(gain * torch.fft.fftn(x_t / alpha - self.mean, dim=axes), dim=axes)
        mean = self.mean + (shrunk if self.grid.is_complex else shrunk.real)
        return mean, SpectralCovariance(ratio**2 * gain, is_complex=self.grid.is_complex)


def _spread(eigenvalues: Tensor, mean: Tensor) -> Spread:
    values = eigenvalues.double()
    return Spread(float(values.mean().sqrt()), float(values.max().sqrt()), centre=mean)
