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
    """``C = L L^H`` with an explicit factor, for fields small enough.

    Args:
        factor: ``L``, ``(n, n)`` shared by all members or ``(batch, n, n)``.
    """

    factor: Tensor = field(repr=False)
    is_closed = True

    @property
    def is_shared(self) -> bool:  # type: ignore[override]
        """Where there is one factor."""
        return self.factor.ndim == 2

    @classmethod
    def of(cls, matrix: Tensor) -> DenseCovariance:
        """From ``C`` itself, ``(n, n)`` or ``(batch, n, n)``; it may be singular."""
        factor, info = torch.linalg.cholesky_ex(matrix)
        singular = info != 0
        if singular.any():
            values, vectors = torch.linalg.eigh(matrix)
            root = vectors * values.clamp_min(0).sqrt()[..., None, :]
            factor = torch.where(singular[..., None, None], root, factor)
        return cls(factor)

    def sqrt(self, u: Tensor) -> Tensor:
        """``L u``."""
        return _matvec(self.factor, u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """``L^H v``."""
        return _matvec(self.factor.mH, v)

    def take(self, members: Tensor) -> DenseCovariance:
        """One factor a member, or the shared one."""
        return self if self.factor.ndim == 2 else DenseCovariance(self.factor[members])

    def join(self, others: Sequence[Covariance]) -> DenseCovariance:
        """Factors one after the other, or the shared one."""
        if self.factor.ndim == 2:
            return self
        return DenseCovariance(torch.cat([self.factor, *(o.factor for o in alike(self, others))]))

    def sandwich(self, matrix: Tensor) -> Tensor:
        """``(M L) (M L)^H``."""
        root = matrix @ self.factor
        return root @ root.mH

    def observed(self, precision: float) -> DenseCovariance:
        """``L (I + precision L^H L)^-1 L^H``."""
        eye = torch.eye(self.factor.shape[-1], dtype=self.factor.dtype, device=self.factor.device)
        root = cholesky_or_nan(eye + precision * self.factor.mH @ self.factor)
        return DenseCovariance(torch.linalg.solve_triangular(root, self.factor.mH, upper=False).mH)


def _matvec(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)[..., None])[..., 0].reshape(x.shape)
