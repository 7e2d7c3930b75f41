"""The interface of covariances, and the covariance that is zero."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from invdiff.errors import UnsupportedError
from invdiff.linalg import Apply, per_member

__all__ = ["Covariance", "NoCovariance", "alike", "cholesky_or_nan"]


class Covariance(ABC):
    """A Hermitian positive semi-definite operator on fields ``(batch, *shape)``.

    A subclass defines a factor ``L``, ``C = L L^H``, by :meth:`sqrt` and :meth:`sqrt_adjoint`, and
    the rest follows. It overrides :meth:`take`, :meth:`join` and :meth:`observed` where closed
    forms exist; samplers with weights need these.

    Examples:
        A diagonal covariance:

        >>> import torch
        >>> from invdiff.covariance import Covariance
        >>> class Diagonal(Covariance):
        ...     def __init__(self, std):
        ...         self.std = std
        ...
        ...     def sqrt(self, u):
        ...         return self.std * u
        ...
        ...     def sqrt_adjoint(self, v):
        ...         return self.std * v
        >>> covariance = Diagonal(torch.tensor([1.0, 2.0]))
        >>> covariance(torch.ones(1, 2))
        tensor([[1., 4.]])
    """

    spectrum: Tensor | None = None
    """The power of a stationary approximation, if the coordinates are those of the DFT."""

    is_stationary: bool = False
    """Whether ``spectrum`` describes the covariance completely."""

    is_shared: bool = False
    """Whether all members are known to have the same covariance."""

    is_closed: bool = False
    """Whether members can be selected (:meth:`take`) and noisy fields observed."""

    def coordinates(self, e: Tensor) -> Tensor:
        """White noise on the grid as coordinates of ``L``: a unitary map, here the identity.

        Args:
            e: White noise, ``(batch, *shape)``.
        """
        return e

    @abstractmethod
    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``L u`` of coordinates ``u``, ``(batch, *shape)``."""

    @abstractmethod
    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coordinates ``L^H v`` of a field ``v``, ``(batch, *shape)``."""

    def draw(self, e: Tensor) -> Tensor:
        """A draw from ``N(0, C)``.

        Args:
            e: Standard normal values on the grid, ``(batch, *shape)``.
        """
        return self.sqrt(self.coordinates(e))

    def __call__(self, v: Tensor) -> Tensor:
        """The product ``C v`` with fields ``v``, ``(batch, *shape)``."""
        return self.sqrt(self.sqrt_adjoint(v))

    def take(self, members: Tensor) -> Covariance:
        """The covariances of the members with these indices.

        Args:
            members: Indices into the batch, ``(n,)``, repeated or not.

        Raises:
            UnsupportedError: The covariance is tied to the batch from which it was computed.
        """
        raise UnsupportedError(
            "members of this covariance cannot be selected",
            got=type(self).__name__,
            expected="a dense or spectral covariance",
            hint="Use a sampler without resampling, such as Ancestral().",
        )

    def closed(self) -> Covariance | None:
        """The covariance itself if it has closed forms, else the nearest one that has, or None."""
        return self if self.is_closed else None

    def join(self, others: Sequence[Covariance]) -> Covariance:
        """The covariance of these members followed by those of ``others``, of the same kind.

        Raises:
            UnsupportedError: The covariance is tied to the batch from which it was computed.
        """
        raise UnsupportedError(
            "covariances of two batches cannot be joined",
            got=type(self).__name__,
            expected="dense or spectral covariances",
            hint="Draw all members in one batch.",
        )

    def scaled(self, factor: Tensor) -> Covariance:
        """The covariance times a factor for each member.

        Args:
            factor: Positive factors, ``(batch,)``.
        """
        return _Scaled(self, factor)

    def approximate_inverse(self, precision: Tensor) -> Apply | None:
        """An approximation of ``(I + L^H P L)^-1`` in coordinates, or None where none is known.

        It is Hermitian positive definite, to precondition conjugate gradients with.

        Args:
            precision: The diagonal of ``P`` in the DFT, ``(*shape)`` or ``(batch, *shape)``.
        """
        if self.spectrum is None:
            return None
        inverse = (1 + self.spectrum * precision).reciprocal()
        return lambda u: u * inverse

    def sandwich(self, matrix: Tensor) -> Tensor | None:
        """``M C M^H``, or None where that is expensive.

        Args:
            matrix: The rows ``M``, ``(m, n)`` or ``(batch, m, n)``, with ``n`` values per field.
        """
        return None

    def observed(self, precision: float) -> Covariance:
        """``(C^-1 + precision I)^-1``: the covariance after observing the field in white noise.

        Args:
            precision: The inverse variance of the noise. A negative one removes such an
                observation; where ``C`` does not allow that, the result is NaN.

        Raises:
            UnsupportedError: The covariance has no closed form for it.
        """
        raise UnsupportedError(
            "this covariance has no closed form given a noisy field",
            got=type(self).__name__,
            expected="a dense or stationary covariance, or a stationary one plus low rank",
            hint="Use a sampler without weights, such as Ancestral().",
        )


@dataclass(frozen=True)
class NoCovariance(Covariance):
    """The covariance that is zero, for methods that ignore the spread of ``x_0`` given ``x_t``.

    Examples:
        >>> import torch
        >>> from invdiff.covariance import NoCovariance
        >>> NoCovariance()(torch.ones(1, 2))
        tensor([[0., 0.]])
    """

    is_closed = True

    def sqrt(self, u: Tensor) -> Tensor:
        """A field of zeros."""
        return torch.zeros_like(u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """Coordinates that are all zero."""
        return torch.zeros_like(v)

    def take(self, members: Tensor) -> NoCovariance:
        """The zero covariance, which all members share."""
        return self

    def join(self, others: Sequence[Covariance]) -> NoCovariance:
        """The zero covariance, which all batches share."""
        return self

    def scaled(self, factor: Tensor) -> NoCovariance:
        """The zero covariance, whatever the factor."""
        return self

    def observed(self, precision: float) -> NoCovariance:
        """The zero covariance: an observation leaves it as it is."""
        return self


@dataclass(frozen=True, eq=False)
class _Scaled(Covariance):
    """A covariance times a factor for each member, where nothing else is known of it."""

    base: Covariance
    factor: Tensor

    def coordinates(self, e: Tensor) -> Tensor:
        """Coordinates of the covariance that is scaled."""
        return self.base.coordinates(e)

    def sqrt(self, u: Tensor) -> Tensor:
        """The field ``sqrt(factor) L u``."""
        return per_member(self.factor.sqrt(), u) * self.base.sqrt(u)

    def sqrt_adjoint(self, v: Tensor) -> Tensor:
        """The coordinates ``sqrt(factor) L^H v``."""
        return self.base.sqrt_adjoint(per_member(self.factor.sqrt(), v) * v)


def cholesky_or_nan(matrix: Tensor) -> Tensor:
    """Cholesky factors of matrices ``(..., n, n)``, NaN for a matrix that has none."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


_Kind = TypeVar("_Kind", bound=Covariance)


def alike(first: _Kind, others: Sequence[Covariance]) -> list[_Kind]:
    """The covariances ``others``, checked to be of the kind of the first."""
    found = [other for other in others if isinstance(other, type(first))]
    assert len(found) == len(others), "one prior gives one kind of covariance"
    return found
