"""Correctors: steps at one noise level that leave its distribution invariant."""

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
from invdiff.posterior import Posterior, TrackedPosterior
from invdiff.samplers.base import RatioSampler, SamplerState, UsesTerms
from invdiff.samplers.nested import inner_noise

__all__ = ["MALA", "ULA", "Corrected", "Corrector", "Renew"]

_UNIFORM = Grid(("u",), (1,), torch.float64)
_FIRST_SUBSTEP = 100  # past those that a sampler takes inside its step


class Corrector(Protocol):
    """One step at a noise level, towards the distribution of ``z = x_t / alpha_t`` there."""

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """New ``z = x_t / alpha_t``, ``(batch, *grid.shape)``, at the same time ``t``."""
        ...


def _check_step(step_size: float) -> None:
    if not 0 < step_size <= 1:
        raise InputError(
            "the step size is out of range",
            got=step_size,
            expected="0 < step_size <= 1, in units of the squared noise level",
        )


@dataclass(frozen=True)
class ULA:
    """Unadjusted Langevin steps at one noise level.

    With ``m = E[x_0 | x_t, y]`` the score of ``z = x_t / alpha_t`` is ``(m - z) / r^2``; a step in
    units of ``r^2``, the least variance of any direction, is::

        z' = z + h (m - z) + sqrt(2 h) r eps

    (Song et al. 2021, arXiv 2011.13456.) Assumptions: a small step, for it inflates the variance by
    up to ``1 / (1 - h/2)``, most where the noise dominates; errors of the conditioning remain.
    Cost: one evaluation of the model (a network pass, and the vjps of the conditioning) per step
    and member.

    Args:
        step_size: Step ``h``, in units of the squared noise level, in (0, 1].

    Raises:
        InputError: The step size lies outside (0, 1].
    """

    step_size: float = 0.1

    def __post_init__(self) -> None:
        _check_step(self.step_size)

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """One step ``z + h (m - z) + sqrt(2 h) r eps``, ``(batch, *grid.shape)``."""
        alpha, ratio = _levels(model, t)
        eps = noise(model.grid, 0).to(z.dtype)
        drift = self.step_size * (model.denoise(alpha * z, t) - z)
        stepped: Tensor = z + drift + (2 * self.step_size) ** 0.5 * ratio * eps
        return stepped


@dataclass(frozen=True)
class MALA:
    """Langevin steps at one noise level that are accepted or rejected.

    The proposal ``z'`` is that of `ULA` (Roberts & Tweedie 1996, doi 10.2307/3318418). With
    ``g = m - z`` and ``g'`` its value at ``z'``, it is accepted with the probability
    ``min(1, exp(a))``::

        a = Re <g + g', z' - z> / (2 r^2) + (|z' - z - h g|^2 - |z - z' - h g'|^2) / (4 h r^2)

    (twice that for complex fields). A score gives no density to accept by, so the first part
    integrates it along the straight line from ``z`` to ``z'`` by the trapezoidal rule.

    Assumptions: exact where ``p_t`` is Gaussian, otherwise of third order in the step; errors of
    the conditioning remain. Cost: two evaluations of the model (network passes, and the vjps of the
    conditioning) per step and member.

    Args:
        step_size: Step ``h``, in units of the squared noise level, in (0, 1].

    Raises:
        InputError: The step size lies outside (0, 1].
    """

    step_size: float = 0.3

    def __post_init__(self) -> None:
        _check_step(self.step_size)

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """The proposal of :class:`ULA` where it is accepted, otherwise ``z``."""
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
    """Gibbs steps at one noise level: draw a clean field, then noise it again.

    The Langevin step preconditioned by the covariance, with the model's moments ``m`` and ``C``::

        z' = x_0' + c (z - x_0') + sqrt(1 - c^2) r eps,   x_0' ~ N(m, C)

    Assumptions: no step size, and no bias where ``p(x_0 | x_t, y)`` is Gaussian; errors of the
    conditioning remain. Cost: one draw of the model (a network pass and a solve) per step and
    member.

    Args:
        kept: Share ``c`` of the old noise that is kept, in [0, 1).

    Raises:
        InputError: The share lies outside [0, 1).
    """

    kept: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.kept < 1:
            raise InputError("kept is out of range", got=self.kept, expected="[0, 1)")

    def __call__(self, model: Posterior, z: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """One step ``x_0' + c (z - x_0') + sqrt(1 - c^2) r eps``, ``(batch, *grid.shape)``."""
        alpha, ratio = _levels(model, t)
        x_0 = model.draw(alpha * z, t, noise)
        fresh = (1 - self.kept**2) ** 0.5 * ratio
        renewed: Tensor = x_0 + self.kept * (z - x_0) + fresh * noise(model.grid, 0)
        return renewed


@dataclass(frozen=True)
class Corrected:
    """A predictor with corrections: a sampler, and corrector steps after each of its steps.

    After each step of a sampler the distribution of ``z = x_t / alpha_t`` has drifted from ``p_t``;
    a corrector leaves ``p_t`` invariant and forgets the drift (predictor-corrector sampling, Song
    et al. 2021, arXiv 2011.13456). The last step, which leaves no noise, is not corrected. Cost:
    that of the sampler, and of ``corrections`` corrector steps per step.

    Args:
        sampler: Sampler that works with a conditioning, such as ``Heun(32)``.
        corrector: Corrector: ``ULA()``, ``MALA()`` or ``Renew()``.
        corrections: Number of corrector steps after each step of the sampler.

    Raises:
        InputError: ``corrections`` is less than one.
        UnsupportedError: The sampler does not use the score of the posterior.
    """

    sampler: RatioSampler
    corrector: Corrector = MALA()
    corrections: int = 1

    def __post_init__(self) -> None:
        if self.corrections < 1:
            raise InputError("too few corrections", got=self.corrections, expected=">= 1")
        if isinstance(self.sampler, UsesTerms) or not isinstance(self.sampler, RatioSampler):
            raise UnsupportedError(
                f"{type(self.sampler).__name__} does not use a score that could be corrected",
                got=self.sampler,
                expected="a sampler that works with a conditioning",
                hint="Use Ancestral(), Heun() or another sampler that works with a conditioning.",
            )

    @property
    def steps(self) -> int:
        """Number of steps of the sampler."""
        return self.sampler.steps

    @property
    def order(self) -> int:
        """Order of accuracy of the sampler."""
        return self.sampler.order

    @property
    def couples_members(self) -> bool:
        """Whether the members of the sampler depend on each other."""
        return self.sampler.couples_members

    @property
    def needs_grad(self) -> bool:
        """Whether the sampler differentiates, which excludes torch's inference mode."""
        return self.sampler.needs_grad

    def check(self, model: Posterior) -> None:
        """Refuse a model that the sampler cannot draw from."""
        self.sampler.check(model)

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> Any:
        """State of the sampler before its first step."""
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
            z = self.corrector(TrackedPosterior(model, moved.innovations), z, t, noise=inner)
        return moved._replace(x=alpha * z)


def _levels(model: Posterior, t: Tensor) -> tuple[float, float]:
    """``alpha`` and the noise-to-signal ratio."""
    return float(model.schedule.alpha(t)), float(model.schedule.ratio(t))
