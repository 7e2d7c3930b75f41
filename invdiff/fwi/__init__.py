"""Full waveform inversion: the verb `invert`, and the ways to do it.

=====================  ============================================================================
method                 what it is
=====================  ============================================================================
`AnnealedPosterior`    draws, given a diffusion prior, from scattered starts; the default
`AnnealedMode`         the same without draws: one best model
`REDDiffusion`         Adam on misfit and denoising residual (Shan et al. 2026)
`LBFGS`, `Adam`        classical, with penalties such as `total_variation`; default without a prior
=====================  ============================================================================
"""

from invdiff.fwi.annealed import AnnealedMode
from invdiff.fwi.annealed_posterior import AnnealedPosterior
from invdiff.fwi.classic import LBFGS, Adam, total_variation
from invdiff.fwi.inversion import invert
from invdiff.fwi.objective import Objective
from invdiff.fwi.red import REDDiffusion
from invdiff.fwi.shots import AllShots, Encoded, Minibatch
from invdiff.fwi.traces import amplitude_weights, live_traces, near_offset_mute

__all__ = [
    "LBFGS",
    "Adam",
    "AllShots",
    "AnnealedMode",
    "AnnealedPosterior",
    "Encoded",
    "Minibatch",
    "Objective",
    "REDDiffusion",
    "amplitude_weights",
    "invert",
    "live_traces",
    "near_offset_mute",
    "total_variation",
]
