"""Checks of plain arguments that many constructors and verbs share."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from pathlib import Path

from invdiff.errors import InputError

__all__ = ["as_integer", "as_integers", "as_number", "as_path", "as_share"]


def as_integer(name: str, value: object, *, least: int | None = None) -> int:
    """``value`` as a Python int, exactly.

    Integers of numpy and torch are accepted. Booleans and floating-point numbers are not, even if
    they are whole, because ``seed=1.5`` must not become 1.

    Args:
        name: Name of the argument, for the message.
        value: Value that the caller passed.
        least: Smallest value that is allowed; None for any.

    Raises:
        InputError: The value is not an integer, or is smaller than ``least``.

    >>> import numpy as np
    >>> as_integer("seed", np.int64(3))
    3
    """
    try:
        if _is_flag(value):
            raise TypeError
        whole = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(
            f"{name} is not an integer",
            got=repr(value),
            expected="an integer" + ("" if least is None else f" >= {least}"),
            hint="Write it without a decimal point, or convert it with int().",
        ) from None
    if least is not None and whole < least:
        raise InputError(
            f"{name} is too small",
            got=whole,
            expected=f"an integer >= {least}",
            hint=f"Use {least} or more, or omit it for the default.",
        )
    return whole


def as_integers(name: str, values: Sequence[object], *, least: int | None = None) -> list[int]:
    """Each of the values as a Python int, by :func:`as_integer`."""
    return [as_integer(name, value, least=least) for value in values]


def as_number(name: str, value: object, *, above: float = 0.0) -> float:
    """``value`` as a finite Python float larger than ``above``.

    Args:
        name: Name of the argument, for the message.
        value: Value that the caller passed.
        above: Bound that the value must exceed.

    Raises:
        InputError: The value is not a real number, not finite, or not larger than ``above``.

    >>> import numpy as np
    >>> as_number("scale", np.float32(0.5))
    0.5
    """
    number = _real(value)
    if not above < number < math.inf:
        raise InputError(
            f"{name} is out of range",
            got=repr(value),
            expected=f"a finite number > {above:g}",
            hint="Check its sign and units, or omit it for the default.",
        )
    return number


def as_share(name: str, value: object) -> float:
    """``value`` as a Python float from 0 to 1.

    Args:
        name: Name of the argument, for the message.
        value: Value that the caller passed.

    Raises:
        InputError: The value is not a real number, or lies outside [0, 1].

    >>> as_share("threshold", 1)
    1.0
    """
    share = _real(value)
    if not 0 <= share <= 1:
        raise InputError(
            f"{name} is out of range",
            got=repr(value),
            expected="a number from 0 to 1",
            hint="It is a share; omit it for the default.",
        )
    return share


def as_path(name: str, value: object) -> Path:
    """``value`` as a path.

    Args:
        name: Name of the argument, for the message.
        value: Value that the caller passed.

    Raises:
        InputError: The value is neither text nor a path.

    >>> as_path("checkpoint", "run.safetensors").suffix
    '.safetensors'
    """
    if not isinstance(value, str | Path):
        raise InputError(
            f"{name} is not a path", got=repr(value), expected="text or a pathlib.Path"
        )
    return Path(value)


def _is_flag(value: object) -> bool:
    """Whether a value is a boolean of Python, numpy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _real(value: object) -> float:
    """A real number as a float; NaN for anything else."""
    if isinstance(value, str) or _is_flag(value):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
