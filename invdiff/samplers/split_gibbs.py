r"""Split Gibbs: PnP-DM (Wu et al. 2024, arXiv 2405.18782), DPnP (Xu & Chi 2024, arXiv 2403.17042).

A copy ``z`` of the field carries the data and is coupled to it by ``N(z; x_0, rho^2 I)``. In turn::

    z   ~ p(y | z) N(z; x_0, rho^2 I)          the data, without the prior
    x_0 ~ p(x_0 | x_0 + rho eps = z)           the prior, without the data

while ``rho`` falls geometrically. The first step draws from the prior. ``x_0`` is drawn by the
ancestral kernel from the ratio ``rho`` down; ``z`` exactly for linear-Gaussian terms (perturb and
solve), otherwise by Metropolis steps around the Laplace approximation ``N(m, K^-1)``::

    z' = m + sqrt(1 - b^2) (z - m) + b K^-1/2 eps,   b = 1, 1/2, 1/4, ...

which leave that Gaussian invariant, so that acceptance costs one likelihood each (Rudolf & Sprungk
2018, arXiv 1504.03461); unlike MALA's, their step does not shrink where data outweigh the coupling.

Any likelihood with a derivative. No guidance weight. The limit is the posterior under the noise
``N(0, Sigma + rho^2 A A^H)``: too wide, by a share ``rho^2 / s^2`` of the data's variance. It is
reached only if ``rho`` falls slowly: a sweep at ``rho`` moves directions that are not measured by
about ``rho``. Cost: ``calls`` network passes a step, no vjp of the network; a solve, or a few
Gauss-Newton steps and ``inner_steps`` operator calls.
"""

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
_TOLERANCE = 1e-3  # of iterative solves


@dataclass(frozen=True)
class SplitGibbs(TermSampler):
    """Alternates between data and prior; members are independent.

    Args:
        steps: one draw from the prior, then Gibbs sweeps.
        rho_max: first coupling, in units of the field; a few of its standard deviations.
        rho_min: last coupling; a third of the noise's standard deviation in units of the field
            leaves the spread a few per cent too wide.
        last_sweeps: how many steps stay at ``rho_min``.
        calls: network passes of a draw of ``x_0``.
        inner_steps: Metropolis steps of a draw of ``z``, where it is not exact.

    Raises:
        InputError: no step for the couplings, or couplings that do not fall.
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
                "no such couplings",
                got=self,
                expected="0 < rho_min < rho_max, steps >= last_sweeps + 2, counts >= 1",
            )

    def check(self, model: Posterior) -> None:
        """Refuse terms out of reach, and couplings that the prior has no noise level for.

        Raises:
            UnsupportedError: terms without a complex-linear derivative.
            InputError: couplings outside the schedule.
        """
        super().check(model)
        schedule = model.schedule
        if not schedule.ratio_min <= self.rho_min or not self.rho_max <= schedule.ratio_max:
            raise InputError(
                "couplings outside the noise levels of the prior",
                got=f"rho from {self.rho_max} to {self.rho_min}",
                expected=f"within {schedule.ratio_max} to {schedule.ratio_min}",
                hint="Choose rho_max and rho_min in the units of this prior.",
            )

    def coupling(self, step: int) -> float:
        """``rho`` of a step, the first of which is 1."""
        n = self.steps - 1 - self.last_sweeps
        share = min(1.0, step / n)
        return float(self.rho_max ** (1 - share) * self.rho_min**share)

    def walk(self, model: Posterior, state: SamplerState) -> Walk:
        """From one coupling to the next; ``z`` and the state are clean fields but in step 0."""
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
        """Steps that leave ``p(y | z) N(z; x_0, rho^2 I)`` invariant, from the last ``z`` on."""
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
            # A start of no likelihood gives way to anything that has some.
            accepted = (weight - last > chance) | ((last == -torch.inf) & (weight > last))
            z = torch.where(per_member(accepted, z), proposal, z)
            last = torch.where(accepted, weight, last)
        return z


def linear_gaussian(terms: Sequence[Term]) -> bool:
    """Whether all terms are likelihoods of linear operators and Gaussian noise."""
    return all(isinstance(term, Gaussian) and term.is_linear for term in terms)


def coupled(x: Tensor, rho: float, terms: Sequence[Term]) -> GaussianUpdate:
    """``N(z; x, rho^2 I)`` times the terms: exact if linear-Gaussian, else Laplace's approximation.

    Args:
        x: ``(batch, *shape)``.
        rho: the coupling.
        terms: of a posterior.
    """
    power = torch.full(x.shape[1:], rho**2, dtype=x.dtype.to_real(), device=x.device)
    covariance = SpectralCovariance(power, is_complex=x.is_complex())
    t = torch.zeros((), dtype=torch.float64)
    return Laplace(tolerance=_TOLERANCE).given(x, covariance, terms, x_t=x, t=t)


def log_terms(terms: Sequence[Term], x_0: Tensor) -> Tensor:
    """Sum of the terms at clean fields, ``(batch,)``."""
    t = torch.zeros((), dtype=torch.float64)
    return torch.stack([term.log_prob(x_0, x_0, t) for term in terms]).sum(0)
