"""Posterior: a prior times terms. It is a prior again, so any sampler draws from it."""

from __future__ import annotations

from torch import Tensor

from invdiff.conditioning.base import Conditioning
from invdiff.conditioning.moment_matching import MomentMatching
from invdiff.covariance import Covariance
from invdiff.errors import ShapeError
from invdiff.likelihood import Gaussian
from invdiff.noise import StepNoise
from invdiff.protocols import BasePrior, Prior, Term

__all__ = ["Posterior"]


class Posterior(BasePrior):
    """``p(x_0 | y) ~ p(x_0) prod_i exp(term_i(x_0))``.

    Args:
        prior: any prior, also another posterior.
        terms: likelihoods and other differentiable log-densities; none leaves the prior as it is.
        conditioning: how ``E[x_0 | x_t]`` becomes ``E[x_0 | x_t, y]``.

    Raises:
        ShapeError: a likelihood whose operator lives on another grid than the prior.
        UnsupportedError: terms that the conditioning cannot use.
    """

    def __init__(
        self, prior: Prior, *terms: Term, conditioning: Conditioning | None = None
    ) -> None:
        conditioning = conditioning or MomentMatching()
        if isinstance(prior, Posterior) and prior.conditioning == conditioning:
            inner: Posterior = prior
            prior, terms = inner.prior, (*inner.terms, *terms)
        for term in terms:
            if isinstance(term, Gaussian) and term.operator.domain != prior.grid:
                raise ShapeError(
                    "operator and prior live on different grids",
                    got=f"operator on {term.operator.domain}",
                    expected=f"{prior.grid}",
                    mend="Put the prior on the operator's grid: prior.on(operator.domain).",
                )
        conditioning.check(terms)
        self.prior: Prior = prior
        self.terms: tuple[Term, ...] = terms
        self.conditioning: Conditioning = conditioning
        self.grid, self.schedule = prior.grid, prior.schedule
        # Terms other than likelihoods enter by their gradient, whatever the conditioning.
        others = any(not isinstance(term, Gaussian) for term in terms)
        self.needs_grad = prior.needs_grad or others or (bool(terms) and conditioning.needs_grad)

    def __repr__(self) -> str:
        """Prior, terms and conditioning."""
        parts = ", ".join(map(repr, (self.prior, *self.terms)))
        return f"Posterior({parts}, conditioning={self.conditioning!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t, y]`` and ``Cov[x_0 | x_t, y]``."""
        if not self.terms:
            return self.prior.moments(x_t, t)
        return self.conditioning.moments(self.prior, self.terms, x_t, t=t)

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """One ``x_0`` a member given ``x_t`` and the data."""
        if not self.terms:
            return self.prior.draw(x_t, t, noise)
        return self.conditioning.draw(self.prior, self.terms, x_t, t=t, noise=noise)
