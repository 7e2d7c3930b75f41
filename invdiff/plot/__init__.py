"""Figures of results; the only package that imports matplotlib."""

from matplotlib.figure import Figure

from invdiff.plot.calibration import (
    calibration_figure,
    coverage_curve,
    ecdf_difference,
    rank_histogram,
    spread_skill,
    tarp_curve,
)
from invdiff.plot.files import png_bytes, save_figure
from invdiff.plot.inversion import inversion_figure
from invdiff.plot.reconstruction import reconstruction_figure

__all__ = [
    "Figure",
    "calibration_figure",
    "coverage_curve",
    "ecdf_difference",
    "inversion_figure",
    "png_bytes",
    "rank_histogram",
    "reconstruction_figure",
    "save_figure",
    "spread_skill",
    "tarp_curve",
]
