"""Calibration: whether the spread of an ensemble is right, measured against known truths.

**One posterior and one truth per case**: :func:`coverage_curve`, :func:`rank_histogram`,
:func:`sbc`, :func:`tarp`, :func:`spread_skill` and :func:`hpd_coverage`, summarised in one sentence
by :func:`report`. None assumes anything of the law of the posterior; :class:`StudentInterval` does,
and is a choice. :func:`by_region` gives figures inside masks beside the whole. **Two ensembles of
one posterior**, such as the draws of a sampler and exact ones: :func:`pqmass`.
:func:`conformal_factor` corrects intervals that were found to be wrong.

Values of a field are correlated. ``dim_independent`` names the dimension along which cases are
independent of each other; every band and p-value then counts cases. Without it each value counts as
one case, which makes the bands of correlated fields too narrow and their p-values too small.

Ensembles may be chunked by Dask, also along ``realization``. :func:`half_width`, :func:`ranks` and
:func:`pit` stay lazy; the other functions reduce chunk by chunk and hold fields without
``realization`` in memory. Complex values are evaluated by their real and imaginary parts. Values
that are not finite are refused unless ``where`` leaves them out.
"""

from invdiff.calibration.conformal import conformal_factor
from invdiff.calibration.expected_coverage import tarp
from invdiff.calibration.hpd import hpd_coverage
from invdiff.calibration.intervals import (
    binomial_interval,
    coverage,
    coverage_curve,
)
from invdiff.calibration.prediction_intervals import (
    PredictionInterval,
    RankInterval,
    StudentInterval,
    half_width,
    quantile_bounds,
)
from invdiff.calibration.rank_statistics import pit, rank_histogram, ranks
from invdiff.calibration.regions import by_region
from invdiff.calibration.simulation_based import sbc
from invdiff.calibration.spread import spread_skill, spread_skill_curve
from invdiff.calibration.two_sample import pqmass
from invdiff.calibration.uniformity import chi_square_p_value, pit_ecdf, smooth_p_value
from invdiff.calibration.verdict import Report, report

__all__ = [
    "PredictionInterval",
    "RankInterval",
    "Report",
    "StudentInterval",
    "binomial_interval",
    "by_region",
    "chi_square_p_value",
    "conformal_factor",
    "coverage",
    "coverage_curve",
    "half_width",
    "hpd_coverage",
    "pit",
    "pit_ecdf",
    "pqmass",
    "quantile_bounds",
    "rank_histogram",
    "ranks",
    "report",
    "sbc",
    "smooth_p_value",
    "spread_skill",
    "spread_skill_curve",
    "tarp",
]
