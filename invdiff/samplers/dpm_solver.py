"""DPM-Solver++(2M) and its stochastic form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.samplers.base import RatioSampler, SamplerState, Walk

__all__ = ["DPMSolver", "SDEDPMSolver"]


@dataclass(frozen=True)
class DPMSolver(RatioSampler):
    """DPM-Solver++(2M) for the probability flow (Lu et al. 2022, arXiv 2211.01095).

    With ``h = log(r_t / r_s)``, the moments ``m_t = E[x_0 | x_t, y]`` of this step and the previous
    one, and ``D = m_t + (h / 2 h_prev) (m_t - m_prev)``::

        z_s = e^-h z_t + (1 - e^-h) D

    Assumptions: exact as steps grow and the moments are exact; of second order, deterministic after
    the first draw. Cost: one network pass per step and member, and what the conditioning takes.

    Args:
        steps: Number of steps.

    Raises:
        InputError: ``steps`` is less than one.
    """

    steps: int = 32
    order: ClassVar[int] = 2

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Exponential two-step update; of first order at both ends of the walk."""
        mean = model.denoise(state.x, walk.t)
        decay = walk.ratio_s / walk.ratio_t
        slope = _extrapolated(mean, model, walk, state=state, steps=self.steps)
        return decay * walk.z + (1 - decay) * slope, (mean,)


@dataclass(frozen=True)
class SDEDPMSolver(RatioSampler):
    """SDE-DPM-Solver++(2M): the solver with fresh noise (Lu et al. 2022, arXiv 2211.01095).

    With ``h = log(r_t / r_s)``, the moments ``m_t = E[x_0 | x_t, y]`` of this step and the previous
    one, and ``D = m_t + (h / 2 h_prev) (m_t - m_prev)``::

        z_s = e^-2h z_t + (1 - e^-2h) D + r_s sqrt(1 - e^-2h) eps

    Assumptions: exact as steps grow and the moments are exact; of second order in distribution (its
    variance). The fresh noise of each step forgets earlier errors. Cost: one network pass per step
    and member, and what the conditioning takes.

    Args:
        steps: Number of steps.

    Raises:
        InputError: ``steps`` is less than one.
    """

    steps: int = 64
    order: ClassVar[int] = 2

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Exponential two-step update with fresh noise; of first order at both ends of the walk."""
        mean = model.denoise(state.x, walk.t)
        decay = (walk.ratio_s / walk.ratio_t) ** 2
        slope = _extrapolated(mean, model, walk, state=state, steps=self.steps)
        fresh = walk.ratio_s * (1 - decay) ** 0.5
        return decay * walk.z + (1 - decay) * slope + fresh * noise(model.grid, 0), (mean,)


def _extrapolated(
    mean: Tensor, model: Posterior, walk: Walk, *, state: SamplerState, steps: int
) -> Tensor:
    """``D``: the mean extrapolated to the middle of the step."""
    if not state.memory:
        return mean
    previous = float(model.schedule.ratio(model.schedule.timesteps(steps)[state.step - 1]))
    h = math.log(walk.ratio_t / walk.ratio_s)
    h_previous = math.log(previous / walk.ratio_t)
    return mean + h / (2 * h_previous) * (mean - state.memory[0])
