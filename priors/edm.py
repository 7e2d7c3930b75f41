r"""EDM preconditioning: a U-Net as a denoiser that also states its own error.

Karras et al. 2022 (arXiv 2206.00364), table 1, for a real channel at noise level ``sigma``::

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
    c_skip = sigma_data^2 / (sigma^2 + sigma_data^2),  c_in = 1 / sqrt(sigma^2 + sigma_data^2)
    c_out  = sigma sigma_data / sqrt(sigma^2 + sigma_data^2),  c_noise = log(sigma) / 4

One more output of ``F`` is the logarithm of its squared error, so that a single pass gives the mean
of ``x_0`` given ``x_t`` and the size of its spread at every pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from invdiff.priors.unet import UNet, UNetConfig

__all__ = ["Denoised", "EDMNetwork"]


class Denoised(NamedTuple):
    """What one network pass says of ``x_0``.

    ``mean`` is ``(b, channels, h, w)``; ``std`` is ``(b, 1, h, w)``, the root mean square error
    expected of one channel.
    """

    mean: Tensor
    std: Tensor


class EDMNetwork(nn.Module):
    """A preconditioned U-Net on real channels.

    Args:
        config: the U-Net.
        sigma_data: standard deviation of one channel of the training fields.
    """

    def __init__(self, config: UNetConfig, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.network = UNet(config)

    def forward(self, x: Tensor, sigma: Tensor, positions: Tensor) -> Denoised:
        """Denoise ``(b, channels, h, w)`` at per-channel noise level ``sigma (b,)``."""
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
