"""A figure of an inversion: models, uncertainty, traces, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from invdiff.plot.calibration import coverage_curve

__all__ = ["inversion_figure"]

_ERRORS, _TRACES = 0.99, 0.93  # shares of the absolute values that the colours span


def inversion_figure(
    result: xr.Dataset,
    truth: xr.DataArray,
    *,
    models: Mapping[str, xr.DataArray],
    gathers: Mapping[str, xr.DataArray],
    curve: xr.DataArray | xr.Dataset,
    survey: xr.Dataset | None = None,
) -> Figure:
    """Draw truth, other models, posterior mean, members, uncertainty, error, one shot and coverage.

    Args:
        result: The result of :func:`invdiff.invert`, with two members or more.
        truth: The true velocities ``(z, x)``, in m/s, with coordinates in m.
        models: Models to compare with, such as the start, by title.
        gathers: Traces ``(receiver, time)`` of one shot, by title; the first sets the colours of
            all. A coordinate ``receiver_x`` in m labels them.
        curve: The result of :func:`invdiff.calibration.coverage` or
            :func:`~invdiff.calibration.coverage_curve`.
        survey: The positions of sources and receivers, as :func:`invdiff.io.survey_dataset` labels
            them; they are drawn on the truth.

    Returns:
        The figure, which no window shows; see :func:`invdiff.plot.save_figure`.
    """
    error = abs(result["mean"] - truth)
    models = {"true": truth, **models, "posterior mean": result["mean"]}
    members = {f"member {int(m.realization)}": m for m in result["velocity"][:2]}
    spread = {"posterior std": result["std"], "|posterior mean \N{MINUS SIGN} true|": error}
    n_columns = max(len(models), len(gathers) + 1, 4)
    figure = Figure(figsize=(3.2 * n_columns, 7.4), layout="constrained")
    rows: list[list[Axes]] = figure.subplots(3, n_columns, squeeze=False).tolist()
    velocities = float(truth.min()), float(truth.max())
    errors = 0.0, float(error.quantile(_ERRORS))
    for row, panels in zip(rows, (models, members), strict=False):
        for axis, (title, model) in zip(row, panels.items(), strict=False):
            shown = _section(axis, model, _scored(title, model, truth), limits=velocities)
    _bar(figure, shown, rows[0], label="velocity (m/s)")
    for axis, (title, field) in zip(rows[1][2:], spread.items(), strict=False):
        shown = _section(axis, field, title, limits=errors, colours="magma")
    _bar(figure, shown, rows[1], label="velocity (m/s)")
    coverage_curve(curve, rows[2][0])
    _bar(figure, _gathers(rows[2][1:], gathers), rows[2], label="pressure")
    if survey is not None:
        _stations(rows[0][0], survey)
    for axis in (axis for row in rows for axis in row):
        axis.set_visible(axis.has_data())
    for row in rows[:2]:
        row[0].set_ylabel("depth (km)")
    return figure


def _section(
    axis: Axes,
    model: xr.DataArray,
    title: str,
    *,
    limits: tuple[float, float],
    colours: str = "viridis",
) -> AxesImage:
    """Draw a field ``(z, x)`` with axes in km, depth downwards."""
    model = model.transpose("z", "x")
    (left, right), (shallow, deep) = (_edges(model[dim]) for dim in ("x", "z"))
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("distance (km)")
    return axis.imshow(
        model,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=(left, right, deep, shallow),
        aspect="equal",
        interpolation="nearest",
    )


def _edges(axis: xr.DataArray) -> tuple[float, float]:
    """The outer edges of the first and the last cell, in km."""
    values = np.asarray(axis.values, float) / 1000
    half = (values[-1] - values[0]) / max(len(values) - 1, 1) / 2
    return float(values[0] - half), float(values[-1] + half)


def _scored(title: str, model: xr.DataArray, truth: xr.DataArray) -> str:
    if model is truth:
        return title
    return f"{title}: MAE {float(abs(model - truth).mean()):.0f} m/s"


def _stations(axis: Axes, survey: xr.Dataset) -> None:
    """Draw receivers as ticks and sources as stars."""
    for name, marker, size, colour in (("receiver", "|", 10, "white"), ("source", "*", 35, "red")):
        x, z = (np.asarray(survey[f"{name}_{dim}"]) / 1000 for dim in ("x", "z"))
        axis.scatter(x, z, marker=marker, s=size, color=colour, linewidths=0.6, clip_on=False)


def _gathers(axes: Sequence[Axes], gathers: Mapping[str, xr.DataArray]) -> AxesImage:
    """Draw the traces of a shot in the colours of the first gather; NaN stays white."""
    clip = float(abs(next(iter(gathers.values()))).quantile(_TRACES))
    for axis, (title, gather) in zip(axes, gathers.items(), strict=False):
        traces = gather.transpose("time", "receiver")
        along, label = np.arange(traces.sizes["receiver"], dtype=float), "receiver"
        if "receiver_x" in traces.coords:
            along, label = traces["receiver_x"].values / 1000, "distance (km)"
        shown = axis.imshow(
            traces,
            cmap="RdBu_r",
            vmin=-clip,
            vmax=clip,
            extent=(along[0], along[-1], float(traces["time"][-1]), float(traces["time"][0])),
            aspect="auto",
            interpolation="nearest",
        )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label)
    axes[0].set_ylabel("time (s)")
    return shown


def _bar(figure: Figure, shown: AxesImage, row: Sequence[Axes], *, label: str) -> None:
    """Draw a colour bar on the right of a row, so that the columns stay aligned."""
    figure.colorbar(shown, ax=list(row), pad=0.01, label=label)
