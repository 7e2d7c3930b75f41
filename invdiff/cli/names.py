"""``invdiff names``: what can be named."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

__all__ = ["names"]


def names() -> None:
    """List the priors and operators that can be named."""
    for group in ("invdiff.priors", "invdiff.operators"):
        found = sorted(entry.name for entry in entry_points(group=group))
        typer.echo(f"{group.removeprefix('invdiff.')}: {', '.join(found)}")
