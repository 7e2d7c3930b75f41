"""Small learned priors that need no training, and scans to go with them. No tests in here.

With its last layer at zero, the preconditioned network is ``c_skip x``: the exact denoiser of white
Gaussian noise of standard deviation ``sigma_data`` a channel, and it states its exact error. With
a flat spectrum the prior is then exact, through all the machinery that a trained one uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.operators.mri import CartesianMRI, birdcage
from invdiff.priors import hub
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.network import NetworkPrior
from invdiff.priors.spectral import ErrorSpectra
from invdiff.priors.train import Batch
from invdiff.priors.unet import UNetConfig
from invdiff.schedule import VE

SIGMA_DATA = 0.3
SCHEDULE = VE(ratio_min=0.01, ratio_max=8.0)
SHAPE = (32, 24)
CONFIG = UNetConfig(widths=(8, 12), blocks=1, embedding=16)
CARD = {
    "name": "tiny",
    "data": "none",
    "licence": "BSD-3-Clause",
    "recipe": "tests/tiny.py",
    "seed": 0,
    "metrics": [],
}
FLAT = ErrorSpectra(np.array([0.01, 8.0]), np.array([0.0, 1.0]), np.ones((2, 2)))


def network(
    config: UNetConfig = CONFIG,
    *,
    wiggle: float = 0.0,
    seed: int = 0,
    sigma_data: float = SIGMA_DATA,
) -> EDMNetwork:
    """Deterministic weights; ``wiggle`` is the size of the last layer's."""
    with torch.random.fork_rng(devices=[]):  # torch initialises from its global generator
        net = EDMNetwork(config, sigma_data)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            fan_in = max(parameter[0].numel(), 1)
            values = rng.standard_normal(tuple(parameter.shape)) / fan_in**0.5
            parameter.copy_(torch.from_numpy(values))
        net.network.leave.weight.mul_(wiggle)
        net.network.leave.bias.zero_()
    return net.requires_grad_(False)


def grid(shape: tuple[int, int] = SHAPE, dtype: torch.dtype = torch.complex64) -> Grid:
    return Grid(("y", "x"), shape, dtype)


def prior(
    shape: tuple[int, int] = SHAPE,
    *,
    dtype: torch.dtype = torch.complex64,
    wiggle: float = 0.0,
    scale: float = 1.0,
    spectra: ErrorSpectra = FLAT,
) -> NetworkPrior:
    """White Gaussian prior of variance ``scale^2 SIGMA_DATA^2`` a channel, if nothing wiggles."""
    config = UNetConfig(**{**CONFIG.__dict__, "channels": 2 if dtype.is_complex else 1})
    schedule = VE(SCHEDULE.ratio_min * scale, SCHEDULE.ratio_max * scale)
    return NetworkPrior(
        network(config, wiggle=wiggle),
        spectra,
        grid(shape, dtype),
        schedule=schedule,
        scale=scale,
        card=CARD,
    )


def stored(folder: Path, **kwargs: float) -> Path:
    """Stem of a tiny prior on disk."""
    hub.save_prior(prior(**kwargs), folder / "tiny", CARD)
    return folder / "tiny"


def scan(
    shape: tuple[int, ...] = SHAPE, *, n_coils: int = 4, noise: float = 0.02, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of a k-space file: a disc seen by several coils, every second outer line."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = (sum(a**2 for a in axes) < 0.6) * np.exp(0.5j * axes[0])
    mask = np.zeros(shape, bool)
    mask[..., ::2] = True
    centre = shape[-1] // 2
    mask[..., centre - 5 : centre + 5] = True
    maps = birdcage(shape, n_coils)
    operator = CartesianMRI(torch.from_numpy(mask), maps)
    clean = operator(torch.from_numpy(image.astype(np.complex64))[None])[0].numpy()
    normal = rng.standard_normal((2, n_coils, *shape)) / 2**0.5
    kspace = (clean + noise * mask * (normal[0] + 1j * normal[1])).astype(np.complex64)
    return {"kspace": kspace, "mask": mask, "sensitivity": maps.numpy(), "image": image}


def standard_normal(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Standard normal values; complex ones with ``E|n|^2 = 1``."""
    rng = np.random.default_rng(seed)
    if not dtype.is_complex:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)
    parts = torch.from_numpy(rng.standard_normal((2, *shape)) / 2**0.5)
    return torch.complex(parts[0], parts[1]).to(dtype)


@dataclass(frozen=True)
class SmoothFields:
    """Batches of periodic Gaussian fields, for training; picklable."""

    size: int = 16
    batch_size: int = 16
    seed: int = 0

    @property
    def spectrum(self) -> np.ndarray:
        """Eigenvalues in the DFT; a pixel has variance ``SIGMA_DATA^2``."""
        k2 = sum(a**2 for a in np.meshgrid(*[np.fft.fftfreq(self.size)] * 2))
        power = (1 + k2 / 0.08**2) ** -2.0
        return SIGMA_DATA**2 * power / power.mean()

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        shape = (self.batch_size, 1, self.size, self.size)
        white = np.fft.fft2(rng.standard_normal(shape))
        fields = np.fft.ifft2(np.sqrt(self.spectrum) * white).real
        return fields.astype(np.float32), np.zeros((shape[0], 2, *shape[2:]), np.float32)
