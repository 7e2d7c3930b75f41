"""Posterior: a prior times terms. It is a prior again, so any sampler draws from it."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from invdiff.conditioning.base import Conditioning, Update
from invdiff.conditioning.laplace import Laplace
from invdiff.conditioning.moment_matching import MomentMatching
from invdiff.covariance import Covariance
from invdiff.errors import ShapeError, UnsupportedError
from invdiff.likelihood import Gaussian, Likelihood
from invdiff.noise import StepNoise
from invdiff.protocols import BasePrior, Prior, Term
from invdiff.terms import QuadraticTerm

__all__ = ["Posterior", "check_prior"]


class Posterior(BasePrior):
    """``p(x_0 | y) ~ p(x_0) prod_i exp(term_i(x_0))``.

    Args:
        prior: any prior, also another posterior.
        terms: likelihoods and other differentiable log-densities; none leaves the prior as it is.
        conditioning: how ``E[x_0 | x_t]`` becomes ``E[x_0 | x_t, y]``; left out, the one that
            suits the terms, or the sampler's own way.

    Raises:
        ShapeError: a likelihood whose operator lives on another grid than the prior.
        UnsupportedError: terms that the conditioning cannot use, or objects that are not a prior,
            terms or a conditioning.
    """

    def __init__(
        self, prior: Prior, *terms: Term, conditioning: Conditioning | None = None
    ) -> None:
        check_prior(prior)
        if isinstance(prior, Posterior) and prior.conditioning == conditioning:
            inner: Posterior = prior
            prior, terms = inner.prior, (*inner.terms, *terms)
        _check_terms(terms)
        # Quadratic terms are data of their statistic, and more than a gradient is known of them.
        terms = tuple(
            term.likelihood(prior.grid) if isinstance(term, QuadraticTerm) else term
            for term in terms
        )
        for term in terms:
            if isinstance(term, Likelihood) and term.operator.domain != prior.grid:
                raise ShapeError(
                    "operator and prior live on different grids",
                    got=f"operator on {term.operator.domain}",
                    expected=f"{prior.grid}",
                    hint="Put the prior on the operator's grid: prior.on(operator.domain).",
                )
        if conditioning is not None:
            _check_conditioning(conditioning)
            conditioning.check(terms)
        self.prior: Prior = prior
        self.terms: tuple[Term, ...] = terms
        self.conditioning: Conditioning | None = conditioning
        self.grid, self.schedule = prior.grid, prior.schedule
        # Terms other than Gaussian ones enter by their gradient, whatever the conditioning.
        others = any(not (isinstance(term, Gaussian) and term.is_linear) for term in terms)
        guided = bool(terms) and conditioning is not None and conditioning.needs_grad
        self.needs_grad = prior.needs_grad or others or guided

    @cached_property
    def method(self) -> Conditioning:
        """The conditioning, chosen by the terms if none was given.

        Raises:
            UnsupportedError: terms that no conditioning can use, such as black boxes.
        """
        if self.conditioning is not None:
            return self.conditioning
        likelihoods = [term for term in self.terms if isinstance(term, Likelihood)]
        linear = all(isinstance(term, Gaussian) and term.is_linear for term in likelihoods)
        chosen = MomentMatching() if linear else Laplace()
        chosen.check(self.terms)
        return chosen

    def __repr__(self) -> str:
        """Prior, terms and conditioning."""
        parts = ", ".join(map(repr, (self.prior, *self.terms)))
        return f"Posterior({parts}, conditioning={self.conditioning!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t, y]`` and ``Cov[x_0 | x_t, y]``."""
        if not self.terms:
            return self.prior.moments(x_t, t)
        update = self.update(x_t, t)
        return update.posterior_mean(), update.posterior_covariance()

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """One ``x_0`` a member given ``x_t`` and the data."""
        if not self.terms:
            return self.prior.draw(x_t, t, noise)
        return self.update(x_t, t).draw(self.grid, noise)

    def update(self, x_t: Tensor, t: Tensor) -> Update:
        """The Gaussian that stands for ``p(x_0 | x_t, y)``."""
        return self.method.update(self.prior, self.terms, x_t, t=t)


def check_prior(prior: object) -> None:
    """Refuse what is not a prior.

    Raises:
        UnsupportedError: an object without ``moments``; the message says what was meant.
    """
    if isinstance(prior, type) or not callable(getattr(prior, "moments", None)):
        hint = "Load one with invdiff.load_prior(name, grid=operator.domain)."
        if hasattr(prior, "range") and hasattr(prior, "domain"):
            hint = "This is an operator: the order of arguments is data, operator, prior."
        raise UnsupportedError(
            "this is not a prior", got=repr(prior), expected="an object with `moments`", hint=hint
        )


def _check_terms(terms: tuple[object, ...]) -> None:
    for term in terms:
        if isinstance(term, type) or not callable(getattr(term, "log_prob", None)):
            raise UnsupportedError(
                "this is not a term of a posterior",
                got=repr(term),
                expected="an object with `log_prob`, such as Gaussian(y, operator, noise_std)",
            )


def _check_conditioning(conditioning: object) -> None:
    if isinstance(conditioning, str | type) or not hasattr(conditioning, "update"):
        raise UnsupportedError(
            "this is not a conditioning",
            got=repr(conditioning),
            expected="an object such as MomentMatching()",
            hint="Conditionings are objects of invdiff.conditioning; leave it out for the default.",
        )
