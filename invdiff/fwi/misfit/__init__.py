"""Misfits between predicted and observed traces, differentiable by torch, as objects.

=============================  ====================================================================
:class:`L2`                    least squares: Gaussian noise, exact statistics, shortest basin
:class:`NormalisedCorrelation` independent of the amplitude of each trace
:class:`Envelope`              compares energy in time rather than phase: wide basin
:class:`Wasserstein`           transports mass in time: convex in shifts of separate arrivals
:class:`GraphSpace`            transports samples in time and amplitude; keeps signs; slow
:class:`Masked`                any misfit of weighted traces: mutes, offsets, time windows
:class:`Filtered`              any misfit in a frequency band: frequency continuation
:class:`SourceFitted`          any misfit once the source of each shot is fitted, in closed form
=============================  ====================================================================

Wrappers compose: ``Masked(Filtered(L2(0.1), 5.0, dt), weights)`` mutes first, then filters.
"""

from invdiff.fwi.misfit.base import Misfit
from invdiff.fwi.misfit.envelope import Envelope
from invdiff.fwi.misfit.filters import bandpass, lowpass
from invdiff.fwi.misfit.graph_space import GraphSpace
from invdiff.fwi.misfit.source import SourceFitted
from invdiff.fwi.misfit.wasserstein import Exponential, Positive, Shifted, Softplus, Wasserstein
from invdiff.fwi.misfit.waveform import L2, NormalisedCorrelation
from invdiff.fwi.misfit.wrappers import Filtered, Masked

__all__ = [
    "L2",
    "Envelope",
    "Exponential",
    "Filtered",
    "GraphSpace",
    "Masked",
    "Misfit",
    "NormalisedCorrelation",
    "Positive",
    "Shifted",
    "Softplus",
    "SourceFitted",
    "Wasserstein",
    "bandpass",
    "lowpass",
]
