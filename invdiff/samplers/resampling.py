"""Weighted particles: effective number, resampling, evidence, equally weighted members."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invdiff.errors import DivergedError
from invdiff.grid import Grid
from invdiff.noise import NoiseField, StepNoise, Stream
from invdiff.samplers.base import SamplerState

__all__ = [
    "effective_number",
    "log_evidence",
    "members_of",
    "moved",
    "reweigh",
    "systematic",
    "weighted",
]


def effective_number(log_weights: Tensor) -> float:
    """Effective number ``(sum w)^2 / sum w^2`` of particles (Kong 1992), at least 1."""
    log = log_weights.double()
    return float(torch.exp(2 * log.logsumexp(0) - (2 * log).logsumexp(0)))


def systematic(log_weights: Tensor, n: int, noise: StepNoise) -> Tensor:
    """Indices ``(n,)`` of particles kept by systematic resampling (Carpenter et al. 1999).

    One uniform number places ``n`` even marks on the cumulative weights: a particle of weight ``w``
    is kept ``floor(n w)`` or ``ceil(n w)`` times.

    Args:
        log_weights: Log-weights ``(particles,)``, not normalised.
        n: Number of particles to keep.
        noise: Noise of this step; the uniform number of its first member is used.
    """
    first = StepNoise(noise.field, noise.realizations[:1], noise.step, noise.device)
    normal = first(Grid(("u",), (1,), torch.float64), Stream.RESAMPLING)
    edges = torch.softmax(log_weights.double(), 0).cumsum(0)
    marks = (torch.arange(n, device=edges.device) + torch.special.ndtr(normal[0])) / n
    return torch.searchsorted(edges / edges[-1], marks).clamp_max(len(edges) - 1)


def moved(state: SamplerState, x: Tensor, log_increment: Tensor) -> SamplerState:
    """The state one step later: particles at ``x``, weights multiplied."""
    assert state.log_weights is not None
    log_weights = state.log_weights + log_increment.double()
    return state._replace(x=x, step=state.step + 1, log_weights=log_weights)


def weighted(state: SamplerState, realizations: Sequence[int]) -> SamplerState:
    """A weighted state: one or more particles per member, of equal weight, with evidence one.

    The first memory of a weighted state is the logarithm of what earlier resamplings took out of
    the weights: the evidence so far.
    """
    equal = torch.zeros(len(state.x), dtype=torch.float64, device=state.x.device)
    evidence = torch.zeros(1, dtype=torch.float64, device=state.x.device)
    return state._replace(realizations=tuple(realizations), memory=(evidence,), log_weights=equal)


def reweigh(
    state: SamplerState, log_increment: Tensor, noise: StepNoise, *, threshold: float
) -> tuple[SamplerState, Tensor | None]:
    """Multiply the weights; resample where the effective number is below a share of the particles.

    Args:
        state: Weighted state.
        log_increment: Logarithms of the factors, ``(particles,)``.
        noise: Noise of this step.
        threshold: Share of the particles, between 0 and 1.

    Returns:
        The state with ``x`` resampled or not, and the indices of the particles that were kept, or
        None if all were.

    Raises:
        DivergedError: No weight is finite.
    """
    assert state.log_weights is not None
    log_weights = state.log_weights + log_increment.double()
    if not torch.isfinite(log_weights.logsumexp(0)):
        raise DivergedError(
            "the weights of all particles are zero or not finite",
            got=f"log-weights up to {float(log_weights.max())} after step {state.step}",
            hint="Check the noise level, or use more steps or particles.",
        )
    if effective_number(log_weights) >= threshold * len(log_weights):
        return state._replace(log_weights=log_weights), None
    kept = systematic(log_weights, len(log_weights), noise)
    evidence, *rest = state.memory
    evidence = evidence + log_weights.logsumexp(0) - math.log(len(log_weights))
    zeros = torch.zeros_like(log_weights)
    return state._replace(x=state.x[kept], memory=(evidence, *rest), log_weights=zeros), kept


def log_evidence(state: SamplerState) -> float:
    """``log p(y)`` estimated so far, without the normalisation of the noise.

    It is NaN where the weights were dropped during the run.
    """
    assert state.log_weights is not None
    mean = state.log_weights.logsumexp(0) - math.log(len(state.log_weights))
    return float(state.memory[0] + mean)


def members_of(state: SamplerState, seed: int) -> Tensor:
    """Equally weighted members ``(len(realizations), ...)`` of a finished state."""
    if state.log_weights is None:
        return state.x
    noise = NoiseField(seed).at(state.realizations, state.step, state.x.device)
    return state.x[systematic(state.log_weights, len(state.realizations), noise)]
