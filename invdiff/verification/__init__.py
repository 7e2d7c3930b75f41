"""Verification: the scores by which meteorologists compare ensembles, and checks of assimilation.

**An ensemble and its truth**: :func:`crps`, :func:`energy_score`, :func:`spread_error`,
:func:`brier_score` and :func:`reliability_diagram`; :func:`verify` gives a table of them with a
verdict. Ranks, coverage and all tests are those of :mod:`invdiff.calibration`
(:func:`~invdiff.calibration.rank_histogram` and others), which has no second home here.
**Fields**: :func:`zonal_spectrum`, :func:`isotropic_spectrum`, :func:`latitude_weights` and
:func:`weighted_mean`. **Assimilation**, in observation space: :func:`innovation_chi_square`,
:func:`departures`, :func:`desroziers` and :func:`degrees_of_freedom_for_signal`.

The convention is that of calibration: ``(ensemble, truth, *, dim="realization", where=...)``, and
means over all dims of the truth. ``by`` names the dims that are kept, ``weights`` weigh the mean.
Labels must be the same; nothing is joined in silence. Values that are not finite are refused unless
``where`` leaves them out, as by ``where=truth.notnull()``.

All functions but :func:`verify` are lazy: with fields chunked by Dask they return at once, and the
values are checked when they are computed. Fields may be chunked along ``realization`` too.
"""

from invdiff.verification.assimilation import (
    degrees_of_freedom_for_signal,
    departures,
    desroziers,
)
from invdiff.verification.ensemble_scores import crps, energy_score, spread_error
from invdiff.verification.events import brier_score, reliability_diagram
from invdiff.verification.innovations import innovation_chi_square
from invdiff.verification.spectra import isotropic_spectrum, zonal_spectrum
from invdiff.verification.verdict import verify
from invdiff.verification.weights import latitude_weights, weighted_mean

__all__ = [
    "brier_score",
    "crps",
    "degrees_of_freedom_for_signal",
    "departures",
    "desroziers",
    "energy_score",
    "innovation_chi_square",
    "isotropic_spectrum",
    "latitude_weights",
    "reliability_diagram",
    "spread_error",
    "verify",
    "weighted_mean",
    "zonal_spectrum",
]
