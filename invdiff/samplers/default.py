"""The sampler that is used when none is named."""

from __future__ import annotations

import torch

from invdiff.conditioning.update import MAX_DENSE_DATA
from invdiff.likelihood import Likelihood
from invdiff.posterior import Posterior
from invdiff.protocols import Sampler
from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.enkg import EnKG
from invdiff.samplers.twisted import TwistedSMC

__all__ = ["default_sampler"]


def default_sampler(model: Posterior, *, device: str | torch.device = "cpu") -> Sampler:
    """The sampler that suits a posterior; ``benchmarks/exact_posterior`` holds the evidence.

    - Differentiable terms, and a prior whose covariance has closed forms, or nearly so with few
    data: weighted particles, `TwistedSMC`, the only one that finds the weights of separate modes.

    - Differentiable terms with any other covariance (a network's, whose spread varies over the
    field) and many data: `Ancestral`, without weights, which no ensemble could carry.

    - Operators that torch cannot differentiate: `EnKG`, which needs no gradient.

    Args:
        model: Prior and terms; the prior's covariance is evaluated once, for one field.
        device: Device on which the prior lives.
    """
    likelihoods = [term for term in model.terms if isinstance(term, Likelihood)]
    if not all(term.is_differentiable for term in likelihoods):
        return EnKG()
    if not model.method.has_evidence:
        return Ancestral()
    t = model.schedule.timesteps(2)[0]
    zero = torch.zeros(1, *model.grid.shape, dtype=model.grid.dtype, device=device)
    with torch.no_grad():
        covariance = model.prior.covariance(zero, t)
    few = sum(term.operator.n_data for term in likelihoods) <= MAX_DENSE_DATA
    weighable = covariance.is_closed or (few and covariance.closed() is not None)
    return TwistedSMC() if weighable else Ancestral()
