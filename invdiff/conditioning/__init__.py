"""From ``E[x_0 | x_t]`` to ``E[x_0 | x_t, y]``: one file a method."""

from invdiff.conditioning.base import Conditioning
from invdiff.conditioning.dps import DPS
from invdiff.conditioning.mmps import MMPS
from invdiff.conditioning.moment_matching import MomentMatching
from invdiff.conditioning.pigdm import PiGDM

__all__ = ["DPS", "MMPS", "Conditioning", "MomentMatching", "PiGDM"]
