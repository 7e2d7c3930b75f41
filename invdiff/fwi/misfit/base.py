"""The interface of misfits: from predicted and observed traces to one value per shot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError

__all__ = ["Misfit", "check_positive", "check_traces"]


@runtime_checkable
class Misfit(Protocol):
    """A distance between traces: zero where they agree, differentiable, deterministic.

    Examples:
        An own misfit, the sum of absolute differences:

        >>> import torch
        >>> from invdiff.fwi.misfit import Misfit
        >>> class L1(Misfit):
        ...     def __call__(self, predicted, observed):
        ...         return (predicted - observed).abs().sum((-2, -1))
        >>> L1()(torch.ones(2, 3, 4), torch.zeros(2, 3, 4))  # 2 shots, 3 receivers, 4 samples
        tensor([12., 12.])
    """

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, summed over its receivers.

        Args:
            predicted: Predicted traces, real, ``(..., receiver, time)``; the misfit is
                differentiated with respect to them.
            observed: Observed traces of the same dtype and units; leading dims may broadcast.

        Returns:
            One value per shot, ``(...)``.

        Raises:
            ShapeError: Receivers or samples do not match.
            DTypeError: Values are complex or integer, or of two dtypes.
        """
        ...

    def shots(self, indices: Sequence[int]) -> Self:
        """The misfit of some of the shots.

        Args:
            indices: Indices of the shots.

        Returns:
            The misfit itself where nothing in it depends on the shot.
        """
        return self


def check_traces(predicted: Tensor, observed: Tensor) -> None:
    """Check that predicted and observed are traces of the same shape and dtype.

    Raises:
        ShapeError: Receivers or samples do not match, or leading dims do not broadcast.
        DTypeError: Values are complex or integer, or of two dtypes.
    """
    shapes = tuple(predicted.shape), tuple(observed.shape)
    leading = zip(reversed(shapes[0][:-2]), reversed(shapes[1][:-2]), strict=False)
    fits = all(a == b or b == 1 for a, b in leading) and len(shapes[1]) <= len(shapes[0])
    if min(map(len, shapes)) < 2 or shapes[0][-2:] != shapes[1][-2:] or not fits:
        raise ShapeError(
            "predicted and observed traces do not match",
            got=f"shapes {shapes[0]} and {shapes[1]}",
            expected="the same (..., receiver, time)",
            hint="Give both on the receivers and samples of the survey.",
        )
    if not predicted.is_floating_point() or predicted.dtype != observed.dtype:
        raise DTypeError(
            "the traces are not of one real floating dtype",
            got=f"{predicted.dtype} predicted, {observed.dtype} observed",
            expected="float32 or float64, the same for both",
            hint="Convert the observed traces to the dtype of the operator's range.",
        )


def check_positive(value: float, name: str) -> None:
    """Check that a number is finite and positive.

    Raises:
        InputError: It is not.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{name} is out of range", got=value, expected="finite, > 0")
