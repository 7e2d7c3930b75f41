"""Split Gibbs sampling as an annealed particle filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.needs import Needs
from invdiff.noise import NoiseField
from invdiff.posterior import Posterior
from invdiff.protocols import Term
from invdiff.samplers.base import SamplerState
from invdiff.samplers.resampling import reweigh, weighted
from invdiff.samplers.split_gibbs import SplitGibbs, coupled, linear_gaussian, log_terms

__all__ = ["AnnealedGibbs"]


@dataclass(frozen=True)
class AnnealedGibbs(SplitGibbs):
    """Split Gibbs with importance weights: the members are the particles of an annealed filter.

    The particles of `SplitGibbs` at coupling ``rho`` target ``p(x_0) p_rho(y | x_0)``, in which the
    coupling widens the noise of ``y``. From one coupling to the next they are weighted by::

        N(y; A x_0, Sigma + rho_new^2 A A^H) / N(y; A x_0, Sigma + rho_old^2 A A^H)

    for linear Gaussian terms. For other terms ``u = (z - x_0) / rho`` is held fixed and the weight
    is ``p(y | x_0 + rho_new u) / p(y | x_0 + rho_old u)``, which varies far more. Particles are
    resampled systematically where the effective number falls below ``threshold`` times their
    number; a Gibbs sweep follows (annealed importance sampling, Neal 2001, doi
    10.1023/A:1008923215028; SMC samplers, Del Moral et al. 2006, doi
    10.1111/j.1467-9868.2006.00553.x). The last weight leads to ``rho = 0``.

    Assumptions: exact in the limit of many particles for any couplings, if ``x_0`` given ``z`` is
    drawn exactly. The variance of the weights grows with the number of data: with hundreds of them
    the couplings must fall slowly. For linear Gaussian terms the sum of the weights estimates the
    evidence ``p(y)`` without bias; for others the evidence is not known (NaN).

    Cost: that of `SplitGibbs`, ``calls`` network passes per step and member without vjp, and one
    solve with a log-determinant per step.

    Args:
        steps: Number of steps: one draw from the prior, then weights and a Gibbs sweep each.
        rho_max: First coupling, in units of the field; a few of its standard deviations.
        rho_min: Last coupling; a third of the noise's standard deviation in units of the field.
        last_sweeps: Number of steps that stay at ``rho_min``.
        calls: Network passes that draw ``x_0`` given ``z``.
        inner_steps: Metropolis steps that draw ``z`` given ``x_0`` where that is not exact.
        threshold: Share of the particles below which the effective number leads to resampling.

    Raises:
        InputError: There are too few steps, the couplings do not fall, or the threshold lies
            outside [0, 1].
    """

    needs: ClassVar[Needs] = SplitGibbs.needs | Needs.LIKELIHOOD

    threshold: float = 0.5
    couples_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise InputError("threshold is out of range", got=self.threshold, expected="0 to 1")

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """Particles of equal weight, one per member, at the largest noise level."""
        return weighted(super().init(model, noise, realizations, device=device), realizations)

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """Weight, resample and sweep; the memory holds the log-evidence so far and ``z``."""
        _, terms = self.parts(model)
        assert state.log_weights is not None
        if state.step:
            evidence, z = state.memory
            if not linear_gaussian(terms):
                evidence = torch.full_like(evidence, torch.nan)
            rho = None if state.step == 1 else self.coupling(state.step - 1)
            change = _change(terms, state, rho, self.coupling(state.step))
            draws = noise.at(state.realizations, state.step, state.x.device)
            state, kept = reweigh(
                state._replace(memory=(evidence,)), change, draws, threshold=self.threshold
            )
            z = z if kept is None else z[kept]
            state = state._replace(memory=(*state.memory, z))
        (evidence, *_), log_weights = state.memory, state.log_weights
        after = super().step(model, noise, state)
        if after.step == self.steps:
            assert log_weights is not None
            log_weights = log_weights + _change(terms, after, self.rho_min, 0.0)
        return after._replace(memory=(evidence, after.memory[-1]), log_weights=log_weights)


def _change(terms: Sequence[Term], state: SamplerState, old: float | None, new: float) -> Tensor:
    """Log-weights ``(batch,)`` from coupling ``old`` to ``new``; none before the first."""
    x = state.x
    if not terms or old == new:
        return x.new_zeros(len(x), dtype=torch.float64)
    if not linear_gaussian(terms):
        if old is None:
            return x.new_zeros(len(x), dtype=torch.float64)
        u = (state.memory[-1] - x) / old
        change = log_terms(terms, x + new * u) - log_terms(terms, x + old * u)
        return change.double()
    start = 0.0 if old is None else _log_evidence(terms, x, old)
    return (_log_evidence(terms, x, new) - start).double()


def _log_evidence(terms: Sequence[Term], x: Tensor, rho: float) -> Tensor:
    """``log N(y; A x, Sigma + rho^2 A A^H)``, without the normalisation of the noise."""
    return log_terms(terms, x) if rho == 0 else coupled(x, rho, terms).log_evidence()
