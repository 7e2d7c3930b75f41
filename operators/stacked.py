"""Several linear operators that see one field, as one operator."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid
from invdiff.operators.base import Linear, as_linear
from invdiff.protocols import Operator

__all__ = ["Stacked"]


class Stacked(Linear):
    """Several operators that see one field: ``x -> (A_1 x, A_2 x, ...)``, flattened and joined.

    ``A^H y = sum_i A_i^H y_i`` and ``A^H A = sum_i A_i^H A_i``, so spectra add where all know
    theirs. Its data are one vector, with one noise level for all of it: where the operators'
    data have different noise, scale each operator and its data by the inverse of its own, or give
    the posterior one likelihood for each.

    Args:
        *operators: ``A_1, A_2, ...`` on domains of one shape and dtype.

    Raises:
        InputError: no operators, or something else among them.
        UnsupportedError: an operator that is not linear by declaration.
        ShapeError: domains of different shape.
        DTypeError: domains or ranges of different dtype.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity, Mask, Stacked
        >>> grid = Grid(("x",), (3,))
        >>> both = Stacked(Mask(grid, [1, 0, 1]), Identity(grid))
        >>> both(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 0., 3., 1., 2., 3.]])
        >>> both.n_data
        5
    """

    def __init__(self, *operators: Operator) -> None:
        if not operators:
            raise InputError("nothing to stack", got="no operators", expected="one or more")
        self.operators = tuple(as_linear(operator) for operator in operators)
        first = self.operators[0]
        for operator in self.operators[1:]:
            if operator.domain.shape != first.domain.shape:
                raise ShapeError(
                    "stacked operators have different domains",
                    got=operator.domain.shape,
                    expected=first.domain.shape,
                )
            dtypes = operator.domain.dtype, operator.range.dtype
            if dtypes != (first.domain.dtype, first.range.dtype):
                raise DTypeError(
                    "stacked operators have different dtypes",
                    got=dtypes,
                    expected=(first.domain.dtype, first.range.dtype),
                )
        n_values = sum(operator.range.size for operator in self.operators)
        super().__init__(first.domain, Grid(("data",), (n_values,), first.range.dtype))

    def split(self, y: Tensor) -> list[Tensor]:
        """Data ``(batch, n)`` cut into those of each operator, ``(batch, *its.range.shape)``."""
        parts = y.split([operator.range.size for operator in self.operators], dim=1)
        return [p.reshape(-1, *o.range.shape) for p, o in zip(parts, self.operators, strict=True)]

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([operator(x).flatten(1) for operator in self.operators], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = zip(self.operators, self.split(y), strict=True)
        return torch.stack([operator.adjoint(part) for operator, part in parts]).sum(0)

    def gram(self, x: Tensor) -> Tensor:
        """``sum_i A_i^H A_i x``, with the operators' own grams: ``(batch, *domain.shape)``."""
        return torch.stack([operator.gram(x) for operator in self.operators]).sum(0)

    @property
    def n_data(self) -> int:
        """Number of measured values, summed over the operators."""
        return sum(operator.n_data for operator in self.operators)

    @property
    def measured(self) -> Tensor | None:
        """Booleans ``(n,)``: the operators' masks, flattened and joined; None for all."""
        masks = [operator.measured for operator in self.operators]
        device = next((mask.device for mask in masks if mask is not None), None)
        if device is None:
            return None
        ranges = [operator.range for operator in self.operators]
        full = [torch.ones(grid.shape, dtype=torch.bool, device=device) for grid in ranges]
        pairs = zip(masks, full, strict=True)
        return torch.cat([(all_ if mask is None else mask).flatten() for mask, all_ in pairs])

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Sum of the operators' spectra ``(*domain.shape)`` where all know theirs, else None."""
        spectra = [operator.gram_spectrum for operator in self.operators]
        known = [spectrum for spectrum in spectra if spectrum is not None]
        return torch.stack(known).sum(0) if len(known) == len(spectra) else None

    @property
    def is_circulant(self) -> bool:
        """Whether ``A_i^H A_i`` is diagonal in the DFT for all operators."""
        return all(operator.is_circulant for operator in self.operators)

    def __repr__(self) -> str:
        return f"Stacked({', '.join(map(repr, self.operators))})"
