"""Command line: thin wrappers over the library's verbs."""

from __future__ import annotations

import typer

from invdiff.cli.demo import demo
from invdiff.cli.invert import invert
from invdiff.cli.names import names
from invdiff.cli.reconstruct import reconstruct

__all__ = ["app"]

app = typer.Typer(
    help="Calibrated posterior ensembles for inverse problems.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, reconstruct, invert, names):
    app.command()(command)
