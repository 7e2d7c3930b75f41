"""Magnitudes of complex data: what is left where the phase is not recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from invdiff.errors import DTypeError
from invdiff.grid import Grid
from invdiff.protocols import LinearOperator

__all__ = ["Magnitude"]


@dataclass(frozen=True)
class Magnitude:
    """``y = |A x|``, differentiable but at ``A x = 0``, where torch's derivative is zero.

    Cost: one product of ``A`` each way.

    Args:
        linear: ``A``, with complex data.

    Raises:
        DTypeError: an operator with real data.
    """

    linear: LinearOperator

    def __post_init__(self) -> None:
        if not self.linear.range.is_complex:
            raise DTypeError(
                "Magnitude needs complex data",
                got=self.linear.range.dtype,
                expected="a linear operator with a complex range",
            )

    @property
    def domain(self) -> Grid:
        """That of the linear operator."""
        return self.linear.domain

    @property
    def range(self) -> Grid:
        """That of the linear operator, real."""
        grid = self.linear.range
        return replace(grid, dtype=grid.real_dtype)

    @property
    def n_data(self) -> int:
        """As the linear operator."""
        return self.linear.n_data

    @property
    def measured(self) -> Tensor | None:
        """As the linear operator."""
        mask: Tensor | None = getattr(self.linear, "measured", None)
        return mask

    def __call__(self, x: Tensor) -> Tensor:
        """``(batch, *domain.shape)`` to ``(batch, *range.shape)``."""
        return self.linear(x).abs()
