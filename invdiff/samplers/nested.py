"""Runs of one sampler inside a step of another."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.protocols import Prior
from invdiff.samplers.base import RatioSampler, SamplerState, Walk

__all__ = ["descend", "inner_noise"]

_SUBSTEP = 1 << 24  # between the noise addresses of steps inside a step


def inner_noise(noise: StepNoise, k: int, *, state: SamplerState) -> StepNoise:
    """The noise of step ``k`` inside a step, independent of that of all other steps."""
    return noise.field.at(state.realizations, state.step + (k + 1) * _SUBSTEP, state.x.device)


def descend(
    kernel: RatioSampler,
    prior: Prior,
    z: Tensor,
    *,
    ratio: float,
    noise: StepNoise,
    state: SamplerState,
) -> Tensor:
    """Run all steps of another sampler from a noise level down to clean fields, inside one step.

    Args:
        kernel: Sampler whose steps are spaced from ``ratio`` to zero as the prior's schedule does.
        prior: Prior to draw from.
        z: Noisy fields ``x_0 + ratio eps``, ``(batch, *grid.shape)``.
        ratio: Noise-to-signal ratio of ``z``.
        noise: Noise of the outer step.
        state: State of the outer run, which addresses the noise.

    Returns:
        Clean fields, ``(batch, *grid.shape)``.
    """
    model, schedule, n = Posterior(prior), prior.schedule, kernel.steps
    high, low = ratio ** (1 / schedule.rho), schedule.ratio_min ** (1 / schedule.rho)
    ratios = (high + torch.linspace(0, 1, n, dtype=torch.float64) * (low - high)) ** schedule.rho
    times = schedule.time(ratios)
    levels = list(zip(times, ratios.tolist(), schedule.alpha(times).tolist(), strict=True))
    for i, ((t, ratio_t, alpha_t), (s, ratio_s, alpha_s)) in enumerate(pairwise(levels)):
        walk = Walk(t, z, ratio_t, ratio_s, alpha_t, alpha_s, s)
        at = state._replace(x=alpha_t * z)
        z, _ = kernel.advance(model, walk, inner_noise(noise, i, state=state), state=at)
    last = inner_noise(noise, n - 1, state=state)
    return kernel.finish(model, levels[-1][2] * z, times[-1], noise=last)
