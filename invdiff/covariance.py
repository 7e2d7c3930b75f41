r"""``Cov[x_0 | x_t]`` as a linear operator: the part of a prior that makes its spread right.

A covariance ``C`` comes with a factor ``L`` (``C = L L^H``): products, samples ``L e`` and solves
all go through it, also where ``C`` is singular. ``L`` acts on coordinates of its own choosing, in
which white noise is white. For complex fields ``C = E[(x - m)(x - m)^H]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from invdiff.linalg import lanczos

__all__ = [
    "Covariance",
    "DenseCovariance",
    "JacobianCovariance",
    "NoCovariance",
    "ProductCovariance",
    "SpectralCovariance",
    "TransformedCovariance",
]


class Covariance(ABC):
    """A Hermitian positive semi-definite operator on fields ``(batch, *shape)``."""

    spectrum: Tensor | None = None
    """If the coordinates are those of the DFT: the power of a stationary approximation there."""

    is_stationary: bool = False
    """Whether ``spectrum`` is all there is."""

    def coordinates(self, e: Tensor) -> Tensor:
        """White noise on the grid as coordinates of ``L``; a unitary map, here the identity."""
        return e

    @abstractmethod
    def sqrt(self, u: Tensor) -> Tensor:
        """``L u``: the field of coordinates ``u``."""

    @abstractmethod
    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""

    def draw(self, e: Tensor) -> Tensor:
        """A draw from ``N(0, C)``, where ``e`` is standard normal on the grid."""
        return self.sqrt(self.coordinates(e))

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``."""
        return self.sqrt(self.sqrt_adjoint(v))


@dataclass(frozen=True)
class NoCovariance(Covariance):
    """Zero: what a method that ignores the spread of ``x_0`` given ``x_t`` believes."""

    def sqrt(self, u: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(u)

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

    def sqrt(self, u: Tensor) -> Tensor:
        """``L u``."""
        return _matvec(self.factor, u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""
        return _matvec(self.factor.mH, v)


def _matvec(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)[..., None])[..., 0].reshape(x.shape)


@dataclass(frozen=True, eq=False)
class SpectralCovariance(Covariance):
    r"""``C = D F^H S F D``: a stationary correlation times a map of standard deviations.

    Its coordinates are those of the DFT, ``L = D F^H S^(1/2)``: solves need two DFTs a step.

    Args:
        power: ``S >= 0`` in ``torch.fft.fftn`` order, ``(*shape)``; its mean is the variance where
            ``std`` is one. Symmetric for real fields.
        std: ``D``, ``(batch, *shape)`` or broadcastable; None for a stationary field.
        is_complex: whether the field is complex.
    """

    power: Tensor = field(repr=False)
    std: Tensor | None = field(default=None, repr=False)
    is_complex: bool = field(kw_only=True)

    @property
    def is_stationary(self) -> bool:  # type: ignore[override]
        """Whether the standard deviation is the same everywhere."""
        return self.std is None

    @property
    def spectrum(self) -> Tensor:  # type: ignore[override]
        """``S`` times the mean variance of each member."""
        if self.std is None:
            return self.power
        return self.power * self.std.square().mean(self._axes, keepdim=True)

    @cached_property
    def _amplitude(self) -> Tensor:
        return self.power.sqrt()

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.power.ndim, 0))

    def coordinates(self, e: Tensor) -> Tensor:
        """``F e`` with the unitary DFT."""
        coefficients: Tensor = torch.fft.fftn(e, dim=self._axes, norm="ortho")
        return coefficients

    def sqrt(self, u: Tensor) -> Tensor:
        """``D F^H S^(1/2) u``; for a real field ``u`` are the coefficients of one."""
        x: Tensor = torch.fft.ifftn(self._amplitude * u, dim=self._axes, norm="ortho")
        if not self.is_complex:
            x = x.real
        return x if self.std is None else self.std * x

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``S^(1/2) F D v``."""
        return self._amplitude * self.coordinates(v if self.std is None else self.std * v)


class ProductCovariance(Covariance):
    """A covariance known by its products alone; its Hermitian root is applied by Lanczos.

    Args:
        product: ``C v``.
        iterations: Lanczos steps of ``sqrt``, a product each.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], *, iterations: int = 16) -> None:
        self._product, self._iterations = product, iterations

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``."""
        return self._product(v)

    def sqrt(self, u: Tensor) -> Tensor:
        """``C^(1/2) u``."""
        return lanczos(self._product, u, _root, iterations=self._iterations)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The same: the root is Hermitian."""
        return self.sqrt(v)


class JacobianCovariance(ProductCovariance):
    r"""``C = (sigma^2 / alpha) dE[x_0|x_t] / dx_t`` by vector-Jacobian products.

    Exact for an exact denoiser (Tweedie's second-order formula; Rozet et al. 2024, arXiv
    2405.13712). Each product costs one backward pass.

    Args:
        mean: ``E[x_0 | x_t]``, with its graph.
        x_t: the leaf it was computed from.
        scale: ``sigma^2 / alpha``.
        iterations: Lanczos steps of ``sqrt``.
    """

    def __init__(self, mean: Tensor, x_t: Tensor, scale: Tensor, *, iterations: int = 16) -> None:
        def product(v: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(mean, x_t, v, retain_graph=True)
            return scale * pulled

        super().__init__(product, iterations=iterations)


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

    def coordinates(self, e: Tensor) -> Tensor:
        """Those of the base."""
        return self.base.coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """``B K^(-1/2) u``."""
        return self.base.sqrt(self._inverse_root(u))

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``K^(-1/2) B^H v``."""
        return self._inverse_root(self.base.sqrt_adjoint(v))

    def _inverse_root(self, u: Tensor) -> Tensor:
        return lanczos(self.precision, u, torch.rsqrt, iterations=self.iterations)


def _root(values: Tensor) -> Tensor:
    return values.clamp_min(0).sqrt()
