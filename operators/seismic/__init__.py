"""Seismic: acquisition, and acoustic and elastic wave equations as torch operators."""

from invdiff.operators.seismic.acoustic import Acoustic, gardner
from invdiff.operators.seismic.born import Born
from invdiff.operators.seismic.boundary import Boundary
from invdiff.operators.seismic.deepwave import Deepwave
from invdiff.operators.seismic.elastic import Elastic
from invdiff.operators.seismic.problem import acoustic_problem
from invdiff.operators.seismic.propagator import Devito
from invdiff.operators.seismic.source import SourceEstimate, estimate_wavelet
from invdiff.operators.seismic.survey import Survey, ricker
from invdiff.operators.seismic.workers import Cluster, Threads

__all__ = [
    "Acoustic",
    "Born",
    "Boundary",
    "Cluster",
    "Deepwave",
    "Devito",
    "Elastic",
    "SourceEstimate",
    "Survey",
    "Threads",
    "acoustic_problem",
    "estimate_wavelet",
    "gardner",
    "ricker",
]
