"""TDS: the twisted diffusion sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.linalg import squared_norm
from invdiff.needs import Needs
from invdiff.noise import NoiseField
from invdiff.posterior import Posterior
from invdiff.protocols import Prior, Term
from invdiff.samplers.base import SamplerState, UsesTerms
from invdiff.samplers.particles import ParticleSampler, particle_noise
from invdiff.samplers.resampling import moved, reweigh

__all__ = ["TDS"]


@dataclass(frozen=True)
class TDS(ParticleSampler, UsesTerms):
    """The twisted diffusion sampler (Wu et al. 2023, arXiv 2306.17775).

    DDPM steps guided by the twist ``p(y | m)`` with ``m = E[x_0 | x_t]``, and weights that correct
    the guidance::

        p(z_s | z_t) = N(b z_t + (1 - b) m, v I)
        z_s ~ q(z_s | z_t) = N(b z_t + (1 - b) (m + r_t^2 grad_z log twist), v I)
        w_s = w_t twist(z_s) p(z_s | z_t) / (twist(z_t) q(z_s | z_t))

    with ``b = r_s^2 / r_t^2`` and ``v = r_s^2 (1 - b)``.

    Assumptions: differentiable terms. Exact as particles and steps grow; with few of either the
    twist, which ignores the spread of ``x_0`` given ``x_t``, leaves few particles with weight.

    Cost: one network pass and one vjp of it per step and particle (three passes, a vjp counted as
    two).

    Args:
        steps: Number of steps.
        particles: Particles per member; at the end the members are resampled from all particles.
        threshold: Share of the particles below which the effective number leads to resampling.

    Raises:
        InputError: ``steps`` or ``particles`` is less than one, or the threshold lies outside [0,
            1].
    """

    needs: ClassVar[Needs] = Needs.GRADIENT

    needs_grad: ClassVar[bool] = True

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """Weight the particles, resample if necessary, and take a guided step."""
        prior, terms = self.parts(model)
        t = self.walk(model, state).t
        mean, twist, gradient = _guided(prior, terms, state.x, t=t)
        draws = particle_noise(state, noise)
        state, kept = reweigh(state, twist, draws, threshold=self.threshold)
        if kept is not None:
            mean, twist, gradient = mean[kept], twist[kept], gradient[kept]
        walk = self.walk(model, state)
        if walk.ratio_s == 0:  # the twist there is the likelihood of the mean itself
            return state._replace(x=mean, step=state.step + 1)
        # The gradient by z is alpha times that by x; for complex fields half of torch's: its parts
        # each have half the noise.
        half = 0.5 if state.x.is_complex() else 1.0
        pull = half * walk.alpha_t * walk.ratio_t**2 * gradient
        b = (walk.ratio_s / walk.ratio_t) ** 2
        v = walk.ratio_s**2 * (1 - b)
        eps = draws(model.grid, 0)
        unguided = b * walk.z + (1 - b) * mean
        z_s = unguided + (1 - b) * pull + v**0.5 * eps
        scale = 1.0 if state.x.is_complex() else 0.5
        log_ratio = scale * (squared_norm(eps) - squared_norm(z_s - unguided) / v)
        return moved(state, walk.alpha_s * z_s, log_ratio - twist)


def _guided(
    prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``E[x_0 | x_t]``, the log-twist ``(batch,)`` and its gradient by ``x_t``."""
    with torch.enable_grad():
        leaf = x_t.detach().clone().requires_grad_()
        mean = prior.denoise(leaf, t)
        twist = sum((term.log_prob(mean, leaf, t) for term in terms), 0 * squared_norm(leaf))
        (gradient,) = torch.autograd.grad(twist.sum(), leaf)
    return mean.detach(), twist.detach(), gradient
