"""Figures of the results of :mod:`invdiff.calibration`."""

from __future__ import annotations

import textwrap

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "calibration_figure",
    "coverage_curve",
    "ecdf_difference",
    "rank_histogram",
    "spread_skill",
    "tarp_curve",
]

LINE, BAND, IDEAL = "C3", "C0", "0.6"


def calibration_figure(table: xr.Dataset, title: str) -> Figure:
    """Draw coverage curve, rank histogram, and spread against skill, side by side.

    Args:
        table: The table of an :class:`invdiff.calibration.Report`.
        title: The text above the panels, which is broken into lines.

    Returns:
        The figure, which no window shows; see :func:`invdiff.plot.save_figure`.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    coverage_curve(table.rename(coverage_lower="lower", coverage_upper="upper"), axes[0])
    ranks = {"rank_share": "share", "rank_lower": "lower", "rank_upper": "upper"}
    rank_histogram(table.rename(ranks), axes[1])
    spread_skill(table, axes[2])
    figure.suptitle(textwrap.fill(title, 115), fontsize=10, x=0.01, ha="left")
    return figure


def coverage_curve(curve: xr.DataArray | xr.Dataset, axis: Axes) -> None:
    """Draw coverage against nominal level, with the diagonal of a calibrated ensemble.

    Args:
        curve: The result of :func:`invdiff.calibration.coverage`, or, with a band, the Dataset of
            :func:`~invdiff.calibration.coverage_curve` or
            :func:`~invdiff.calibration.hpd_coverage`.
        axis: The axes to draw into.
    """
    axis.plot([0, 1], [0, 1], color=IDEAL, linewidth=1)
    share = curve
    if isinstance(curve, xr.Dataset):
        share = curve["coverage"]
        axis.vlines(curve["level"], curve["lower"], curve["upper"], color=LINE, linewidth=1.5)
        axis.fill_between(curve["level"], curve["lower"], curve["upper"], color=LINE, alpha=0.15)
    axis.plot(curve["level"], share, marker="o", color=LINE)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal", ylabel="share inside")
    axis.set_aspect("equal")
    axis.set_title("coverage of intervals", fontsize=10)


def rank_histogram(histogram: xr.Dataset, axis: Axes) -> None:
    """Draw shares of truths by normalised rank, with the band of a calibrated ensemble.

    Args:
        histogram: The result of :func:`invdiff.calibration.rank_histogram`: ``share(bin)``,
            ``lower(bin)``, ``upper(bin)``.
        axis: The axes to draw into.
    """
    n = histogram.sizes["bin"]
    edges = np.linspace(0, 1, n + 1)
    axis.stairs(histogram["share"], edges, fill=True, color=LINE, alpha=0.6)
    lower, upper = (np.append(histogram[name], np.nan) for name in ("lower", "upper"))
    lower[-1], upper[-1] = lower[-2], upper[-2]
    axis.fill_between(edges, lower, upper, color=BAND, alpha=0.25, step="post", label="expected")
    axis.axhline(1 / n, color=IDEAL, linewidth=1)
    axis.set(xlim=(0, 1), xlabel="rank of the truth / number of members", ylabel="share")
    axis.legend(fontsize=8, loc="lower center")
    axis.set_title("rank histogram", fontsize=10)


def ecdf_difference(curve: xr.Dataset, axis: Axes) -> None:
    """Draw the empirical minus the uniform distribution function, with its simultaneous band.

    Args:
        curve: The result of :func:`invdiff.calibration.pit_ecdf`, or of
            :func:`~invdiff.calibration.sbc` with one line for each ``statistic``:
            ``ecdf(point)``, ``lower(point)``, ``upper(point)``.
        axis: The axes to draw into.
    """
    point = curve["point"]
    lower, upper = curve["lower"] - point, curve["upper"] - point
    axis.fill_between(point, lower, upper, color=BAND, alpha=0.25, step="mid", label="expected")
    axis.axhline(0, color=IDEAL, linewidth=1)
    if "statistic" in curve.dims:
        for name in curve["statistic"].values:
            axis.plot(point, curve["ecdf"].sel(statistic=name) - point, label=str(name))
    else:
        axis.plot(point, curve["ecdf"] - point, color=LINE)
    axis.set(xlim=(0, 1), xlabel="PIT", ylabel="ECDF - uniform")
    axis.legend(fontsize=8)
    axis.set_title("distribution of PIT values", fontsize=10)


def tarp_curve(curve: xr.Dataset, axis: Axes) -> None:
    """Draw the expected coverage of random balls against credibility, with its simultaneous band.

    Args:
        curve: The result of :func:`invdiff.calibration.tarp`.
        axis: The axes to draw into.
    """
    axis.plot([0, 1], [0, 1], color=IDEAL, linewidth=1)
    axis.fill_between(
        curve["level"], curve["lower"], curve["upper"], color=BAND, alpha=0.25, label="expected"
    )
    axis.plot(curve["level"], curve["ecp"], color=LINE)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="credibility", ylabel="expected coverage")
    axis.set_aspect("equal")
    axis.legend(fontsize=8)
    axis.set_title("TARP", fontsize=10)


def spread_skill(curve: xr.Dataset, axis: Axes) -> None:
    """Draw the error of the ensemble mean against spread, bin by bin, with the diagonal.

    Args:
        curve: The result of :func:`invdiff.calibration.spread_skill_curve`: ``spread`` and
            ``skill`` by bin.
        axis: The axes to draw into.
    """
    top = 1.08 * float(max(curve["spread"].max(), curve["skill"].max()))
    axis.plot([0, top], [0, top], color=IDEAL, linewidth=1)
    axis.plot(curve["spread"], curve["skill"], marker="o", color=LINE)
    units = curve["spread"].attrs.get("units", "1")
    unit = "" if units == "1" else f" ({units})"
    axis.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axis.set(xlabel=f"spread{unit}", ylabel=f"error of the mean{unit}")
    axis.set_title("spread and skill", fontsize=10)
