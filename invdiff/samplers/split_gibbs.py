"""Split Gibbs sampling, as in PnP-DM and DPnP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.laplace import Laplace
from invdiff.conditioning.update import GaussianUpdate
from invdiff.covariance import SpectralCovariance
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.linalg import per_member, squared_norm
from invdiff.needs import Needs
from invdiff.noise import StepNoise, Stream
from invdiff.posterior import Posterior
from invdiff.protocols import Term
from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.base import SamplerState, TermSampler, Walk
from invdiff.samplers.nested import descend, inner_noise

__all__ = ["SplitGibbs", "coupled", "linear_gaussian", "log_terms"]

_UNIFORM = Grid(("u",), (1,), torch.float64)
_TOLERANCE = 0.05  # of iterative solves, in standard deviations


@dataclass(frozen=True)
class SplitGibbs(TermSampler):
    """Split Gibbs sampling: alternate between the data and the prior.

    PnP-DM (Wu et al. 2024, arXiv 2405.18782) and DPnP (Xu & Chi 2024, arXiv 2403.17042). A copy
    ``z`` of the field carries the data and is coupled to it by ``N(z; x_0, rho^2 I)``. In turn::

        z   ~ p(y | z) N(z; x_0, rho^2 I)          the data, without the prior
        x_0 ~ p(x_0 | x_0 + rho eps = z)           the prior, without the data

    while ``rho`` falls geometrically; the first step draws from the prior. ``x_0`` is drawn by the
    ancestral kernel from the ratio ``rho`` down. ``z`` is drawn exactly for linear Gaussian terms
    (perturb and solve), otherwise by Metropolis steps around the Laplace approximation
    ``N(m, K^-1)``::

        z' = m + sqrt(1 - b^2) (z - m) + b K^-1/2 eps,   b = 1, 1/2, 1/4, ...

    These leave that Gaussian invariant, so that acceptance costs one likelihood each (Rudolf &
    Sprungk 2018, arXiv 1504.03461); unlike those of MALA, their steps do not shrink where the data
    outweigh the coupling.

    Assumptions: differentiable likelihoods; no guidance weight. The limit is the posterior under
    the noise ``N(0, Sigma + rho^2 A A^H)``: too wide, by a share ``rho^2 / s^2`` of the variance of
    the data. It is reached only if ``rho`` falls slowly, since a sweep at ``rho`` moves directions
    that are not measured by about ``rho``.

    Cost: ``calls`` network passes per step and member, no vjp of the network; one solve per step,
    or a few Gauss-Newton steps and ``inner_steps`` operator calls.

    Args:
        steps: Number of steps: one draw from the prior, then Gibbs sweeps.
        rho_max: First coupling, in units of the field; a few of its standard deviations.
        rho_min: Last coupling; a third of the noise's standard deviation in units of the field
            leaves the spread a few per cent too wide.
        last_sweeps: Number of steps that stay at ``rho_min``.
        calls: Network passes that draw ``x_0`` given ``z``.
        inner_steps: Metropolis steps that draw ``z`` given ``x_0`` where that is not exact.

    Raises:
        InputError: There are too few steps, or the couplings do not fall.

    Example:
        >>> import torch
        >>> from invdiff import Gaussian, Grid, Posterior, SplitGibbs, sample
        >>> from invdiff.operators import Identity
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> grid = Grid(("x",), (64,))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(64), torch.ones(64))  # N(0, 1)
        >>> y = torch.full((64,), 2.0)
        >>> posterior = Posterior(prior, Gaussian(y, Identity(grid), 1.0))  # N(1, 1/2)
        >>> sampler = SplitGibbs(40, rho_max=2.0, rho_min=0.2, last_sweeps=20)
        >>> members = sample(posterior, sampler, realizations=32, seed=0)
        >>> round(float(members.mean()), 1), round(float(members.var()), 1)
        (1.0, 0.5)
    """

    needs: ClassVar[Needs] = Needs.GRADIENT | Needs.ANALYTIC

    steps: int = 32
    rho_max: float = 5.0
    rho_min: float = 0.05
    last_sweeps: int = 2
    calls: int = 8
    inner_steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        falls = 0 < self.rho_min < self.rho_max
        few = self.steps < self.last_sweeps + 2
        if not falls or few or min(self.last_sweeps, self.calls, self.inner_steps) < 1:
            raise InputError(
                "the couplings of split Gibbs sampling are out of range",
                got=self,
                expected="0 < rho_min < rho_max, steps >= last_sweeps + 2, counts >= 1",
            )

    def check(self, model: Posterior) -> None:
        """Refuse terms that cannot be used, and couplings outside the prior's noise levels.

        Raises:
            UnsupportedError: A term has no complex-linear derivative.
            InputError: A coupling lies outside the schedule.
        """
        super().check(model)
        schedule = model.schedule
        if not schedule.ratio_min <= self.rho_min or not self.rho_max <= schedule.ratio_max:
            raise InputError(
                "the couplings lie outside the noise levels of the prior",
                got=f"rho from {self.rho_max} to {self.rho_min}",
                expected=f"within {schedule.ratio_max} to {schedule.ratio_min}",
                hint="Choose rho_max and rho_min in the units of this prior.",
            )

    def coupling(self, step: int) -> float:
        """Coupling ``rho`` of a step, counted from 1, in units of the field."""
        n = self.steps - 1 - self.last_sweeps
        share = min(1.0, step / n)
        return float(self.rho_max ** (1 - share) * self.rho_min**share)

    def walk(self, model: Posterior, state: SamplerState) -> Walk:
        """From one coupling to the next; after step 0, ``z`` and the state are clean fields."""
        if state.step == 0:
            walk = super().walk(model, state)
            return walk._replace(ratio_s=walk.ratio_t, alpha_s=1.0, s=walk.t)
        rhos = [self.coupling(step) for step in (state.step - 1, state.step)]
        t, s = (model.schedule.time(torch.tensor(rho, dtype=torch.float64)) for rho in rhos)
        return Walk(t, state.x, rhos[0], rhos[1], 1.0, 1.0, s)

    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A draw from the prior, or one Gibbs sweep; the memory is ``z``."""
        prior, terms = self.parts(model)
        if state.step == 0:
            z = walk.z
        elif linear_gaussian(terms):
            z = coupled(walk.z, walk.ratio_s, terms).draw(model.grid, noise)
        else:
            z = self._metropolis(walk, terms, noise, state=state, grid=model.grid)
        kernel = Ancestral(self.calls, keep=1.0)
        x_0 = descend(kernel, prior, z, ratio=walk.ratio_s, noise=noise, state=state)
        return x_0, (z,)

    def _metropolis(
        self,
        walk: Walk,
        terms: Sequence[Term],
        noise: StepNoise,
        *,
        state: SamplerState,
        grid: Grid,
    ) -> Tensor:
        """Metropolis steps from the last ``z``; ``p(y | z) N(z; x_0, rho^2 I)`` is invariant."""
        x, rho = walk.z, walk.ratio_s
        update = coupled(x, rho, terms)
        mode = update.posterior_mean()
        half = 1.0 if x.is_complex() else 0.5

        def log_weight(z: Tensor) -> Tensor:
            """Log of target over Gaussian, ``(batch,)``."""
            value = -half * squared_norm(z - x) / rho**2 + half * squared_norm(z - mode) / rho**2
            for model in update.models:
                value = value + half * squared_norm(model.forward(z - mode))
            return value + log_terms(terms, z)

        # The last coupling's z, in units of the new one; the first has none.
        z = state.memory[-1]
        z = mode if state.step == 1 else x + rho / walk.ratio_t * (z - x)
        last = log_weight(z)
        for i in range(self.inner_steps):
            inner = inner_noise(noise, self.calls + i, state=state)
            fresh = update.draw(grid, inner) - mode
            renewed = 0.5**i
            proposal = mode + (1 - renewed**2) ** 0.5 * (z - mode) + renewed * fresh
            weight = log_weight(proposal)
            chance = torch.special.ndtr(inner(_UNIFORM, Stream.MOVE))[:, 0].log()
            # A start with zero likelihood accepts any proposal with a positive one.
            accepted = (weight - last > chance) | ((last == -torch.inf) & (weight > last))
            z = torch.where(per_member(accepted, z), proposal, z)
            last = torch.where(accepted, weight, last)
        return z


def linear_gaussian(terms: Sequence[Term]) -> bool:
    """Whether all terms are likelihoods with linear operators and Gaussian noise."""
    return all(isinstance(term, Gaussian) and term.is_linear for term in terms)


def coupled(x: Tensor, rho: float, terms: Sequence[Term]) -> GaussianUpdate:
    """``N(z; x, rho^2 I)`` times the terms: exact if linear Gaussian, else Laplace's approximation.

    Args:
        x: Clean fields ``(batch, *shape)``.
        rho: Coupling, in units of the field.
        terms: Terms of a posterior.
    """
    power = torch.full(x.shape[1:], rho**2, dtype=x.dtype.to_real(), device=x.device)
    covariance = SpectralCovariance(power, is_complex=x.is_complex())
    t = torch.zeros((), dtype=torch.float64)
    return Laplace(tolerance=_TOLERANCE).given(x, covariance, terms, x_t=x, t=t)


def log_terms(terms: Sequence[Term], x_0: Tensor) -> Tensor:
    """Sum of the terms at clean fields ``(batch, *shape)``: ``(batch,)``."""
    t = torch.zeros((), dtype=torch.float64)
    return torch.stack([term.log_prob(x_0, x_0, t) for term in terms]).sum(0)
