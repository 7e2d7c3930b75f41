"""A figure of a reconstruction: images, uncertainty, coverage."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr
from matplotlib.figure import Figure

from invdiff.plot.calibration import coverage_curve

__all__ = ["reconstruction_figure"]


def reconstruction_figure(
    result: xr.Dataset,
    reference: xr.DataArray,
    *,
    baselines: Mapping[str, xr.DataArray],
    curve: xr.DataArray,
    name: str = "image",
) -> Figure:
    """Draw reference, baselines, posterior mean, uncertainty, error, two members and coverage.

    Args:
        result: The result of :func:`invdiff.reconstruct` on a 2-D grid, with two members or more.
        reference: The true image, on the same grid.
        baselines: Other reconstructions, by title.
        curve: The result of :func:`invdiff.calibration.coverage`.
        name: The variable of ``result`` that holds the members.

    Returns:
        The figure, which no window shows; see :func:`invdiff.plot.save_figure`.
    """
    members = result[name]
    error = abs(result["mean"] - reference)
    panels: dict[str, xr.DataArray] = {
        "reference": abs(reference),
        **{title: abs(image) for title, image in baselines.items()},
        "posterior mean": abs(result["mean"]),
        "member 0": abs(members[0]),
        "member 1": abs(members[1]),
        "posterior std": result["std"],
        "|mean - reference|": error,
    }
    top = float(abs(reference).max())
    spread = float(error.quantile(0.995))
    n_columns = -(-(len(panels) + 1) // 2)
    figure = Figure(figsize=(2.6 * n_columns, 6.4), layout="constrained")
    axes = figure.subplots(2, n_columns).ravel()
    for axis, (title, image) in zip(axes, panels.items(), strict=False):
        is_error = title in ("posterior std", "|mean - reference|")
        shown = axis.imshow(
            image, cmap="magma" if is_error else "gray", vmin=0, vmax=spread if is_error else top
        )
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        if is_error:
            figure.colorbar(shown, ax=axis, shrink=0.7)
    coverage_curve(curve, axes[len(panels)])
    for axis in axes[len(panels) + 1 :]:
        axis.set_visible(False)
    return figure
