"""What every verb is given, checked: a problem, or data, operator and prior; and a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from invdiff.completion import completed
from invdiff.errors import InputError, UnsupportedError
from invdiff.grid import check_dataarray, check_finite
from invdiff.posterior import check_prior
from invdiff.protocols import Prior, Problem

__all__ = ["as_device", "check_call", "check_problem", "moved"]

T = TypeVar("T")


def check_problem(problem: Problem, operator: object, prior: Prior | None, *, verb: str) -> None:
    """Refuse an invalid problem, an operator beside it, or an object that is not a prior.

    Args:
        problem: what a verb was given first.
        operator: what it was given second; a problem has its own.
        prior: what it was given third, or None.
        verb: its name, for the message.

    Raises:
        InputError: data that are not a tensor, or an operator beside that of the problem.
        ShapeError, NonFiniteError, UnsupportedError: data, operator or prior that cannot be used.
    """
    completed(problem.operator)  # refuses what is not an operator
    if not isinstance(problem.data, Tensor):
        raise InputError(
            "the data of a Problem are not a tensor",
            got=type(problem.data).__name__,
            expected=f"a torch.Tensor of shape {problem.operator.range.shape}",
            hint="Convert an array with torch.from_numpy, a DataArray with"
            " operator.range.to_tensor.",
        )
    problem.operator.range.check(problem.data[None], name="data")
    check_finite(problem.data, "data")
    if operator is not None:
        raise InputError(
            "a Problem has its own operator",
            got=repr(operator),
            expected=f"{verb}(problem, prior=prior, ...)",
            hint="Pass the prior by name, and leave the operator out.",
        )
    if prior is not None:
        check_prior(prior)


def check_call(y: object, operator: Any, prior: Prior | None, *, verb: str) -> Any:
    """The operator of labelled data, once data, operator and prior are known to be such.

    Args:
        y: what a verb was given first.
        operator: what it was given second.
        prior: what it was given third, or None.
        verb: its name, for the message.

    Raises:
        InputError: no operator, or data that are not a DataArray.
        UnsupportedError: an operator or a prior that is none, or both in the wrong order.
    """
    call = f"{verb}(y, operator, prior, ...)"
    check_dataarray(y, "the data y")
    if operator is None:
        raise InputError("the operator is missing", got="None", expected=call)
    if not hasattr(operator, "range") and hasattr(operator, "moments"):
        raise UnsupportedError(
            "the second argument is a prior, not an operator", got=repr(operator), expected=call
        )
    completed(operator)  # refuses what is not an operator
    if prior is not None:
        check_prior(prior)
    return operator


def as_device(device: str | torch.device) -> torch.device:
    """A device that this machine has.

    Raises:
        InputError: another name, or a device that is not available.
    """
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen).cpu()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        names = ["cpu"]
        names += ["cuda"] if torch.cuda.is_available() else []
        names += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(
            "the device is not available",
            got=repr(device),
            expected=f"one of {names}",
            hint="Leave device out to compute on the CPU.",
        ) from error
    return chosen


def moved(thing: T, device: torch.device) -> T:
    """A prior or an operator on a device, where it can be moved; itself where it cannot."""
    move: Callable[[Any], T] | None = getattr(thing, "to", None)
    return thing if move is None else move(device)
