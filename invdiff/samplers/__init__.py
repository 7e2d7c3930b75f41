"""Samplers: one file a method, and the driver that runs any of them."""

from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.base import SamplerState, load_state, save_state
from invdiff.samplers.ddim import DDIM
from invdiff.samplers.dpm_solver import DPMSolver, SDEDPMSolver
from invdiff.samplers.drive import iterate, sample
from invdiff.samplers.heun import Heun

__all__ = [
    "DDIM",
    "Ancestral",
    "DPMSolver",
    "Heun",
    "SDEDPMSolver",
    "SamplerState",
    "iterate",
    "load_state",
    "sample",
    "save_state",
]
