"""Did the inversion work? Cycle skipping, data fit, model errors, and what the spread is worth.

xarray in, xarray out. Traces have the dims ``shot``, ``receiver``, ``time``, models ``z``, ``x``.
"""

from invdiff.diagnose.models import model_errors, spread_figures
from invdiff.diagnose.traces import cycle_skipping, data_fit

__all__ = ["cycle_skipping", "data_fit", "model_errors", "spread_figures"]
