r"""Noise schedules: ``x_t = alpha(t) x_0 + sigma(t) eps``, and conversions between predictions.

All samplers walk the noise-to-signal ratio ``r = sigma / alpha``, so a schedule is a choice of
variables, never of accuracy: the ratios are spaced as in Karras et al. (2022, arXiv 2206.00364),
``r_i = (r_max^(1/rho) + i/(n-1) (r_min^(1/rho) - r_max^(1/rho)))^rho``, followed by ``r_n = 0``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.errors import InputError

__all__ = ["VE", "VP", "Cosine", "RectifiedFlow", "Schedule", "convert"]


@dataclass(frozen=True)
class Schedule(ABC):
    """Pair ``alpha(t), sigma(t)`` with ``alpha(0) = 1, sigma(0) = 0``.

    Args:
        ratio_min: smallest noise-to-signal ratio before zero, in units of the field.
        ratio_max: largest; it should exceed the standard deviation of the field several times.
        rho: Karras exponent of the spacing; 7 puts most steps at low noise, 1 spaces evenly.
    """

    ratio_min: float = 0.002
    ratio_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio_min < self.ratio_max or self.rho <= 0:
            raise InputError("not a schedule", got=self, expected="0 < ratio_min < ratio_max")

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal level at time ``t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at time ``t``."""

    @abstractmethod
    def time(self, ratio: Tensor) -> Tensor:
        """The ``t`` at which ``sigma / alpha`` equals ``ratio``."""

    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio ``sigma(t) / alpha(t)``: the noise level in units of ``x_0``."""
        return self.sigma(t) / self.alpha(t)

    def timesteps(self, steps: int) -> Tensor:
        """``steps + 1`` float64 times from the noisiest to 0."""
        if steps < 1:
            raise InputError("too few steps", got=steps, expected="steps >= 1")
        i = torch.linspace(0, 1, steps, dtype=torch.float64)
        hi, lo = self.ratio_max ** (1 / self.rho), self.ratio_min ** (1 / self.rho)
        t = self.time((hi + i * (lo - hi)) ** self.rho)
        return torch.cat([t, torch.zeros(1, dtype=t.dtype)])


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding, the EDM convention: ``alpha = 1, sigma = t`` (Karras et al. 2022)."""

    def alpha(self, t: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """``t`` itself."""
        return t

    def time(self, ratio: Tensor) -> Tensor:
        """``ratio`` itself."""
        return ratio


@dataclass(frozen=True)
class VP(Schedule):
    r"""Variance preserving: ``alpha = exp(-B/2)``, ``B = beta_min t + (beta_max-beta_min) t^2/2``.

    Song et al. 2021, arXiv 2011.13456. ``alpha^2 + sigma^2 = 1``.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def alpha(self, t: Tensor) -> Tensor:
        """``exp(-B(t)/2)``."""
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        """``sqrt(1 - exp(-B(t)))``."""
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def time(self, ratio: Tensor) -> Tensor:
        """Root of ``B(t) = log(1 + ratio^2)``."""
        b, d = self.beta_min, self.beta_max - self.beta_min
        integral = torch.log1p(ratio**2)
        return 2 * integral / (b + torch.sqrt(b**2 + 2 * d * integral))


@dataclass(frozen=True)
class Cosine(Schedule):
    """``alpha = cos(pi t / 2), sigma = sin(pi t / 2)`` (Nichol & Dhariwal 2021, 2102.09672)."""

    def alpha(self, t: Tensor) -> Tensor:
        """``cos(pi t / 2)``."""
        return torch.cos(math.pi / 2 * t)

    def sigma(self, t: Tensor) -> Tensor:
        """``sin(pi t / 2)``."""
        return torch.sin(math.pi / 2 * t)

    def time(self, ratio: Tensor) -> Tensor:
        """``2 atan(ratio) / pi``."""
        return 2 / math.pi * torch.atan(ratio)


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """``alpha = 1 - t, sigma = t`` (Liu et al. 2023, arXiv 2209.03003)."""

    def alpha(self, t: Tensor) -> Tensor:
        """``1 - t``."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """``t``."""
        return t

    def time(self, ratio: Tensor) -> Tensor:
        """``ratio / (1 + ratio)``."""
        return ratio / (1 + ratio)


def convert(
    value: Tensor, x_t: Tensor, t: Tensor, *, schedule: Schedule, source: str, target: str
) -> Tensor:
    r"""Convert a prediction between ``x0``, ``eps``, ``v`` and ``score``.

    With ``x_t = alpha x_0 + sigma eps``: ``v = alpha eps - sigma x_0`` (Salimans & Ho 2022,
    arXiv 2202.00512) and ``score = -eps / sigma`` (Tweedie).

    Args:
        value: the prediction, shape of ``x_t``.
        x_t: the noisy field.
        t: its time, scalar or broadcastable.
        schedule: gives alpha and sigma.
        source: what ``value`` is: ``"x0"``, ``"eps"``, ``"v"`` or ``"score"``.
        target: what is wanted, of the same four.

    Raises:
        InputError: another name.
    """
    t = torch.as_tensor(t, dtype=torch.float64)
    alpha = schedule.alpha(t).to(x_t.device, x_t.dtype.to_real())
    sigma = schedule.sigma(t).to(x_t.device, x_t.dtype.to_real())
    to_x0 = {
        "x0": lambda: value,
        "eps": lambda: (x_t - sigma * value) / alpha,
        "v": lambda: (alpha * x_t - sigma * value) / (alpha**2 + sigma**2),
        "score": lambda: (x_t + sigma**2 * value) / alpha,
    }
    if source not in to_x0 or target not in to_x0:
        raise InputError("unknown prediction", got=(source, target), expected=sorted(to_x0))
    x0 = to_x0[source]()
    eps = (x_t - alpha * x0) / sigma
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma}[target]
