"""Covariances with an explicit factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invdiff.covariance.base import Covariance, alike, cholesky_or_nan

__all__ = ["DenseCovariance"]


@dataclass(frozen=True, eq=False)
class DenseCovariance(Covariance):
    """A covariance ``C = L L^H`` with an explicit factor, for fields that are small enough.

    Cost: products, draws and solves are matrix products of ``n x n`` for ``n`` values per field.

    Args:
        factor: The factor ``L``, ``(n, n)`` shared by all members, or ``(batch, n, n)``.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import DenseCovariance
        >>> covariance = DenseCovariance.of(torch.tensor([[4.0, 2.0], [2.0, 3.0]]))
        >>> covariance(torch.tensor([[1.0, 0.0]]))
        tensor([[4., 2.]])
    """

    factor: Tensor = field(repr=False)
    is_closed = True

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        """Whether one factor serves all members."""
        return self.factor.ndim == 2

    @classmethod
    def of(cls, matrix: Tensor) -> DenseCovariance:
        """The covariance of a matrix.

        Args:
            matrix: ``C`` itself, ``(n, n)`` or ``(batch, n, n)``; it may be singular.
        """
        factor, info = torch.linalg.cholesky_ex(matrix)
        singular = info != 0
        if singular.any():
            values, vectors = torch.linalg.eigh(matrix)
            root = vectors * values.clamp_min(0).sqrt()[..., None, :]
            factor = torch.where(singular[..., None, None], root, factor)
        return cls(factor)

    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``L u``, ``(batch, *shape)``."""
        return _matvec(self.factor, u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coordinates ``L^H v``, ``(batch, *shape)``."""
        return _matvec(self.factor.mH, v)

    def take(self, members: Tensor) -> DenseCovariance:
        """The factors of the selected members, or the shared factor."""
        return self if self.factor.ndim == 2 else DenseCovariance(self.factor[members])

    def join(self, others: Sequence[Covariance]) -> DenseCovariance:
        """The factors of both batches, one after the other, or the shared factor."""
        if self.factor.ndim == 2:
            return self
        return DenseCovariance(torch.cat([self.factor, *(o.factor for o in alike(self, others))]))

    def scaled(self, factor: Tensor) -> DenseCovariance:
        """The factor ``sqrt(factor) L`` of each member."""
        return DenseCovariance(factor.sqrt()[:, None, None] * self.factor)

    def sandwich(self, matrix: Tensor) -> Tensor:
        """The product ``(M L) (M L)^H``, ``(m, m)`` or ``(batch, m, m)``."""
        root = matrix @ self.factor
        return root @ root.mH

    def observed(self, precision: float) -> DenseCovariance:
        """The covariance ``L (I + precision L^H L)^-1 L^H`` after observing the field in noise."""
        eye = torch.eye(self.factor.shape[-1], dtype=self.factor.dtype, device=self.factor.device)
        root = cholesky_or_nan(eye + precision * self.factor.mH @ self.factor)
        return DenseCovariance(torch.linalg.solve_triangular(root, self.factor.mH, upper=False).mH)


def _matvec(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)[..., None])[..., 0].reshape(x.shape)
