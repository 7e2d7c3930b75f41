"""What the commands share: options, and errors without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from invdiff.errors import InputError, InvdiffError

__all__ = ["Overwrite", "Realizations", "Seed", "check_realizations", "errors_to_exit_code"]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Realizations = Annotated[int, typer.Option("-n", "--realizations", help="Members to draw.")]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]


def check_realizations(realizations: int, enough: int) -> None:
    """Refuse empty ensembles.

    Raises:
        InputError: none to draw.
    """
    if realizations < 1:
        raise InputError(
            "nothing to draw",
            got=f"-n {realizations}",
            expected="at least 1",
            hint=f"Ask for some; {enough} give a usable standard deviation.",
        )


@contextmanager
def errors_to_exit_code() -> Iterator[None]:
    """Print errors raised on purpose without a traceback, and exit with 1."""
    try:
        yield
    except InvdiffError as error:
        typer.echo(f"invdiff: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
