"""Samplers, one file per method, and the driver that runs any of them."""

from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.annealed_gibbs import AnnealedGibbs
from invdiff.samplers.base import SamplerState, load_state, save_state
from invdiff.samplers.corrector import MALA, ULA, Corrected, Renew
from invdiff.samplers.daps import DAPS, PriorSpread, RatioSpread
from invdiff.samplers.ddim import DDIM
from invdiff.samplers.ddnm import DDNM
from invdiff.samplers.ddrm import DDRM
from invdiff.samplers.default import default_sampler
from invdiff.samplers.diffpir import DiffPIR
from invdiff.samplers.dpm_solver import DPMSolver, SDEDPMSolver
from invdiff.samplers.drive import Ensemble, ensemble, iterate, sample
from invdiff.samplers.eki import EKI
from invdiff.samplers.enkg import EnKG
from invdiff.samplers.hamiltonian import HMC, Langevin
from invdiff.samplers.heun import Heun
from invdiff.samplers.inner import ExactGaussian, GaussNewton
from invdiff.samplers.mcgdiff import MCGDiff
from invdiff.samplers.red_diff import REDDiff
from invdiff.samplers.split_gibbs import SplitGibbs
from invdiff.samplers.tds import TDS
from invdiff.samplers.twisted import TwistedSMC

__all__ = [
    "DAPS",
    "DDIM",
    "DDNM",
    "DDRM",
    "EKI",
    "HMC",
    "MALA",
    "TDS",
    "ULA",
    "Ancestral",
    "AnnealedGibbs",
    "Corrected",
    "DPMSolver",
    "DiffPIR",
    "EnKG",
    "Ensemble",
    "ExactGaussian",
    "GaussNewton",
    "Heun",
    "Langevin",
    "MCGDiff",
    "PriorSpread",
    "REDDiff",
    "RatioSpread",
    "Renew",
    "SDEDPMSolver",
    "SamplerState",
    "SplitGibbs",
    "TwistedSMC",
    "default_sampler",
    "ensemble",
    "iterate",
    "load_state",
    "sample",
    "save_state",
]
