"""Conditioning on the prior's own covariance, scaled by the data within a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from invdiff.conditioning.base import Conditioning
from invdiff.conditioning.innovation import InnovationScale
from invdiff.conditioning.update import GaussianUpdate
from invdiff.covariance import Covariance
from invdiff.likelihood import Gaussian, Likelihood, Linearised, LinearModel
from invdiff.protocols import Prior, Term

__all__ = ["AdaptiveConditioning", "linear_model"]


class AdaptiveConditioning(Conditioning):
    """A conditioning of ``N(m, C)`` with the prior's moments, where the data scale ``C`` in a run.

    A subclass has the field ``scale`` and writes ``given``. Assumptions and cost within a run are
    those of `InnovationScale`; the innovation is that of the likelihoods linearised at ``m``.
    """

    scale: InnovationScale | None

    def update(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> GaussianUpdate:
        """The update of ``N(m, C)``, with ``C`` as the prior states it."""
        return self.given(*prior.moments(x_t, t), terms, x_t=x_t, t=t)

    def tracked_update(
        self,
        prior: Prior,
        terms: Sequence[Term],
        x_t: Tensor,
        *,
        t: Tensor,
        record: Tensor | None,
    ) -> tuple[GaussianUpdate, Tensor | None]:
        """The update of ``N(m, scale C)``, and the record of the scale."""
        mean, covariance = prior.moments(x_t, t)
        likelihoods = [term for term in terms if isinstance(term, Likelihood)]
        if self.scale is not None and len(likelihoods) == len(terms):
            models = [linear_model(likelihood, mean) for likelihood in likelihoods]
            covariance, record = self.scale.apply(
                mean, covariance, models, level=float(prior.schedule.ratio(t)), record=record
            )
        return self.given(mean, covariance, terms, x_t=x_t, t=t), record

    @abstractmethod
    def given(
        self,
        mean: Tensor,
        covariance: Covariance,
        terms: Sequence[Term],
        *,
        x_t: Tensor,
        t: Tensor,
    ) -> GaussianUpdate:
        """``N(mean, covariance)`` times any terms, those other than likelihoods to first order.

        Args:
            mean: Mean of the Gaussian, ``(batch, *shape)``.
            covariance: Covariance of the fields before these data.
            terms: Likelihoods and other differentiable log-densities.
            x_t: Noisy fields ``(batch, *shape)``, for terms that depend on them.
            t: Time of the noisy fields, a scalar.
        """


def linear_model(likelihood: Likelihood, x_star: Tensor) -> LinearModel:
    """The linearisation of a likelihood at ``x_star``; a linear Gaussian one is its own."""
    if isinstance(likelihood, Gaussian) and likelihood.is_linear:
        return likelihood
    return Linearised(likelihood, x_star)
