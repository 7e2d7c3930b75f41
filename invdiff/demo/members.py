"""What every demonstration asks of its ensemble."""

from __future__ import annotations

from invdiff.errors import InputError

__all__ = ["check_members"]


def check_members(realizations: int) -> None:
    """Refuse ensembles without a spread.

    Raises:
        InputError: fewer than two members.
    """
    if realizations < 2:
        raise InputError(
            "too few members for a spread",
            got=f"realizations={realizations}",
            expected="at least 2",
            hint="The demonstration judges error bars; leave -n out for enough of them.",
        )
