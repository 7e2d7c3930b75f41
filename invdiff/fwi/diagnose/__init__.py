"""Diagnostics of an inversion: cycle skipping, sensitivity, data fit, errors, spread.

xarray in, xarray out. Traces have the dims ``shot``, ``receiver``, ``time``, models ``z``, ``x``.
"""

from invdiff.fwi.diagnose.models import model_errors, spread_figures
from invdiff.fwi.diagnose.sensitivity import illumination, pulled_back
from invdiff.fwi.diagnose.traces import cycle_skipping, data_fit, relative_error

__all__ = [
    "cycle_skipping",
    "data_fit",
    "illumination",
    "model_errors",
    "pulled_back",
    "relative_error",
    "spread_figures",
]
