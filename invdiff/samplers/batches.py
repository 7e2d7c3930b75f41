"""A prior asked for a few members at a time: what bounds the memory of coupled ensembles."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.posterior import Posterior
from invdiff.protocols import BasePrior, Prior

__all__ = ["in_batches"]


class _InBatches(BasePrior):
    """The same prior, at most ``batch_size`` fields a network call."""

    def __init__(self, prior: Prior, batch_size: int) -> None:
        self.prior, self.batch_size = prior, batch_size
        self.grid, self.schedule, self.needs_grad = prior.grid, prior.schedule, prior.needs_grad

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Moments of the batches, joined."""
        parts = [self.prior.moments(part, t) for part in x_t.split(self.batch_size)]
        mean = torch.cat([mean for mean, _ in parts])
        (_, first), *others = parts
        if not others:
            return mean, first
        return mean, first.join([covariance for _, covariance in others])

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Means of the batches, joined."""
        return torch.cat([self.prior.denoise(part, t) for part in x_t.split(self.batch_size)])

    def __repr__(self) -> str:
        return repr(self.prior)


def in_batches(model: Prior, batch_size: int) -> Prior:
    """The model with its prior asked for at most ``batch_size`` fields at a time."""
    if isinstance(model, Posterior):
        prior = _InBatches(model.prior, batch_size)
        return Posterior(prior, *model.terms, conditioning=model.conditioning)
    return _InBatches(model, batch_size)
