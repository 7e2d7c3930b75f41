"""What each demonstration checks before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invdiff.errors import InputError
from invdiff.io.result import check_folder, check_output

__all__ = ["check_members", "check_stores"]


def check_members(realizations: int) -> None:
    """Refuse ensembles that have no spread.

    Raises:
        InputError: There are fewer than two members.
    """
    if realizations < 2:
        raise InputError(
            "too few members for a spread",
            got=f"realizations={realizations}",
            expected="at least 2",
            hint="The demonstration evaluates error bars; leave out -n for the default number.",
        )


def check_stores(stores: Sequence[Path], *, overwrite: bool) -> None:
    """Check that the stores, all in one folder, can be written, and the folder made if missing.

    Raises:
        OutputExistsError: A store exists and ``overwrite`` is False, or the folder is a file.
        InputError: The folder cannot be written to, or cannot be made.
    """
    folder = stores[0].parent
    if not folder.is_dir():
        check_folder(folder)
        return
    for store in stores:
        check_output(store, overwrite=overwrite)
