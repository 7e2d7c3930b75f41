"""Distance against network passes: one point a method, one panel a family of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plot", "points"]

Row = Mapping[str, object]
PANELS = {
    "mixture8 ": "8 x 8 mixtures, noise 0.1",
    "gaussian8 ": "8 x 8 Gaussian fields",
    "levy32 ": "Laplace increments, 32 points",
}
LARGEST = 10.0  # methods beyond stand at the edge, with their number
COLOURS = {"default": "#d62728", "invdiff": "#1f77b4", "deepinv": "#2ca02c", "azula": "#9467bd"}


def points(rows: Sequence[Row], family: str) -> dict[str, tuple[float, float]]:
    """Geometric means over the cases of a family: passes and distance over floor, by method."""
    chosen = [r for r in rows if str(r["case"]).startswith(family) and "sw2_over_floor" in r]
    chosen = [
        r for r in chosen if r["method"] != "exact draws" and "(network)" not in str(r["method"])
    ]
    if family == "mixture8 ":
        chosen = [r for r in chosen if " 0.1 " in str(r["case"])]
    cases = {r["case"] for r in chosen}
    out = {}
    # What a peer was tuned to differs from case to case.
    names = [
        str(r["method"]).split("tuned:")[0] + "tuned" * ("tuned:" in str(r["method"]))
        for r in chosen
    ]
    for name in dict.fromkeys(names):
        own = [r for r, n in zip(chosen, names, strict=True) if n == name]
        if name.endswith("tuned") or len(own) == len(cases):
            logs = [np.log([float(str(r[k])) for r in own]) for k in ("passes", "sw2_over_floor")]
            out[name] = (float(np.exp(logs[0].mean())), float(np.exp(logs[1].mean())))
    return out


def kind(name: str) -> str:
    return "default" if name == "invdiff default" else name.split()[0]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write the figure, of the families that have rows."""
    from matplotlib.figure import Figure

    panels = {title: points(rows, family) for family, title in PANELS.items()}
    panels = {title: found for title, found in panels.items() if found}
    if not panels:
        return  # none of these families has been run
    figure = Figure(figsize=(8 * len(panels), 8), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, found) in zip(grid, panels.items(), strict=True):
        _panel(axes, title, found)
    figure.savefig(path, dpi=130)


def _panel(axes: Any, title: str, found: Mapping[str, tuple[float, float]]) -> None:
    axes.axhline(1, color="0.5", lw=1, ls="--")
    axes.text(
        0.99,
        1.01,
        "exact draws",
        ha="right",
        color="0.4",
        fontsize=7,
        transform=axes.get_yaxis_transform(),
    )
    for name, (passes, distance) in found.items():
        first, colour = kind(name) == "default", COLOURS[kind(name)]
        beyond = distance > LARGEST
        label = name if first else name.split(" ", 1)[1]
        place = (passes, min(distance, LARGEST))
        axes.plot(
            *place,
            marker="*" if first else "^" if beyond else "o",
            color=colour,
            ms=16 if first else 5,
            zorder=3 if first else 2,
        )
        axes.annotate(
            f"{label}: {distance:.3g}" if beyond else label,
            place,
            xytext=(5, 2),
            textcoords="offset points",
            fontsize=6.5,
            color=colour,
        )
    axes.set(xscale="log", yscale="log", title=title)
    axes.set(xlabel="network passes a member (a vjp counts 2)")
    axes.set(ylabel="sliced W2 over that of exact draws", ylim=(0.7, 1.1 * LARGEST))
    axes.set_xlim(axes.get_xlim()[0], 2.5 * axes.get_xlim()[1])  # room for the labels
    ticks = [1, 1.5, 2, 3, 5, 10]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.grid(True, which="major", color="0.92")
    handles = [axes.plot([], [], "o", color=colour)[0] for colour in COLOURS.values()]
    axes.legend(handles, ["invdiff default", *list(COLOURS)[1:]], fontsize=8)
