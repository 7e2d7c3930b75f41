"""Noise schedules ``x_t = alpha(t) x_0 + sigma(t) eps``, and conversions of predictions."""

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
    r"""Noise levels ``x_t = alpha(t) x_0 + sigma(t) eps`` with ``alpha(0) = 1, sigma(0) = 0``.

    All samplers walk the noise-to-signal ratio ``r = sigma / alpha``, so that a schedule is a
    choice of variables, never of accuracy. The ratios are spaced as in Karras et al. (2022, arXiv
    2206.00364), equation 5, and followed by ``r_n = 0``::

        r_i = (r_max^(1/rho) + i/(n-1) (r_min^(1/rho) - r_max^(1/rho)))^rho,   i = 0 ... n-1

    Assumptions: at ``ratio_max`` the noise hides the field, and below ``ratio_min`` it does not
    matter. A schedule belongs to its prior's units: the defaults here suit fields of order one.
    The priors of `invdiff.priors` take theirs from their own
    `invdiff.spread.Spread` instead.

    Args:
        ratio_min: Smallest noise-to-signal ratio before zero, in units of the field.
        ratio_max: Largest noise-to-signal ratio; several times the standard deviation of the field.
        rho: Karras exponent of the spacing; 7 puts most steps at low noise, 1 spaces evenly.

    Raises:
        InputError: The ratios are not ``0 < ratio_min < ratio_max``, or ``rho <= 0``.

    Example:
        >>> from invdiff.schedule import VE
        >>> VE(ratio_min=0.1, ratio_max=10.0, rho=1.0).timesteps(3)
        tensor([10.0000,  5.0500,  0.1000,  0.0000], dtype=torch.float64)
    """

    ratio_min: float = 0.002
    ratio_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio_min < self.ratio_max or self.rho <= 0:
            raise InputError(
                "these noise levels do not make a schedule",
                got=self,
                expected="0 < ratio_min < ratio_max, rho > 0",
                hint="Give them in the units of the field.",
            )

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal level ``alpha`` at time ``t``, of the shape of ``t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise level ``sigma`` at time ``t``, of the shape of ``t``."""

    @abstractmethod
    def time(self, ratio: Tensor) -> Tensor:
        """The time at which ``sigma / alpha`` equals ``ratio``, of the shape of ``ratio``."""

    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio ``sigma(t) / alpha(t)``: the noise level in units of ``x_0``."""
        return self.sigma(t) / self.alpha(t)

    def timesteps(self, steps: int) -> Tensor:
        """Times of a run of ``steps`` steps, from the noisiest to 0: float64 ``(steps + 1,)``.

        Raises:
            InputError: ``steps`` is less than one.
        """
        if steps < 1:
            raise InputError(
                "a run has at least one step",
                got=steps,
                expected="steps >= 1",
                hint="Ask for one step or more.",
            )
        i = torch.linspace(0, 1, steps, dtype=torch.float64)
        # In units of ratio_max, so that a schedule in other units has the same digits.
        low = (self.ratio_min / self.ratio_max) ** (1 / self.rho)
        t = self.time(self.ratio_max * (1 + i * (low - 1)) ** self.rho)
        return torch.cat([t, torch.zeros(1, dtype=t.dtype)])


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding, ``alpha = 1, sigma = t``: the convention of EDM.

    Karras et al. 2022, arXiv 2206.00364. The time is the noise level in units of the field.

    Args:
        ratio_min: Smallest noise-to-signal ratio before zero, in units of the field.
        ratio_max: Largest noise-to-signal ratio.
        rho: Karras exponent of the spacing.

    Example:
        >>> import torch
        >>> from invdiff.schedule import VE
        >>> VE().ratio(torch.tensor(3.0))
        tensor(3.)
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level ``alpha = 1`` at every time."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level ``sigma = t``."""
        return t

    def time(self, ratio: Tensor) -> Tensor:
        """Time ``t = ratio``."""
        return ratio


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving: ``alpha = exp(-B/2)``, ``B = beta_min t + (beta_max-beta_min) t^2/2``.

    Song et al. 2021, arXiv 2011.13456, with ``alpha^2 + sigma^2 = 1``. It fits networks that were
    trained in the convention of DDPM, on fields of variance about one.

    Args:
        ratio_min: Smallest noise-to-signal ratio before zero, in units of the field.
        ratio_max: Largest noise-to-signal ratio.
        rho: Karras exponent of the spacing.
        beta_min: Rate of noise at ``t = 0``.
        beta_max: Rate of noise at ``t = 1``.

    Example:
        >>> import torch
        >>> from invdiff.schedule import VP
        >>> t = VP().time(torch.tensor(1.0))  # as much noise as signal
        >>> VP().alpha(t) ** 2, VP().sigma(t) ** 2
        (tensor(0.5000), tensor(0.5000))
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level ``alpha = exp(-B(t)/2)``."""
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level ``sigma = sqrt(1 - exp(-B(t)))``."""
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def time(self, ratio: Tensor) -> Tensor:
        """Time ``t`` that solves ``B(t) = log(1 + ratio^2)``."""
        b, d = self.beta_min, self.beta_max - self.beta_min
        integral = torch.log1p(ratio**2)
        return 2 * integral / (b + torch.sqrt(b**2 + 2 * d * integral))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Variance preserving in angle, ``alpha = cos(pi t / 2), sigma = sin(pi t / 2)``.

    Nichol & Dhariwal 2021, arXiv 2102.09672, without their offset.

    Args:
        ratio_min: Smallest noise-to-signal ratio before zero, in units of the field.
        ratio_max: Largest noise-to-signal ratio.
        rho: Karras exponent of the spacing.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level ``alpha = cos(pi t / 2)``."""
        return torch.cos(math.pi / 2 * t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level ``sigma = sin(pi t / 2)``."""
        return torch.sin(math.pi / 2 * t)

    def time(self, ratio: Tensor) -> Tensor:
        """Time ``t = 2 atan(ratio) / pi``."""
        return 2 / math.pi * torch.atan(ratio)


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Straight paths from field to noise, ``alpha = 1 - t, sigma = t``.

    Liu et al. 2023, arXiv 2209.03003. It fits networks that were trained by flow matching.

    Args:
        ratio_min: Smallest noise-to-signal ratio before zero, in units of the field.
        ratio_max: Largest noise-to-signal ratio.
        rho: Karras exponent of the spacing.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level ``alpha = 1 - t``."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level ``sigma = t``."""
        return t

    def time(self, ratio: Tensor) -> Tensor:
        """Time ``t = ratio / (1 + ratio)``."""
        return ratio / (1 + ratio)


