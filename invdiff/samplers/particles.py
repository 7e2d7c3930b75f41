"""The base class of particle filters: several weighted particles per member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from invdiff.arguments import as_integer, as_share
from invdiff.noise import NoiseField, StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import LevelSampler, SamplerState
from invdiff.samplers.resampling import weighted

__all__ = ["ParticleSampler", "particle_noise"]


@dataclass(frozen=True)
class ParticleSampler(LevelSampler):
    """Weighted particles; members depend on each other, and the ensemble is the unit of work.

    Args:
        steps: Number of steps.
        particles: Particles per member; at the end the members are resampled from all particles.
        threshold: Share of the particles below which the effective number leads to resampling.

    Raises:
        InputError: ``steps`` or ``particles`` is less than one, or the threshold lies outside [0,
            1].
    """

    steps: int = 100
    particles: int = 1
    threshold: float = 0.5
    couples_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "particles", as_integer("particles", self.particles, least=1))
        object.__setattr__(self, "threshold", as_share("threshold", self.threshold))

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """Equally weighted particles of noise at the largest noise level."""
        ids = _numbers(realizations, self.particles)
        return weighted(super().init(model, noise, ids, device=device), realizations)


def particle_noise(state: SamplerState, noise: NoiseField) -> StepNoise:
    """The noise of the next step, with its own values for each particle of a member."""
    per_member = len(state.x) // len(state.realizations)
    return noise.at(_numbers(state.realizations, per_member), state.step, state.x.device)


def _numbers(realizations: Sequence[int], per_member: int) -> tuple[int, ...]:
    """Distinct numbers that address the noise of the particles."""
    return tuple(r * per_member + j for r in realizations for j in range(per_member))
