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

from invdiff.invert.annealed import AnnealedMode, AnnealedPosterior
from invdiff.invert.classic import LBFGS, Adam, total_variation
from invdiff.invert.objective import Objective
from invdiff.invert.red import REDDiffusion
from invdiff.invert.shots import AllShots, Encoded, Minibatch
from invdiff.invert.traces import amplitude_weights, near_offset_mute
from invdiff.invert.verb import invert

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
    "near_offset_mute",
    "total_variation",
]
