"""Twisted sequential Monte Carlo with the covariance of the clean field."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.arguments import as_share
from invdiff.conditioning.update import GaussianUpdate
from invdiff.covariance import Covariance
from invdiff.errors import CalibrationWarning, UnsupportedError
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
    """Twisted sequential Monte Carlo with the covariance of ``x_0`` given ``x_t``.

    Particles walk the reverse diffusion towards the data, with weights that correct the Gaussian
    shape assumed for ``p(x_0 | x_t)``. With the prior's moments ``m, C`` at ``x_t``, the twist is
    the evidence ``N(y; A m, Sigma + A C A^H)``. A step draws ``x_0' ~ N(m, C)`` given the data and,
    for ``z = x_t / alpha_t`` and ``r = sigma / alpha``::

        z_s = x_0' + b (z_t - x_0') + sqrt(v) eps,   b = r_s^2 / r_t^2,   v = r_s^2 (1 - b)
        w_s = w_t twist(z_s) / predicted(z_s | z_t)

    which is `Ancestral` with ``keep = 1``. ``predicted`` is the evidence of the data given both
    ``z_t`` and ``z_s`` under the Gaussian model at ``t``: what the twist at ``s`` was predicted to
    be. The last step draws ``x_0'`` itself, with weight ``p(y | x_0') / model(y | x_0')``, which is
    one where the data are linear. Particles are resampled systematically where their effective
    number falls below a threshold (Del Moral et al. 2006, doi 10.1111/j.1467-9868.2006.00553.x).
    The method extends TDS (Wu et al. 2023, arXiv 2306.17775), whose twist and kernel leave ``C``
    out.

    Assumptions: exact for Gaussian priors and linear Gaussian data in any number of steps, with
    weights that are constant in any dimension; otherwise as steps and particles grow. Where the
    covariance has no closed forms (a network's, whose size varies over the field) the stationary
    covariance of each member's mean variance replaces it: the weights are valid for any Gaussian
    model. Nonlinear operators and other noise are treated by `Laplace`.

    Cost: one network pass per step and particle, one more at the start, no vjp of the network;
    three solves per step.

    Args:
        steps: Number of steps.
        particles: Particles per member; at the end the members are resampled from all particles.
        threshold: Share of the particles below which the effective number leads to resampling.
        carry: Share of the other particles below which the effective number of a single step shows
            that the ensemble is too small for its weights. They are then dropped, and the run
            continues with one particle per member as `Ancestral` does.

    Raises:
        InputError: ``steps`` or ``particles`` is less than one, or a share lies outside [0, 1].

    Example:
        >>> import torch
        >>> from invdiff import Gaussian, Grid, Posterior, TwistedSMC
        >>> from invdiff.operators import Identity
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> from invdiff.samplers import ensemble
        >>> grid = Grid(("x",), (64,))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(64), torch.ones(64))  # N(0, 1)
        >>> y = torch.full((64,), 2.0)
        >>> posterior = Posterior(prior, Gaussian(y, Identity(grid), 1.0))  # N(1, 1/2)
        >>> drawn = ensemble(posterior, TwistedSMC(4), realizations=32, seed=0)
        >>> round(float(drawn.fields.mean()), 1), round(float(drawn.fields.var()), 1)
        (1.0, 0.5)
        >>> round(drawn.log_evidence, 1), round(drawn.effective_number, 2)  # exact: -64 - 32 log 2
        (-86.2, 1.0)
    """

    steps: int = 20
    particles: int = 4
    threshold: float = 0.5
    carry: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "carry", as_share("carry", self.carry))

    def check(self, model: Posterior) -> None:
        """Refuse a posterior whose conditioning does not give the evidence of the data.

        Raises:
            UnsupportedError: The conditioning does not give it; the error names those that do.
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
        """Particles at the largest noise level, drawn given the data, with their weights.

        Moments at the largest ratio, with the field in that noise taken out of them, are those of
        the prior itself: ``N(mu, G)``. With ``x_0'`` drawn from it given the data,
        ``z = x_0' + r eps`` has the weight ``p_G(y) twist(z) / p_G(y | z)``.

        Warns:
            CalibrationWarning: The noise does not hide the field. Particles are then noise only.
        """
        model = _closed(model)
        state = super().init(model, noise, realizations, device=device)
        walk, draws = self.walk(model, state), particle_noise(state._replace(step=-1), noise)
        precision = walk.ratio_t**-2
        prior = _update(model, state.x, walk.t).given(walk.z, -precision)
        if not torch.isfinite(prior.mean).all():
            warnings.warn(
                f"the largest noise of the schedule, {walk.ratio_t:.4g}, does not hide the field: "
                "weights of modes and coverage will be off. Give the prior a schedule whose "
                "ratio_max is several times the largest deviation of its fields.",
                CalibrationWarning,
                stacklevel=2,
            )
            return state
        x_0 = prior.draw(model.grid, draws)
        z = x_0 + walk.ratio_t * draws(model.grid, Stream.PARTICLE)
        predicted = prior.given(z, precision).log_evidence()
        return moved(state, walk.alpha_t * z, prior.log_evidence() - predicted)._replace(step=0)

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """Weight the particles, resample if necessary, and draw the next ones."""
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
        # Given z_t, z_s observes (1 - b) x_0 in noise of variance v.
        observed, precision = (z_s - b * walk.z) / (1 - b), (1 - b) ** 2 / v
        predicted = update.given(observed, precision).log_evidence()
        return moved(state, walk.alpha_s * z_s, -predicted)

    def _unweighted(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        after = Ancestral(self.steps).step(model, noise, state)
        return after._replace(memory=state.memory, log_weights=state.log_weights)


class _ClosedPrior(BasePrior):
    """A prior whose covariance has closed forms: how its size varies in space is left out."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.grid, self.schedule, self.needs_grad = prior.grid, prior.schedule, prior.needs_grad
        self.spread = getattr(prior, "spread", None)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """The mean ``(batch, *grid.shape)``, and the nearest covariance with closed forms."""
        mean, covariance = self.prior.moments(x_t, t)
        return mean, covariance.closed() or covariance

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """The prior's own draw, ``(batch, *grid.shape)``."""
        return self.prior.draw(x_t, t, noise)


def _closed(model: Posterior) -> Posterior:
    prior = _ClosedPrior(model.prior)
    return Posterior(prior, *model.terms, conditioning=model.conditioning)


def _dropped(state: SamplerState) -> SamplerState:
    """The state with one particle per member, equal weights, and no evidence."""
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
