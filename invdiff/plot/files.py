"""Figures to files and bytes."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["png_bytes", "save_figure"]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=110)


def png_bytes(figure: Figure) -> bytes:
    """The PNG in memory, as a notebook embeds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
