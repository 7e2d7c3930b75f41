"""A prior evaluated for a few members at a time, to bound the memory of coupled ensembles."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.noise import StepNoise
from invdiff.posterior import Posterior
from invdiff.protocols import BasePrior, Prior

__all__ = ["in_batches"]


class _InBatches(BasePrior):
    """The same prior, with at most ``batch_size`` fields per network call."""

    def __init__(self, prior: Prior, batch_size: int) -> None:
        self.prior, self.batch_size = prior, batch_size
        self.grid, self.schedule, self.needs_grad = prior.grid, prior.schedule, prior.needs_grad
        self.spread = getattr(prior, "spread", None)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Moments of the batches, joined along the first axis."""
        parts = [self.prior.moments(part, t) for part in x_t.split(self.batch_size)]
        mean = torch.cat([mean for mean, _ in parts])
        (_, first), *others = parts
        if not others:
            return mean, first
        return mean, first.join([covariance for _, covariance in others])

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Means of the batches, joined along the first axis."""
        return torch.cat([self.prior.denoise(part, t) for part in x_t.split(self.batch_size)])

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """The prior's own draws, batch by batch, each member with its own noise."""
        drawn, first = [], 0
        for part in x_t.split(self.batch_size):
            own = replace(noise, realizations=noise.realizations[first : first + len(part)])
            drawn.append(self.prior.draw(part, t, own))
            first += len(part)
        return torch.cat(drawn)

    def __repr__(self) -> str:
        return repr(self.prior)


def in_batches(model: Posterior, batch_size: int) -> Posterior:
    """The posterior with its prior evaluated for at most ``batch_size`` fields at a time."""
    prior = _InBatches(model.prior, batch_size)
    return Posterior(prior, *model.terms, conditioning=model.conditioning)
