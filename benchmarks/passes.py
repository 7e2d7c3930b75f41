"""Accuracy, coverage and misfit against network passes: one column for each way of sampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pareto import COLOURS

__all__ = ["means", "plot"]

Row = Mapping[str, object]
FIGURES = {
    "psnr": ("PSNR of the posterior mean (dB)", None),
    "coverage90": ("coverage of 90 % intervals", 0.9),
    "misfit": ("data misfit of the members", 1.0),
}
SLOW = 1000  # passes; methods beyond stand at the right edge
CURVE = "invdiff,"  # rows of the default sampler: "invdiff, 8 steps"


def means(rows: Sequence[Row], kind: str, figure: str) -> dict[str, tuple[float, float]]:
    """Passes and mean figure over the slices of one way of sampling, by method.

    A method that ran on fewer slices than others has their names added to its own; slices on which
    a single one ran are left out if there are others, so that all means are of the same images.

    Args:
        rows: of ``mri_simulated``; those without passes are left out.
        kind: of mask, the part of ``case`` after the slice.
        figure: key of the rows.
    """
    here = [r for r in rows if str(r["case"]).split(" ", 1)[1] == kind and "passes" in r]
    counts = Counter(str(r["case"]) for r in here)
    least = min(2, max(counts.values(), default=0))
    here = [r for r in here if counts[str(r["case"])] >= least]
    slices = {str(r["case"]).split()[0] for r in here}
    found = {}
    for method in dict.fromkeys(str(r["method"]) for r in here):
        own = [r for r in here if r["method"] == method and figure in r]
        if own:
            seen = [str(r["case"]).split()[0] for r in own]
            name = method if set(seen) == slices else f"{method} ({', '.join(seen)})"
            values = np.mean([[float(str(r[k])) for k in ("passes", figure)] for r in own], 0)
            found[name] = (float(values[0]), float(values[1]))
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write the figure, of the masks that have rows with passes."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(str(r["case"]).split(" ", 1)[1] for r in rows if "passes" in r))
    if not kinds:
        return
    figure = Figure(figsize=(4.5 * len(kinds), 9), layout="constrained")
    grid = figure.subplots(len(FIGURES), len(kinds), squeeze=False, sharex=True)
    for panels, (key, (label, ideal)) in zip(grid, FIGURES.items(), strict=True):
        for axes, kind in zip(panels, kinds, strict=True):
            if ideal is not None:
                axes.axhline(ideal, color="0.5", lw=1, ls="--")
            _panel(axes, means(rows, kind, key))
        panels[0].set_ylabel(label)
    for axes, kind in zip(grid[0], kinds, strict=True):
        axes.set_title(kind)
    for axes in grid[-1]:
        axes.set_xlabel("network passes per member (a vjp counts 2)")
    figure.savefig(path, dpi=130)


def _panel(axes: Any, found: Mapping[str, tuple[float, float]]) -> None:
    curve = sorted(place for name, place in found.items() if name.startswith(CURVE))
    if curve:
        axes.plot(*zip(*curve, strict=True), "o-", color=COLOURS["default"], zorder=3)
        _label(axes, "invdiff", curve[0], colour=COLOURS["default"], below=True)
    for name, place in found.items():
        if not name.startswith(CURVE):
            family, label = name.split(" ", 1)
            axes.plot(*place, "o", color=COLOURS[family])
            _label(axes, label, place, colour=COLOURS[family])
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.grid(True, which="major", color="0.92")


def _label(
    axes: Any, text: str, place: tuple[float, float], *, colour: str, below: bool = False
) -> None:
    """Next to a point: to its right, or to the left of the slowest methods."""
    is_slow = place[0] > SLOW
    axes.annotate(
        text,
        place,
        xytext=(-5 if is_slow else 5, -11 if below else 4),
        textcoords="offset points",
        ha="right" if is_slow else "left",
        fontsize=8,
        color=colour,
    )
