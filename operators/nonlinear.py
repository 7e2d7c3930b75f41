"""Nonlinear operators: pointwise functions around a linear operator, and the black box.

All but the last are differentiable by torch, for one product of the linear operator each way. A
black box has no gradient: only methods that evaluate it can use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invdiff.completion import completed
from invdiff.errors import DTypeError, InputError
from invdiff.grid import Grid
from invdiff.protocols import LinearOperator

__all__ = ["BlackBox", "Lognormal", "Magnitude", "Saturating"]


@dataclass(frozen=True)
class _Around:
    """A function of the fields or data of a linear operator."""

    linear: LinearOperator

    @property
    def domain(self) -> Grid:
        """That of the linear operator."""
        return self.linear.domain

    @property
    def range(self) -> Grid:
        """That of the linear operator."""
        return self.linear.range

    @property
    def n_data(self) -> int:
        """As the linear operator."""
        return completed(self.linear).n_data

    @property
    def measured(self) -> Tensor | None:
        """As the linear operator: which values of the range are measured; None for all."""
        mask: Tensor | None = getattr(self.linear, "measured", None)
        return mask


def _check_real(operator: _Around) -> None:
    if operator.domain.is_complex or operator.range.is_complex:
        raise DTypeError(
            f"{type(operator).__name__} needs real fields and data",
            got=f"{operator.domain.dtype}, {operator.range.dtype}",
            expected="a linear operator between real grids",
        )


@dataclass(frozen=True)
class Saturating(_Around):
    """``y = level tanh(A x / level)``: a detector that saturates.

    Linear for ``|A x| << level``; beyond a few levels the data say no more than the sign.

    Args:
        linear: ``A``, real.
        level: largest ``|y|``, in units of the data.

    Raises:
        DTypeError: a complex operator.
        InputError: a level that is not positive.
    """

    level: float

    def __post_init__(self) -> None:
        _check_real(self)
        if not self.level > 0:
            raise InputError("saturation level must be positive", got=self.level, expected="> 0")

    def __call__(self, x: Tensor) -> Tensor:
        """``(batch, *domain.shape)`` to ``(batch, *range.shape)``."""
        return self.level * torch.tanh(self.linear(x) / self.level)


@dataclass(frozen=True)
class Lognormal(_Around):
    """``y = A exp(log_mean + log_std x)``: a positive field, Gaussian in its logarithm.

    Args:
        linear: ``A``, real.
        log_mean: mean of the logarithm of the field.
        log_std: standard deviation of that logarithm where ``x`` has unit variance.

    Raises:
        DTypeError: a complex operator.
        InputError: ``log_std`` not positive.
    """

    log_mean: float = 0.0
    log_std: float = 1.0

    def __post_init__(self) -> None:
        _check_real(self)
        if not self.log_std > 0:
            raise InputError("log_std must be positive", got=self.log_std, expected="> 0")

    def __call__(self, x: Tensor) -> Tensor:
        """``(batch, *domain.shape)`` to ``(batch, *range.shape)``."""
        return self.linear(torch.exp(self.log_mean + self.log_std * x))


@dataclass(frozen=True)
class Magnitude(_Around):
    """``y = |A x|``, differentiable but at ``A x = 0``, where torch's derivative is zero.

    Args:
        linear: ``A``, with complex data.

    Raises:
        DTypeError: an operator with real data.
    """

    def __post_init__(self) -> None:
        if not self.linear.range.is_complex:
            raise DTypeError(
                "Magnitude needs complex data",
                got=self.linear.range.dtype,
                expected="a linear operator with a complex range",
            )

    @property
    def range(self) -> Grid:
        """That of the linear operator, real."""
        grid = self.linear.range
        return grid.with_dtype(grid.real_dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """``(batch, *domain.shape)`` to ``(batch, *range.shape)``."""
        return self.linear(x).abs()


@dataclass(frozen=True)
class BlackBox:
    """Any callable as an operator, evaluated without gradients.

    A gradient asked of its data is refused by torch: they carry no graph.

    Args:
        function: ``(batch, *domain.shape)`` to ``(batch, *range.shape)``, members independent.
        domain: grid of the fields.
        range: grid of the data.
    """

    function: Callable[[Tensor], Tensor]
    domain: Grid
    range: Grid
    is_differentiable: bool = field(default=False, init=False, repr=False)

    @property
    def n_data(self) -> int:
        """All of the range."""
        return self.range.size

    def __call__(self, x: Tensor) -> Tensor:
        """Data of the function.

        Raises:
            ShapeError: a field off the domain, or data off the range.
            DTypeError: one of them real where its grid is complex, or the reverse.
        """
        self.domain.check(x, name="field")
        with torch.no_grad():
            y = self.function(x.detach())
        self.range.check(y, name="data of the black box")
        return y
