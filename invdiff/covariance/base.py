"""What a covariance offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from invdiff.errors import UnsupportedError

__all__ = ["Covariance", "NoCovariance", "alike", "cholesky_or_nan"]


class Covariance(ABC):
    """A Hermitian positive semi-definite operator on fields ``(batch, *shape)``."""

    spectrum: Tensor | None = None
    """If the coordinates are those of the DFT: the power of a stationary approximation there."""

    is_stationary: bool = False
    """Whether ``spectrum`` is all there is."""

    is_shared: bool = False
    """Whether it is known to be the same for all members."""

    is_closed: bool = False
    """Whether members can be selected (:meth:`take`) and noisy fields seen (:meth:`observed`)."""

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

    def take(self, members: Tensor) -> Covariance:
        """The covariances of the members with these indices.

        Raises:
            UnsupportedError: a covariance tied to the batch it was made from.
        """
        raise UnsupportedError(
            "members of this covariance cannot be selected",
            got=type(self).__name__,
            expected="a dense or spectral covariance",
            hint="Use a sampler without resampling, such as Ancestral().",
        )

    def closed(self) -> Covariance | None:
        """Itself where it has closed forms, else the nearest covariance that does, if any."""
        return self if self.is_closed else None

    def join(self, others: Sequence[Covariance]) -> Covariance:
        """That of these members followed by those of ``others``, of the same kind.

        Raises:
            UnsupportedError: a covariance tied to the batch it was made from.
        """
        raise UnsupportedError(
            "covariances of two batches cannot be joined",
            got=type(self).__name__,
            expected="dense or spectral ones",
            hint="Draw all members in one batch.",
        )

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M C M^H`` of rows ``M``, ``(m, n)`` or ``(batch, m, n)``, if that is cheap."""
        return None

    def observed(self, precision: float) -> Covariance:
        """``(C^-1 + precision I)^-1``: what is left after seeing the field in white noise.

        A negative precision takes such noise out again; where ``C`` does not allow it the result
        is NaN.

        Raises:
            UnsupportedError: a covariance that has no closed form for it.
        """
        raise UnsupportedError(
            "no closed form of this covariance given a noisy field",
            got=type(self).__name__,
            expected="a dense or stationary covariance, or one of low rank beside it",
            hint="Use a sampler without weights, such as Ancestral().",
        )


@dataclass(frozen=True)
class NoCovariance(Covariance):
    """Zero: what a method that ignores the spread of ``x_0`` given ``x_t`` believes."""

    is_closed = True

    def sqrt(self, u: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(v)

    def take(self, members: Tensor) -> NoCovariance:
        """Zero."""
        return self

    def join(self, others: Sequence[Covariance]) -> NoCovariance:
        """Zero."""
        return self

    def observed(self, precision: float) -> NoCovariance:
        """Zero."""
        return self


def cholesky_or_nan(matrix: Tensor) -> Tensor:
    """Cholesky factors, NaN for a matrix that has none."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


_Kind = TypeVar("_Kind", bound=Covariance)


def alike(first: _Kind, others: Sequence[Covariance]) -> list[_Kind]:
    """``others``, which are of the kind of the first."""
    found = [other for other in others if isinstance(other, type(first))]
    assert len(found) == len(others), "one prior gives one kind of covariance"
    return found
