"""What the commands share: options, defaults, and messages in the words of the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from invdiff.errors import CalibrationWarning, DataFitWarning, DataWarning, InvdiffError

if TYPE_CHECKING:  # the command line starts without it
    import xarray as xr

__all__ = ["Checkpoint", "Overwrite", "Seed", "given", "messages", "report"]

Checkpoint = Annotated[
    Path | None, typer.Option(help="File to store the run in, and to resume it from.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.")]

_OWN_WARNINGS = (CalibrationWarning, DataFitWarning, DataWarning)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given; the others keep the defaults of the function they go to."""
    return {name: value for name, value in options.items() if value is not None}


def report(out: Path, result: xr.Dataset) -> None:
    """One line on what was written, and whether it explains its data."""
    n = result.sizes["realization"]
    misfit = float(result["data_misfit"].mean())
    typer.echo(f"{out}: {n} members, data misfit {misfit:.2f} (1 is expected)")


@contextmanager
def messages(context: typer.Context) -> Iterator[None]:
    """Errors and warnings on standard error, without a traceback; an error exits with 1.

    Args:
        context: of the command at hand, whose options take the place of Python's arguments.
    """
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, _OWN_WARNINGS):
            tell(category, message)
        else:
            others(message, category, filename, lineno, file, line)

    def tell(kind: type, message: object) -> None:
        typer.echo(f"invdiff: {kind.__name__}: {_in_options(str(message), context)}", err=True)

    with warnings.catch_warnings():
        for category in _OWN_WARNINGS:
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        try:
            yield
        except InvdiffError as error:
            tell(type(error), error)
            raise typer.Exit(1) from error


def _in_options(message: str, context: typer.Context) -> str:
    """A message with the options of a command in place of the arguments of Python."""
    for option in context.command.params:
        name, spelled = option.name or "", max(option.opts, key=len, default="")
        if not spelled.startswith("--"):
            continue
        message = re.sub(rf"\b{name}=\.\.\.", spelled, message)
        message = re.sub(rf"\b{name}=(?=\S)", f"{spelled} ", message)
        message = re.sub(rf"({spelled}) \(([^(),]+), ([^(),]+)\)", r"\1 \2 \3", message)
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            message = re.sub(rf"^{name}\b(?= is )", spelled, message)
        if "_" in name and name != "noise_std":  # which is an attribute and an array of files too
            message = re.sub(rf"(?<![\w-]){name}\b", spelled, message)
    return message.replace("y.attrs['noise_std']", "an attribute noise_std of the data in the file")
