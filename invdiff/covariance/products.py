"""Covariances that are known by their products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.covariance.base import Covariance
from invdiff.linalg import lanczos

__all__ = ["JacobianCovariance", "ProductCovariance", "TransformedCovariance"]


class ProductCovariance(Covariance):
    """A covariance that is known by its products alone.

    Its Hermitian root is applied by the Lanczos method.

    Args:
        product: The map ``v -> C v`` on fields ``(batch, *shape)``.
        iterations: The number of Lanczos steps of :meth:`sqrt`, of one product each.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import ProductCovariance
        >>> covariance = ProductCovariance(lambda v: 4 * v, iterations=1)
        >>> covariance.sqrt(torch.tensor([[1.0, 2.0]])).round(decimals=4)
        tensor([[2., 4.]])
    """

    def __init__(self, product: Callable[[Tensor], Tensor], *, iterations: int = 16) -> None:
        self._product, self._iterations = product, iterations

    def __call__(self, v: Tensor) -> Tensor:
        """The product ``C v``, ``(batch, *shape)``."""
        return self._product(v)

    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``C^(1/2) u``, ``(batch, *shape)``, by Lanczos."""
        return lanczos(self._product, u, _root, iterations=self._iterations)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coordinates ``C^(1/2) v``, ``(batch, *shape)``: the root is Hermitian."""
        return self.sqrt(v)


class JacobianCovariance(ProductCovariance):
    r"""The covariance of Tweedie's second-order formula, by vector-Jacobian products.

    .. math:: C = \frac{\sigma_t^2}{\alpha_t} \frac{\partial E[x_0 | x_t]}{\partial x_t},

    which is exact for an exact denoiser. Cost: one backward pass of the network per product.

    Args:
        mean: The denoised field ``E[x_0 | x_t]``, ``(batch, *shape)``, with its graph.
        x_t: The leaf from which it was computed, ``(batch, *shape)``.
        scale: The factor ``sigma^2 / alpha``.
        iterations: The number of Lanczos steps of :meth:`sqrt`.

    References:
        Rozet, Andry, Lanusse and Louppe, 2024, arXiv 2405.13712.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import JacobianCovariance
        >>> x_t = torch.zeros(1, 2, requires_grad=True)
        >>> covariance = JacobianCovariance(0.5 * x_t, x_t, torch.tensor(2.0))
        >>> covariance(torch.ones(1, 2))
        tensor([[1., 1.]])
    """

    def __init__(self, mean: Tensor, x_t: Tensor, scale: Tensor, *, iterations: int = 16) -> None:
        def product(v: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(mean, x_t, v, retain_graph=True)
            return scale * pulled

        super().__init__(product, iterations=iterations)


@dataclass(frozen=True, eq=False)
class TransformedCovariance(Covariance):
    """The covariance ``B K^(-1) B^H`` of a Gaussian update, in whitened coordinates.

    With a prior covariance ``B B^H`` and the precision ``K`` of the whitened coordinates given the
    data, it is the covariance given the data. Its root takes Lanczos steps of ``K``.

    Args:
        base: The prior covariance, which gives ``B``.
        precision: The map ``u -> K u``, Hermitian positive definite.
        solve: The map ``u -> K^(-1) u``.
        iterations: The number of Lanczos steps of :meth:`sqrt`.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import DenseCovariance, TransformedCovariance
        >>> base = DenseCovariance(torch.eye(2))
        >>> updated = TransformedCovariance(base, lambda u: 4 * u, lambda u: u / 4)
        >>> updated(torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
    """

    base: Covariance
    precision: Callable[[Tensor], Tensor]
    solve: Callable[[Tensor], Tensor]
    iterations: int = 32

    def __call__(self, v: Tensor) -> Tensor:
        """The product ``B K^(-1) B^H v``, ``(batch, *shape)``."""
        return self.base.sqrt(self.solve(self.base.sqrt_adjoint(v)))

    def coordinates(self, e: Tensor) -> Tensor:
        """White noise in the coordinates of the prior covariance, ``(batch, *shape)``."""
        return self.base.coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``B K^(-1/2) u``, ``(batch, *shape)``."""
        return self.base.sqrt(self._inverse_root(u))

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coordinates ``K^(-1/2) B^H v``, ``(batch, *shape)``."""
        return self._inverse_root(self.base.sqrt_adjoint(v))

    def _inverse_root(self, u: Tensor) -> Tensor:
        return lanczos(self.precision, u, torch.rsqrt, iterations=self.iterations)


def _root(values: Tensor) -> Tensor:
    return values.clamp_min(0).sqrt()
