"""Checks of arguments that the step models share."""

from __future__ import annotations

import math

from invdiff.arguments import as_number
from invdiff.errors import InputError
from invdiff.operators.atmosphere.sphere import SphericalHarmonics
from invdiff.operators.inputs import describe

__all__ = ["as_damping_time", "as_rate", "check_harmonics"]


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


def as_damping_time(value: object) -> float:
    """A damping time as a positive Python float, which may be infinite.

    Args:
        value: what the caller passed.

    Raises:
        InputError: it is not a positive number.
    """
    return math.inf if value == math.inf else as_number("damping_time", value)


def check_harmonics(harmonics: object) -> None:
    """Refuse what is not a transform.

    Args:
        harmonics: what the caller passed.

    Raises:
        InputError: anything but `SphericalHarmonics`.
    """
    if not isinstance(harmonics, SphericalHarmonics):
        raise InputError(
            "harmonics is not a transform",
            got=describe(harmonics),
            expected="SphericalHarmonics",
            hint="Such as SphericalHarmonics(32), of 32 latitudes.",
        )
