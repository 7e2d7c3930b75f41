"""Atmosphere: step models of flows, rollouts as operators, and what instruments see of them."""

from invdiff.dynamics import trajectory
from invdiff.operators.atmosphere.barotropic import BarotropicVorticity
from invdiff.operators.atmosphere.jet import galewsky_jet
from invdiff.operators.atmosphere.kolmogorov import KolmogorovFlow
from invdiff.operators.atmosphere.lorenz import Lorenz63, Lorenz96
from invdiff.operators.atmosphere.observations import AreaMean, Stations
from invdiff.operators.atmosphere.prognostic import Prognostic
from invdiff.operators.atmosphere.quasigeostrophic import TwoLayerQG
from invdiff.operators.atmosphere.rollout import Rollout
from invdiff.operators.atmosphere.satellites import swath
from invdiff.operators.atmosphere.shallow_water import ShallowWater
from invdiff.operators.atmosphere.sphere import SphericalHarmonics

__all__ = [
    "AreaMean",
    "BarotropicVorticity",
    "KolmogorovFlow",
    "Lorenz63",
    "Lorenz96",
    "Prognostic",
    "Rollout",
    "ShallowWater",
    "SphericalHarmonics",
    "Stations",
    "TwoLayerQG",
    "galewsky_jet",
    "swath",
    "trajectory",
]
