"""What a misfit is: predicted and observed traces to one value a shot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError

__all__ = ["Misfit", "check_positive", "check_traces"]


@runtime_checkable
class Misfit(Protocol):
    """A distance between traces: zero where they agree, differentiable, the same at each call."""

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """Misfit of each shot, summed over its receivers.

        Args:
            predicted: real, ``(..., receiver, time)``; differentiated with respect to.
            observed: real, of the same dtype; leading dims may broadcast.

        Returns:
            ``(...)``, one value a shot.

        Raises:
            ShapeError: receivers or samples that do not match.
            DTypeError: complex or integer values, or two dtypes.
        """
        ...

    def shots(self, indices: Sequence[int]) -> Self:
        """The misfit of some of the shots; itself where nothing in it depends on the shot."""
        return self


def check_traces(predicted: Tensor, observed: Tensor) -> None:
    """Predicted and observed are traces of one kind.

    Raises:
        ShapeError: receivers or samples that do not match, or leading dims that do not broadcast.
        DTypeError: complex or integer values, or two dtypes.
    """
    shapes = tuple(predicted.shape), tuple(observed.shape)
    leading = zip(reversed(shapes[0][:-2]), reversed(shapes[1][:-2]), strict=False)
    fits = all(a == b or b == 1 for a, b in leading) and len(shapes[1]) <= len(shapes[0])
    if min(map(len, shapes)) < 2 or shapes[0][-2:] != shapes[1][-2:] or not fits:
        raise ShapeError(
            "predicted and observed traces do not match",
            got=f"shapes {shapes[0]} and {shapes[1]}",
            expected="the same (..., receiver, time)",
            hint="Give both on the survey's receivers and samples.",
        )
    if not predicted.is_floating_point() or predicted.dtype != observed.dtype:
        raise DTypeError(
            "traces of the wrong kind",
            got=f"{predicted.dtype} predicted, {observed.dtype} observed",
            expected="one real floating dtype",
            hint="Convert the observed traces to the dtype of the operator's range.",
        )


def check_positive(value: float, name: str) -> None:
    """A finite number above zero.

    Raises:
        InputError: it is not.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{name} out of range", got=value, expected="finite, > 0")
