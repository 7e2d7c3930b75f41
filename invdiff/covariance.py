r"""``Cov[x_0 | x_t]`` as a linear operator: the part of a prior that makes its spread right.

A covariance ``C`` comes with a factor ``L`` (``C = L L^H``): products, samples ``L e`` and solves
all go through it, also where ``C`` is singular. For complex fields ``C = E[(x - m)(x - m)^H]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invdiff.linalg import lanczos

__all__ = [
    "Covariance",
    "DenseCovariance",
    "JacobianCovariance",
    "NoCovariance",
    "SpectralCovariance",
    "TransformedCovariance",
]


class Covariance(ABC):
    """A Hermitian positive semi-definite operator on fields ``(batch, *shape)``."""

    spectrum: Tensor | None = None
    """Eigenvalues in the DFT of the best stationary approximation, if there is one."""

    is_stationary: bool = False
    """Whether ``spectrum`` is all there is."""

    @abstractmethod
    def sqrt(self, e: Tensor) -> Tensor:
        """``L e``: a draw, where ``e`` is standard normal."""

    @abstractmethod
    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``."""
        return self.sqrt(self.sqrt_adjoint(v))


@dataclass(frozen=True)
class NoCovariance(Covariance):
    """Zero: what a method that ignores the spread of ``x_0`` given ``x_t`` believes."""

    def sqrt(self, e: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(e)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(v)


@dataclass(frozen=True, eq=False)
class DenseCovariance(Covariance):
    """``C = L L^H`` with an explicit factor, for fields small enough.

    Args:
        factor: ``L``, ``(n, n)`` shared by all members or ``(batch, n, n)``.
    """

    factor: Tensor = field(repr=False)

    @classmethod
    def of(cls, matrix: Tensor) -> DenseCovariance:
        """From ``C`` itself, ``(n, n)`` or ``(batch, n, n)``; it may be singular."""
        values, vectors = torch.linalg.eigh(matrix)
        return cls(vectors * values.clamp_min(0).sqrt()[..., None, :])

    def sqrt(self, e: Tensor) -> Tensor:
        """``L e``."""
        return _matvec(self.factor, e)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""
        return _matvec(self.factor.mH, v)


def _matvec(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)[..., None])[..., 0].reshape(x.shape)


@dataclass(frozen=True, eq=False)
class SpectralCovariance(Covariance):
    r"""``C = D F^H S F D``: a stationary correlation times a map of standard deviations.

    Args:
        power: ``S >= 0`` in ``torch.fft.fftn`` order, ``(*shape)``; its mean is the variance where
            ``std`` is one. Symmetric for real fields.
        std: ``D``, ``(batch, *shape)`` or broadcastable; None for a stationary field.
    """

    power: Tensor = field(repr=False)
    std: Tensor | None = field(default=None, repr=False)

    @property
    def is_stationary(self) -> bool:  # type: ignore[override]
        """Whether the standard deviation is the same everywhere."""
        return self.std is None

    @property
    def spectrum(self) -> Tensor:  # type: ignore[override]
        """``S`` times the mean variance of each member."""
        if self.std is None:
            return self.power
        axes = tuple(range(-self.power.ndim, 0))
        return self.power * self.std.square().mean(axes, keepdim=True)

    def _filter(self, x: Tensor) -> Tensor:
        axes = tuple(range(-self.power.ndim, 0))
        y: Tensor = torch.fft.ifftn(self.power.sqrt() * torch.fft.fftn(x, dim=axes), dim=axes)
        return y if x.is_complex() else y.real

    def sqrt(self, e: Tensor) -> Tensor:
        """``D F^H S^(1/2) F e``."""
        correlated = self._filter(e)
        return correlated if self.std is None else self.std * correlated

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``F^H S^(1/2) F D v``."""
        return self._filter(v if self.std is None else self.std * v)


class JacobianCovariance(Covariance):
    r"""``C = (sigma^2 / alpha) dE[x_0|x_t] / dx_t`` by vector-Jacobian products.

    Exact for an exact denoiser (Tweedie's second-order formula; Rozet et al. 2024, arXiv
    2405.13712). Each product costs one backward pass; factors are applied by Lanczos.

    Args:
        mean: ``E[x_0 | x_t]``, with its graph.
        x_t: the leaf it was computed from.
        scale: ``sigma^2 / alpha``.
        iterations: Lanczos steps of ``sqrt``.
    """

    def __init__(self, mean: Tensor, x_t: Tensor, scale: Tensor, *, iterations: int = 16) -> None:
        self._mean, self._x_t, self._scale, self._iterations = mean, x_t, scale, iterations

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``, one vjp."""
        (product,) = torch.autograd.grad(self._mean, self._x_t, v, retain_graph=True)
        return self._scale * product

    def sqrt(self, e: Tensor) -> Tensor:
        """``C^(1/2) e``, the Hermitian root."""
        return lanczos(self, e, _root, iterations=self._iterations)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The same: the root is Hermitian."""
        return self.sqrt(v)


@dataclass(frozen=True, eq=False)
class TransformedCovariance(Covariance):
    """``B K^(-1) B^H`` for a precision ``K`` in whitened coordinates, ``C_prior = B B^H``.

    What a Gaussian update leaves of a prior covariance.

    Args:
        base: gives ``B``.
        precision: ``K``, Hermitian positive definite.
        solve: ``K^(-1)``.
        iterations: Lanczos steps of ``sqrt``.
    """

    base: Covariance
    precision: Callable[[Tensor], Tensor]
    solve: Callable[[Tensor], Tensor]
    iterations: int = 32

    def __call__(self, v: Tensor) -> Tensor:
        """``B K^(-1) B^H v``."""
        return self.base.sqrt(self.solve(self.base.sqrt_adjoint(v)))

    def sqrt(self, e: Tensor) -> Tensor:
        """``B K^(-1/2) e``."""
        return self.base.sqrt(self._inverse_root(e))

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``K^(-1/2) B^H v``."""
        return self._inverse_root(self.base.sqrt_adjoint(v))

    def _inverse_root(self, e: Tensor) -> Tensor:
        return lanczos(self.precision, e, torch.rsqrt, iterations=self.iterations)


def _root(values: Tensor) -> Tensor:
    return values.clamp_min(0).sqrt()
