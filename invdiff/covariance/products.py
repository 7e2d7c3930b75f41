"""Covariances known by their products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.covariance.base import Covariance
from invdiff.linalg import lanczos

__all__ = ["JacobianCovariance", "ProductCovariance", "TransformedCovariance"]


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
