"""A small denoiser trained on draws of the 8 x 8 mixture, and what it knows of its own error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from invdiff.noise import NoiseField
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.fit import fit_error_spectra
from invdiff.priors.mixture import GaussianMixturePrior
from invdiff.priors.network import NetworkPrior
from invdiff.priors.spectral import ErrorSpectra, SpectralPrior
from invdiff.priors.train import Batch, TrainingRecipe, train
from invdiff.priors.unet import UNetConfig
from invdiff.schedule import VE

__all__ = ["denoising_error", "trained"]

RATIOS = np.geomspace(0.01, 20, 16)
BATCH = 128


@dataclass(frozen=True)
class Draws:
    """Fields of a mixture by training step, and where their pixels lie."""

    prior: GaussianMixturePrior

    def __call__(self, step: int) -> Batch:
        fields = self.prior.exact_draws(BATCH, seed=1000 + step)[:, None]
        positions = _positions(self.prior).expand(BATCH, -1, -1, -1)
        return fields.numpy().astype(np.float32), positions.numpy()


def _positions(prior: GaussianMixturePrior) -> torch.Tensor:
    """Rows and columns within [-1, 1]: the means of the mixture have their places."""
    axes = [torch.linspace(-1, 1, n) for n in prior.grid.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def trained(prior: GaussianMixturePrior, *, steps: int) -> NetworkPrior:
    """A network with a map of its error and the spectrum of the rest: what `NetworkPrior` has."""
    with torch.random.fork_rng(devices=[]):  # initial weights come from torch's generator
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        network = EDMNetwork(UNetConfig(1, widths=(48, 64), blocks=1, embedding=64), 1.1)
    recipe = TrainingRecipe(
        steps, learning_rate=2e-3, ema=0.995, noise_median=0.6, noise_spread=1.4
    )
    network = train(network, Draws(prior), recipe, workers=0, progress=False).eval()
    white = ErrorSpectra(RATIOS, np.array([0.0, 1.0]), np.ones((len(RATIOS), 2)))
    schedule = VE(ratio_min=float(RATIOS[0]), ratio_max=float(RATIOS[-1]))
    raw = NetworkPrior(network, white, prior.grid, schedule=schedule, positions=_positions(prior))
    return NetworkPrior(
        network,
        _fitted(raw, prior),
        prior.grid,
        schedule=schedule,
        positions=_positions(prior),
        card={"name": "mixture8"},
    )


def _fitted(raw: SpectralPrior, prior: GaussianMixturePrior) -> ErrorSpectra:
    fields = prior.exact_draws(2048, seed=5).split(512)
    return fit_error_spectra(raw, fields, ratios=RATIOS, n_wavenumbers=12, seed=6)


def denoising_error(network: SpectralPrior, prior: GaussianMixturePrior) -> float:
    """Mean square error over that of the exact denoiser, geometric mean of noise levels."""
    x_0 = prior.exact_draws(1024, seed=7)
    shares = []
    for ratio in RATIOS[2:-2]:
        x_t = x_0 + float(ratio) * NoiseField(8)(prior.grid, range(len(x_0)), 0)
        t = torch.tensor(ratio, dtype=torch.float64)
        with torch.no_grad():
            errors = [(p.denoise(x_t, t) - x_0).square().mean() for p in (network, prior)]
        shares.append(float(errors[0] / errors[1]))
    return float(np.exp(np.mean(np.log(shares))))