def convert(
    value: Tensor, x_t: Tensor, t: Tensor, *, schedule: Schedule, source: str, target: str
) -> Tensor:
    r"""Convert a prediction between ``x0``, ``eps``, ``v`` and ``score``.

    With ``x_t = alpha x_0 + sigma eps``: ``v = alpha eps - sigma x_0`` (Salimans & Ho 2022,
    arXiv 2202.00512) and ``score = -eps / sigma`` (Tweedie).

    Args:
        value: Prediction, of the shape of ``x_t``.
        x_t: Noisy field.
        t: Time of the noisy field, a scalar or broadcastable.
        schedule: Schedule that gives ``alpha`` and ``sigma``.
        source: Kind of ``value``: ``"x0"``, ``"eps"``, ``"v"`` or ``"score"``.
        target: Kind of the result, one of the same four.

    Returns:
        The prediction of kind ``target``, of the shape of ``x_t``.

    Raises:
        InputError: ``source`` or ``target`` is not one of the four.

    Example:
        >>> import torch
        >>> from invdiff.schedule import VE, convert
        >>> x_t, t = torch.tensor([3.0]), torch.tensor(2.0)
        >>> convert(torch.tensor([1.0]), x_t, t, schedule=VE(), source="x0", target="eps")
        tensor([1.])
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
        raise InputError(
            "the kind of prediction is unknown",
            got=f"source={source!r}, target={target!r}",
            expected=f"two of {sorted(to_x0)}",
            hint="Name the kind that the network predicts, and the kind of the result.",
        )
    x0 = to_x0[source]()
    eps = (x_t - alpha * x0) / sigma
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma}[target]
