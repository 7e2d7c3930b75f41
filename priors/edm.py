"""EDM preconditioning: a U-Net as a denoiser that also states its own error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from invdiff.arguments import as_integer, as_number
from invdiff.priors.unet import UNet, UNetConfig

__all__ = ["Denoised", "EDMNetwork"]


class Denoised(NamedTuple):
    """What one network pass gives of ``x_0``: its mean, and the size of the error of that mean.

    Args:
        mean: ``E[x_0 | x_t]``, ``(batch, channels, h, w)``.
        std: root mean square error expected of one channel, ``(batch, 1, h, w)``.
    """

    mean: Tensor
    std: Tensor


class EDMNetwork(nn.Module):
    r"""A preconditioned U-Net on real channels: denoiser and error estimate in one pass.

    For a real channel at noise level ``sigma`` (Karras et al. 2022, arXiv 2206.00364, table 1)::

        D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
        c_skip = sigma_data^2 / (sigma^2 + sigma_data^2)
        c_out  = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)
        c_in   = 1 / sqrt(sigma^2 + sigma_data^2),   c_noise = log(sigma) / 4

    One more output ``u`` of ``F`` is the logarithm of its squared error in units of ``c_out``, so
    that ``std = c_out exp(u / 2)``.

    Assumptions: training fields about zero with a standard deviation near ``sigma_data``. With its
    last layer at zero (untrained) ``D`` is the exact denoiser of white Gaussian fields.

    Cost: one pass of the U-Net per call.

    Args:
        config: size of the U-Net.
        sigma_data: standard deviation of one channel of the training fields, > 0.

    Raises:
        InputError: a ``sigma_data`` that is not positive.
    """

    def __init__(self, config: UNetConfig, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = as_number("sigma_data", sigma_data)
        self.network = UNet(config)

    @classmethod
    def untrained(cls, config: UNetConfig, sigma_data: float, *, seed: int = 0) -> EDMNetwork:
        """A network to train: its initial weights are a function of ``config`` and ``seed`` alone.

        Args:
            config: size of the U-Net.
            sigma_data: standard deviation of one channel of the training fields.
            seed: of the initial weights.

        Raises:
            InputError: a seed that is not a whole number >= 0.
        """
        seed = as_integer("seed", seed, least=0)
        # torch initialises layers from its global generator; it is seeded here and put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = cls(config, sigma_data)
        return network.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, sigma: Tensor, positions: Tensor) -> Denoised:
        """Denoise a batch.

        Args:
            x: noisy channels ``(batch, channels, h, w)``.
            sigma: noise level of one channel of each member, ``(batch,)``.
            positions: position channels ``(batch, n_positions, h, w)``.
        """
        c_out, raw = self._raw(x, sigma, positions)
        c_skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        mean = c_skip[:, None, None, None] * x + c_out * raw[:, :-1]
        return Denoised(mean, c_out * torch.exp(raw[:, -1:] / 2))

    def loss(
        self, x0: Tensor, noise: Tensor, sigma: Tensor, *, positions: Tensor, variance_weight: float
    ) -> tuple[Tensor, Tensor]:
        """EDM loss and the negative log-likelihood of the error estimate.

        Args:
            x0: clean fields ``(b, channels, h, w)``.
            noise: standard normal, the same shape.
            sigma: noise levels ``(b,)``.
            positions: ``(b, positions, h, w)``.
            variance_weight: weight of the second term; its residual is detached, so that it moves
                the mean only through features that both share.

        Returns:
            The total (a scalar) and the squared error per sample ``(b,)`` in units of ``c_out``.
        """
        level = sigma[:, None, None, None]
        x_t = x0 + level * noise
        c_out, raw = self._raw(x_t, sigma, positions)
        c_skip = self.sigma_data**2 / (level**2 + self.sigma_data**2)
        squared = ((x0 - c_skip * x_t) / c_out - raw[:, :-1]).square().mean(1, keepdim=True)
        log_variance = raw[:, -1:].clamp(-16, 4)  # bounds the gradient, far outside what occurs
        nll = (squared.detach() * torch.exp(-log_variance) + log_variance).mean()
        return squared.mean() + variance_weight * nll, squared.detach().mean((1, 2, 3))

    def _raw(self, x: Tensor, sigma: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        level = sigma[:, None, None, None]
        total = torch.sqrt(level**2 + self.sigma_data**2)
        raw = self.network(x / total, torch.log(sigma) / 4, positions)
        return level * self.sigma_data / total, raw.float()
