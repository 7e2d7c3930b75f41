"""Figures as files and bytes."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["png_bytes", "save_figure"]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file of 110 dots per inch.

    Args:
        figure: The figure.
        path: The file to write; it is replaced if it exists.
    """
    figure.savefig(path, dpi=110)


def png_bytes(figure: Figure) -> bytes:
    """The PNG of a figure in memory, as a notebook embeds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
