"""Calibrated posterior ensembles for inverse problems, on labelled grids.

Names are loaded on first use, so that ``import invdiff`` costs next to nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invdiff.conditioning import DPS, MMPS, Laplace, MomentMatching, PiGDM
    from invdiff.errors import InvdiffError
    from invdiff.grid import Grid
    from invdiff.invert import invert
    from invdiff.likelihood import AxisCovariance, Gaussian, Poisson, Rician, StudentT
    from invdiff.noise import NoiseField
    from invdiff.posterior import Posterior
    from invdiff.reconstruct import reconstruct
    from invdiff.samplers import (
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

__version__ = "0.1.0"

__all__ = [
    "DAPS",
    "DDIM",
    "DPS",
    "MMPS",
    "Ancestral",
    "AxisCovariance",
    "DPMSolver",
    "EnKG",
    "Gaussian",
    "Grid",
    "Heun",
    "InvdiffError",
    "Laplace",
    "MomentMatching",
    "NoiseField",
    "PiGDM",
    "Poisson",
    "Posterior",
    "Rician",
    "SDEDPMSolver",
    "SplitGibbs",
    "StudentT",
    "TwistedSMC",
    "invert",
    "iterate",
    "reconstruct",
    "sample",
]

_HOMES = {
    "invdiff.conditioning": ("DPS", "MMPS", "Laplace", "MomentMatching", "PiGDM"),
    "invdiff.errors": ("InvdiffError",),
    "invdiff.grid": ("Grid",),
    "invdiff.invert": ("invert",),
    "invdiff.likelihood": ("AxisCovariance", "Gaussian", "Poisson", "Rician", "StudentT"),
    "invdiff.noise": ("NoiseField",),
    "invdiff.posterior": ("Posterior",),
    "invdiff.reconstruct": ("reconstruct",),
    "invdiff.samplers": (
        "DAPS",
        "DDIM",
        "Ancestral",
        "DPMSolver",
        "EnKG",
        "Heun",
        "SDEDPMSolver",
        "SplitGibbs",
        "TwistedSMC",
        "iterate",
        "sample",
    ),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'invdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """Keeps ``reconstruct`` and ``invert`` functions where importing their modules puts those."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
