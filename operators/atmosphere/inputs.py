"""Checks of arguments that the step models share."""

from __future__ import annotations

import math

from invdiff.arguments import as_number
from invdiff.errors import InputError

__all__ = ["as_rate"]


def as_rate(name: str, value: object) -> float:
    """``value`` as a finite Python float that is zero or positive.

    Args:
        name: of the argument, for the message.
        value: what the caller passed.

    Raises:
        InputError: it is not a real number, not finite, or negative.

    Examples:
        >>> from invdiff.operators.atmosphere.inputs import as_rate
        >>> as_rate("drag", 0)
        0.0
    """
    number = as_number(name, value, above=-math.inf)
    if number < 0:
        raise InputError(
            f"{name} is negative", got=number, expected="zero or more", hint="Check its sign."
        )
    return number
