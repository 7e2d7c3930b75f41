r"""Heun's method on the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

dz/dr = (z - E[x_0|x_t]) / r
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import RatioSampler, SamplerState, Walk

__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun(RatioSampler):
    """Second order, deterministic after the first draw; two passes a step (one in the last).

    Args:
        steps: number of steps.
    """

    steps: int = 64
    order: ClassVar[int] = 2

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Trapezoidal step."""
        mean = model.denoise(state.x, walk.t)
        slope = (walk.z - mean) / walk.ratio_t
        h = walk.ratio_s - walk.ratio_t
        z = walk.z + h * slope
        mean = model.denoise(walk.alpha_s * z, walk.s)
        return walk.z + h / 2 * (slope + (z - mean) / walk.ratio_s), ()
