"""Operators completed by defaults for their optional parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.protocols import CompleteOperator, LinearOperator, Operator

__all__ = ["completed", "declares_linear", "rescaled"]

_PARTS = ("is_linear", "is_differentiable", "n_data", "measured")
_LINEAR_PARTS = ("adjoint", "gram", "gram_spectrum", "is_circulant")


def declares_linear(operator: Operator) -> bool:
    """Whether an operator declares that it is linear: by ``is_linear``, or by having an adjoint."""
    declared = getattr(operator, "is_linear", None)
    return hasattr(operator, "adjoint") if declared is None else bool(declared)


def completed(operator: Operator) -> CompleteOperator:
    """The operator with its optional parts filled in, or itself where nothing is missing.

    Args:
        operator: Object with ``domain``, ``range`` and a call; see `invdiff.protocols.Operator`.

    Raises:
        InputError: The object is not an operator; the message names what is expected.
    """
    missing = [name for name in ("domain", "range") if not hasattr(operator, name)]
    if isinstance(operator, type) or missing or not callable(operator):
        raise InputError(
            "this is not a forward operator",
            got=repr(operator),
            expected="an object with `domain` and `range` (Grids) that maps fields to data when"
            " called",
            hint="Pass an instance such as CartesianMRI(mask); the order of arguments is data,"
            " operator, prior.",
        )
    parts = _PARTS + (_LINEAR_PARTS if declares_linear(operator) else ())
    if all(_has(operator, part) for part in parts):
        return cast(CompleteOperator, operator)
    return cast(CompleteOperator, _Completed(operator))


def _has(operator: Operator, part: str) -> bool:
    """Whether there is such a member, without computing it: a spectrum may be expensive."""
    try:
        inspect.getattr_static(operator, part)
    except AttributeError:
        return False
    return True


class _Completed:
    """An operator with defaults for the optional parts that it lacks."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.domain, self.range = operator.domain, operator.range
        self.is_linear = declares_linear(operator)
        self.is_differentiable = bool(getattr(operator, "is_differentiable", True))

    def __call__(self, x: Tensor) -> Tensor:
        return self._operator(x)

    def __repr__(self) -> str:
        return repr(self._operator)

    @property
    def settings(self) -> Mapping[str, object]:
        """The operator itself, which identifies the completed one."""
        return {"operator": self._operator}

    @property
    def measured(self) -> Tensor | None:
        return getattr(self._operator, "measured", None)

    @property
    def n_data(self) -> int:
        if hasattr(self._operator, "n_data"):
            return int(self._operator.n_data)
        return self.range.size if self.measured is None else int(self.measured.sum())

    def adjoint(self, y: Tensor) -> Tensor:
        """The operator's own adjoint, or else the vector-Jacobian product, which equals it."""
        if isinstance(self._operator, LinearOperator):
            return self._operator.adjoint(y)
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(len(y), *self.domain.shape, dtype=self.domain.dtype, device=y.device)
            x.requires_grad_()
            (pulled,) = torch.autograd.grad(self._operator(x), x, y.clone())
        return pulled

    def gram(self, x: Tensor) -> Tensor:
        own = getattr(self._operator, "gram", None)
        return self.adjoint(self(x)) if own is None else cast(Tensor, own(x))

    @property
    def gram_spectrum(self) -> Tensor | None:
        return getattr(self._operator, "gram_spectrum", None)

    @property
    def is_circulant(self) -> bool:
        return bool(getattr(self._operator, "is_circulant", False))

    def to(self, device: torch.device | str) -> _Completed:
        """A copy whose operator is on another device, if the operator can be moved."""
        move: Any = getattr(self._operator, "to", None)
        return self if move is None else type(self)(move(device))


class _Rescaled(_Completed):
    """The operator ``factor A``, for a noise law that is stated in the units of the data."""

    def __init__(self, operator: Operator, factor: float) -> None:
        super().__init__(completed(operator))
        self.factor = factor

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * super().__call__(x)

    def __repr__(self) -> str:
        return f"{self.factor:g} * {self._operator!r}"

    @property
    def settings(self) -> Mapping[str, object]:
        return {"operator": self._operator, "factor": self.factor}

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor * super().adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        return self.factor**2 * super().gram(x)

    @property
    def gram_spectrum(self) -> Tensor | None:
        spectrum = super().gram_spectrum
        return None if spectrum is None else self.factor**2 * spectrum

    def to(self, device: torch.device | str) -> _Completed:
        """A copy whose operator is on another device, if the operator can be moved."""
        return _Rescaled(super().to(device)._operator, self.factor)


def rescaled(operator: Operator, factor: float) -> CompleteOperator:
    """The operator ``factor A``; the operator itself where the factor is one.

    Args:
        operator: Any forward operator.
        factor: Positive factor.
    """
    complete = completed(operator)
    return complete if factor == 1 else cast(CompleteOperator, _Rescaled(complete, factor))
