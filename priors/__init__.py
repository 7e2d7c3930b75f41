"""Analytic and learned priors; import them as ``invdiff.priors``."""

# One class must not exist under two names: the folder is also importable from the repository root.
if __name__ != "invdiff.priors":
    raise ImportError(f"import invdiff.priors, not {__name__}")

from invdiff.priors.gaussian import GaussianPrior, StationaryGaussianPrior
from invdiff.priors.hub import available, load, save
from invdiff.priors.levy import LevyPrior
from invdiff.priors.mixture import GaussianMixturePrior, SpectralMixturePrior
from invdiff.priors.network import NetworkPrior
from invdiff.priors.tiled import TiledPrior

__all__ = [
    "GaussianMixturePrior",
    "GaussianPrior",
    "LevyPrior",
    "NetworkPrior",
    "SpectralMixturePrior",
    "StationaryGaussianPrior",
    "TiledPrior",
    "available",
    "load",
    "save",
]
