r"""Correctors: steps at one noise level that pull ``x_t`` back to its distribution there.

Predictor-corrector sampling (Song et al. 2021, arXiv 2011.13456): after each step of a sampler the
law of ``z = x_t / alpha_t`` has drifted from ``p_t``; a corrector leaves ``p_t`` invariant and so
forgets the drift. With ``m = E[x_0 | x_t, y]`` the score of ``z`` is ``(m - z) / r^2``; steps are
in units of ``r^2``, the least variance that any direction has::

    ULA     z' = z + h (m - z) + sqrt(2 h) r eps
    MALA    the same, accepted or not
    Renew   z' = x_0' + c (z - x_0') + sqrt(1 - c^2) r eps,   x_0' ~ N(m, C)

ULA inflates the variance by up to ``1 / (1 - h/2)``, most where the noise dominates. A score gives
no density to accept by; MALA takes the change of ``log p_t`` along the straight line by the
trapezoidal rule over the two scores it has, which is exact for Gaussians and otherwise of third
order in the step. Renew is Gibbs sampling of ``(x_0, x_t)``, the Langevin step preconditioned by
the covariance: no step size, no bias for Gaussians, and ``c`` keeps part of the noise. None adds
what the conditioning gets wrong: they target the model's own score. Cost a correction: one network
pass, with the vjps of the conditioning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from invdiff.errors import InputError, UnsupportedError
from invdiff.grid import Grid
from invdiff.linalg import inner, per_member
from invdiff.noise import NoiseField, StepNoise, Stream
from invdiff.posterior import Posterior
from invdiff.samplers.base import RatioSampler, SamplerState, UsesTerms
from invdiff.samplers.nested import inner_noise

__all__ = ["MALA", "ULA", "Corrected", "Corrector", "Renew"]

_UNIFORM = Grid(("u",), (1,), torch.float64)
_FIRST_SUBSTEP = 100  # past those that a sampler takes inside its step


class Corrector(Protocol):
    """One step at a noise level."""

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """New ``z = x_t / alpha_t``."""
        ...


def _check_step(step_size: float) -> None:
    if not 0 < step_size <= 1:
        raise InputError(
            "step size out of range",
            got=step_size,
            expected="0 < step_size <= 1, in units of the squared noise level",
        )


@dataclass(frozen=True)
class ULA:
    """Unadjusted Langevin.

    Args:
        step_size: ``h``, in units of the squared noise level.

    Raises:
        InputError: a step size outside (0, 1].
    """

    step_size: float = 0.1

    def __post_init__(self) -> None:
        _check_step(self.step_size)

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """``z + h (m - z) + sqrt(2 h) r eps``."""
        alpha, ratio = _levels(model, t)
        eps = noise(model.grid, 0).to(z.dtype)
        drift = self.step_size * (model.denoise(alpha * z, t) - z)
        stepped: Tensor = z + drift + (2 * self.step_size) ** 0.5 * ratio * eps
        return stepped


@dataclass(frozen=True)
class MALA:
    """Langevin with acceptance by the score integrated along the step; two passes.

    Args:
        step_size: ``h``, in units of the squared noise level.

    Raises:
        InputError: a step size outside (0, 1].
    """

    step_size: float = 0.3

    def __post_init__(self) -> None:
        _check_step(self.step_size)

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """The step of :class:`ULA`, or ``z``."""
        alpha, ratio = _levels(model, t)
        h, eps = self.step_size, noise(model.grid, 0).to(z.dtype)
        pull = model.denoise(alpha * z, t) - z
        proposal = z + h * pull + (2 * h) ** 0.5 * ratio * eps
        pull_back = model.denoise(alpha * proposal, t) - proposal
        there, back = proposal - z - h * pull, z - proposal - h * pull_back
        change = inner(pull + pull_back, proposal - z) / 2
        log_ratio = change + (inner(there, there) - inner(back, back)) / (4 * h)
        # For complex fields p ~ exp(-|z|^2 / v), without the half.
        log_ratio = log_ratio / ratio**2 * (2.0 if z.is_complex() else 1.0)
        chance = torch.special.ndtr(noise(_UNIFORM, Stream.MOVE))[:, 0].log()
        return torch.where(per_member(log_ratio > chance, z), proposal, z)


@dataclass(frozen=True)
class Renew:
    """Draws ``x_0`` and noises it again.

    Args:
        kept: ``c``, share of the old noise that is kept.

    Raises:
        InputError: a share outside [0, 1).
    """

    kept: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.kept < 1:
            raise InputError("share of kept noise out of range", got=self.kept, expected="[0, 1)")

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """``x_0' + c (z - x_0') + sqrt(1 - c^2) r eps``."""
        alpha, ratio = _levels(model, t)
        x_0 = model.draw(alpha * z, t, noise)
        fresh = (1 - self.kept**2) ** 0.5 * ratio
        renewed: Tensor = x_0 + self.kept * (z - x_0) + fresh * noise(model.grid, 0)
        return renewed


@dataclass(frozen=True)
class Corrected:
    """A sampler, with corrections after each of its steps but the last.

    Args:
        sampler: of priors, such as ``Heun(32)``.
        corrector: ``ULA()``, ``MALA()`` or ``Renew()``.
        corrections: how many after each step.

    Raises:
        InputError: fewer than one correction.
        UnsupportedError: a sampler that does without the score of the posterior.
    """

    sampler: RatioSampler
    corrector: Corrector = MALA()
    corrections: int = 1

    def __post_init__(self) -> None:
        if self.corrections < 1:
            raise InputError("too few corrections", got=self.corrections, expected=">= 1")
        if isinstance(self.sampler, UsesTerms) or not isinstance(self.sampler, RatioSampler):
            raise UnsupportedError(
                f"{type(self.sampler).__name__} has no score to correct by",
                got=self.sampler,
                expected="a sampler of priors",
                hint="Take Ancestral(), Heun() or another that goes with a conditioning.",
            )

    @property
    def steps(self) -> int:
        """Those of the sampler."""
        return self.sampler.steps

    @property
    def order(self) -> int:
        """That of the sampler."""
        return self.sampler.order

    @property
    def couples_members(self) -> bool:
        """As the sampler."""
        return self.sampler.couples_members

    @property
    def needs_grad(self) -> bool:
        """As the sampler."""
        return self.sampler.needs_grad

    def check(self, model: Posterior) -> None:
        """As the sampler."""
        self.sampler.check(model)

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> Any:
        """As the sampler."""
        return self.sampler.init(model, noise, realizations, device=device)

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """A step of the sampler, then corrections at the new noise level."""
        moved = self.sampler.step(model, noise, state)
        if moved.step == self.steps:
            return moved
        t = model.schedule.timesteps(self.steps)[moved.step]
        alpha, _ = _levels(model, t)
        z, draws = moved.x / alpha, noise.at(state.realizations, state.step, state.x.device)
        for i in range(self.corrections):
            inner = inner_noise(draws, _FIRST_SUBSTEP + i, state=state)
            z = self.corrector(model, z, t, noise=inner)
        return moved._replace(x=alpha * z)


def _levels(model: Posterior, t: Tensor) -> tuple[float, float]:
    """``alpha`` and the noise-to-signal ratio."""
    return float(model.schedule.alpha(t)), float(model.schedule.ratio(t))
