"""The words of the command line's messages. No tests in here."""

from __future__ import annotations

import re

import typer

from invdiff.cli import app

__all__ = ["assert_in_options"]


def assert_in_options(message: str, command: str) -> None:
    """A message of a command does not name the arguments of Python that its options stand for."""
    context = typer.Context(typer.main.get_command(app))
    parameters = context.command.commands[command].params  # type: ignore[attr-defined]
    for name in [parameter.name for parameter in parameters]:
        assert not re.search(rf"(?<![\w-]){name}=", message), (name, message)
        # ``noise_std`` is an attribute and an array of files, too.
        if "_" in name and name != "noise_std":
            assert not re.search(rf"(?<![\w-]){name}\b", message), (name, message)
    assert "`" not in message, message
