r"""Twisted sequential Monte Carlo with the covariance of ``x_0`` given ``x_t``.

Particles walk the reverse diffusion towards the data and are weighted for what the Gaussian shape
of ``p(x_0 | x_t)`` got wrong. With ``m, C`` the prior's moments at ``x_t``, the twist is the
evidence ``N(y; A m, Sigma + A C A^H)``; a step draws ``x_0' ~ N(m, C)`` given the data and

    z_s = x_0' + b (z_t - x_0') + sqrt(v) eps,   b = r_s^2 / r_t^2,   v = r_s^2 (1 - b)

(:class:`Ancestral` with ``keep = 1``). Under the Gaussian model at ``t`` the evidence of the data
given both ``z_t`` and ``z_s`` is known: what the twist at ``s`` was predicted to be. The weight is

    w_s = w_t twist(z_s) / predicted(z_s | z_t),

constant for a Gaussian prior in any dimension, so that nothing degenerates there. The last step
draws ``x_0'`` itself, of weight ``p(y | x_0') / model(y | x_0')``, one where the data are linear.
Systematic resampling where the effective number falls below a threshold (Del Moral et al. 2006). In
the spirit of TDS (Wu et al. 2023, arXiv 2306.17775), whose twist and kernel leave ``C`` out.

Exact for Gaussian priors in any number of steps; else as steps and particles grow. Where the
covariance has no closed forms, as a network's with a map of its size, the stationary one of each
member's mean variance takes its place: the weights hold for any Gaussian model. Nonlinear operators
and other noise go through :class:`Laplace`. Cost: one network pass a particle and step,
no differentiation of it, and one more at the start; three solves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.arguments import as_share
from invdiff.conditioning.update import GaussianUpdate
from invdiff.covariance import Covariance
from invdiff.errors import UnsupportedError
from invdiff.noise import NoiseField, StepNoise, Stream
from invdiff.posterior import Posterior
from invdiff.protocols import BasePrior, Prior
from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.base import SamplerState
from invdiff.samplers.particles import ParticleSampler, particle_noise
from invdiff.samplers.resampling import effective_number, moved, reweigh

__all__ = ["TwistedSMC"]


@dataclass(frozen=True)
class TwistedSMC(ParticleSampler):
    """Particles whose weights know the covariance.

    Args:
        steps: number of steps.
        particles: particles a member; at the end as many members are resampled.
        threshold: share of the particles below which the effective number leads to resampling.
        carry: share of the other particles below which, in a single step, the effective number
            says that the ensemble cannot carry its weights: they are dropped, and the run goes on
            with one particle a member as ``Ancestral()`` does.

    Raises:
        InputError: fewer than one step or particle, or a share outside [0, 1].
    """

    steps: int = 40
    particles: int = 4
    threshold: float = 0.5
    carry: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "carry", as_share("carry", self.carry))

    def check(self, model: Posterior) -> None:
        """Refuse a posterior whose conditioning has no evidence.

        Raises:
            UnsupportedError: with a conditioning that would do.
        """
        if not model.method.has_evidence:
            raise UnsupportedError(
                "TwistedSMC needs the evidence of the data given x_t",
                got=f"conditioning={model.conditioning!r}",
                expected="MomentMatching(), JacobianFree(...) or Laplace()",
                hint="Leave the conditioning out.",
            )

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """Particles of noise around fields that the data allow already.

        Moments at the largest ratio, with the field in that noise taken out of them again, are
        those of the prior itself: ``N(mu, G)``. With ``x_0'`` drawn from it given the data,
        ``z = x_0' + r eps`` has the weight ``p_G(y) twist(z) / p_G(y | z)``. Where the moments do
        not allow that (a field larger than the noise), particles are noise alone, as elsewhere.
        """
        model = _closed(model)
        state = super().init(model, noise, realizations, device=device)
        walk, draws = self.walk(model, state), particle_noise(state._replace(step=-1), noise)
        precision = walk.ratio_t**-2
        prior = _update(model, state.x, walk.t).given(walk.z, -precision)
        if not torch.isfinite(prior.mean).all():
            return state
        x_0 = prior.draw(model.grid, draws)
        z = x_0 + walk.ratio_t * draws(model.grid, Stream.PARTICLE)
        predicted = prior.given(z, precision).log_evidence()
        return moved(state, walk.alpha_t * z, prior.log_evidence() - predicted)._replace(step=0)

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """Weigh, resample if need be, draw."""
        if bool(state.memory[0].isnan()):
            return self._unweighted(model, noise, state)
        t = self.walk(model, state).t
        update = _update(_closed(model), state.x, t)
        increment = update.log_evidence()
        assert state.log_weights is not None
        carrying = effective_number(state.log_weights + increment.double())
        if carrying < 1 + self.carry * (len(increment) - 1):
            return self._unweighted(model, noise, _dropped(state))
        draws = particle_noise(state, noise)
        state, kept = reweigh(state, increment, draws, threshold=self.threshold)
        update = update if kept is None else update.take(kept)
        walk = self.walk(model, state)
        # Without data a prior's own draw is better than that of its Gaussian.
        x_0 = update.draw(model.grid, draws) if model.terms else model.draw(state.x, walk.t, draws)
        if walk.ratio_s == 0:
            log_ratio = _log_likelihood(model, x_0, walk.s) - update.log_likelihood(x_0)
            return moved(state, x_0, log_ratio)
        b = (walk.ratio_s / walk.ratio_t) ** 2
        v = walk.ratio_s**2 * (1 - b)
        z_s = x_0 + b * (walk.z - x_0) + v**0.5 * draws(model.grid, 0)
        # What z_s tells of x_0 beside z_t is (1 - b) x_0 in noise of variance v.
        seen, precision = (z_s - b * walk.z) / (1 - b), (1 - b) ** 2 / v
        predicted = update.given(seen, precision).log_evidence()
        return moved(state, walk.alpha_s * z_s, -predicted)

    def _unweighted(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        after = Ancestral(self.steps).step(model, noise, state)
        return after._replace(memory=state.memory, log_weights=state.log_weights)


class _ClosedPrior(BasePrior):
    """A prior whose covariance has closed forms, by leaving out how its size varies in space."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.grid, self.schedule, self.needs_grad = prior.grid, prior.schedule, prior.needs_grad

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """The mean, and the nearest covariance with closed forms."""
        mean, covariance = self.prior.moments(x_t, t)
        return mean, covariance.closed() or covariance

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """The prior's own draw."""
        return self.prior.draw(x_t, t, noise)


def _closed(model: Posterior) -> Posterior:
    prior = _ClosedPrior(model.prior)
    return Posterior(prior, *model.terms, conditioning=model.conditioning)


def _dropped(state: SamplerState) -> SamplerState:
    """One particle a member, equal weights, no evidence."""
    assert state.log_weights is not None
    x = state.x[:: len(state.x) // len(state.realizations)]
    nan = torch.full_like(state.memory[0], torch.nan)
    return state._replace(
        x=x, memory=(nan,), log_weights=torch.zeros_like(state.log_weights[: len(x)])
    )


def _update(model: Posterior, x_t: Tensor, t: Tensor) -> GaussianUpdate:
    update = model.update(x_t, t)
    assert isinstance(update, GaussianUpdate)
    return update


def _log_likelihood(model: Posterior, x_0: Tensor, t: Tensor) -> Tensor:
    zero = torch.zeros(len(x_0), dtype=x_0.dtype.to_real(), device=x_0.device)
    return sum((term.log_prob(x_0, x_0, t) for term in model.terms), zero)
