r"""Split Gibbs as an annealed particle filter: the weights make good what the sweeps cannot reach.

The particles of :class:`SplitGibbs` at coupling ``rho`` aim at ``p(x_0) p_rho(y | x_0)``, where the
noise of ``y`` is widened by the coupling. From one coupling to the next they are weighted by::

    N(y; A x_0, Sigma + rho_new^2 A A^H) / N(y; A x_0, Sigma + rho_old^2 A A^H)

for linear-Gaussian terms; for others, with ``u = (z - x_0) / rho`` kept, by ``p(y | x_0 + rho_new
u) / p(y | x_0 + rho_old u)``, which varies far more. Systematic resampling where the effective
number falls below ``threshold`` times the particles; then a Gibbs sweep (annealed importance
sampling, Neal 2001; SMC samplers, Del Moral et al. 2006). The last weight goes to ``rho = 0``, so
that the limit of many particles is the posterior itself, whatever the couplings, if ``x_0`` given
``z`` is drawn exactly.

For linear-Gaussian terms the sum of the weights estimates the evidence ``p(y)`` without bias. For
others the first coupling is taken to say nothing of ``x_0``, and the evidence is not known.
Weights vary with the number of data: with hundreds of them the couplings must fall slowly. Cost:
as split Gibbs, and one solve with a log-determinant a step.
"""

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
    """Split Gibbs with weights: members are the particles, and depend on each other.

    Args:
        steps: one draw from the prior, then weights and a Gibbs sweep each.
        rho_max: first coupling, in units of the field; a few of its standard deviations.
        rho_min: last coupling; a third of the noise's standard deviation in units of the field.
        last_sweeps: how many steps stay at ``rho_min``.
        calls: network passes of a draw of ``x_0``.
        inner_steps: Metropolis steps of a draw of ``z``, where it is not exact.
        threshold: share of the particles below which the effective number leads to resampling.

    Raises:
        InputError: no step for the couplings, couplings that do not fall, or a threshold outside
            [0, 1].
    """

    needs: ClassVar[Needs] = SplitGibbs.needs | Needs.LIKELIHOOD

    threshold: float = 0.5
    couples_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise InputError("threshold out of range", got=self.threshold, expected="0 to 1")

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """Particles of equal weight."""
        return weighted(super().init(model, noise, realizations, device=device), realizations)

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """Weight, resample, sweep; the memory is the log-evidence so far and ``z``."""
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
