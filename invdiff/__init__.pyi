from .conditioning import DPS, MMPS, Laplace, MomentMatching, PiGDM
from .errors import InvdiffError
from .grid import Grid
from .likelihood import AxisCovariance, Gaussian, Poisson, Rician, StudentT
from .noise import NoiseField
from .posterior import Posterior
from .samplers import (
    DAPS,
    DDIM,
    Ancestral,
    DPMSolver,
    EnKG,
    Heun,
    SDEDPMSolver,
    SplitGibbs,
    TwistedSMC,
    iterate,
    sample,
)
from .verbs import invert, reconstruct
