from .deepinv import DeepinvPrior, from_deepinv, to_deepinv
from .edm import EDMNetwork
from .gaussian import GaussianPrior, StationaryGaussianPrior
from .hub import available, load_prior, save_prior
from .levy import LevyPrior
from .mixture import GaussianMixturePrior, SpectralMixturePrior
from .network import NetworkPrior
from .tiled import TiledPrior
from .train import TrainingRecipe
from .unet import UNetConfig
