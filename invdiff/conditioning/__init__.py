"""Conditioning methods: from ``E[x_0 | x_t]`` to ``E[x_0 | x_t, y]``, one file per method."""

from invdiff.conditioning.base import Conditioning
from invdiff.conditioning.dps import DPS
from invdiff.conditioning.innovation import InnovationScale
from invdiff.conditioning.jacobian_free import JacobianFree
from invdiff.conditioning.laplace import Laplace
from invdiff.conditioning.mmps import MMPS
from invdiff.conditioning.moment_matching import MomentMatching
from invdiff.conditioning.pigdm import PiGDM
from invdiff.conditioning.tmpd import TMPD

__all__ = [
    "DPS",
    "MMPS",
    "TMPD",
    "Conditioning",
    "InnovationScale",
    "JacobianFree",
    "Laplace",
    "MomentMatching",
    "PiGDM",
]
