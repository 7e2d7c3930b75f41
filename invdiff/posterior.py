"""The posterior: a prior times terms, which is a prior again."""

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

__all__ = ["Posterior", "TrackedPosterior", "check_prior"]

_PRIOR_MEMBERS = ("grid", "schedule", "needs_grad", "moments", "denoise", "covariance", "draw")


class Posterior(BasePrior):
    """The posterior ``p(x_0 | y)``, proportional to ``p(x_0) prod_i exp(term_i(x_0))``.

    It is a prior again, so that any sampler draws from it. Its moments ``E[x_0 | x_t, y]`` and
    ``Cov[x_0 | x_t, y]`` are those of the Gaussian that the conditioning makes of the prior's
    moments given ``x_t`` and the terms. By default that is `MomentMatching` for linear Gaussian
    data and `Laplace` for others.

    Assumptions: exact moments for Gaussian priors and linear Gaussian data; otherwise those of the
    conditioning. Cost: one network pass per evaluation and member, and what the conditioning takes.

    Args:
        prior: Prior of the fields, which may be another posterior.
        terms: Likelihoods and other differentiable log-densities; without any the posterior is the
            prior.
        conditioning: How ``E[x_0 | x_t]`` becomes ``E[x_0 | x_t, y]``. None to choose by the terms,
            or for samplers that use the terms directly.

    Raises:
        ShapeError: The operator of a likelihood lives on another grid than the prior.
        UnsupportedError: The conditioning cannot use a term, or an object is not a prior, term or
            conditioning.

    Example:
        >>> import torch
        >>> from invdiff import Gaussian, Grid, Posterior
        >>> from invdiff.operators import Identity
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> grid = Grid(("x",), (4,))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(4), torch.ones(4))  # N(0, 1)
        >>> y = torch.full((4,), 2.0)
        >>> posterior = Posterior(prior, Gaussian(y, Identity(grid), 1.0))  # N(1, 1/2)
        >>> x_t, t = torch.zeros(1, 4), torch.tensor(1000.0)  # noise that hides the field
        >>> mean, covariance = posterior.moments(x_t, t)
        >>> mean[0, 0], covariance(torch.ones(1, 4))[0, 0]
        (tensor(1.0000), tensor(0.5000))
    """

    def __init__(
        self, prior: Prior, *terms: Term, conditioning: Conditioning | None = None
    ) -> None:
        check_prior(prior)
        if isinstance(prior, Posterior) and prior.conditioning == conditioning:
            inner: Posterior = prior
            prior, terms = inner.prior, (*inner.terms, *terms)
        _check_terms(terms)
        # Quadratic terms are data of their statistic, which have more than a gradient.
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
        self.spread = getattr(prior, "spread", None)
        # Terms other than Gaussian ones enter by their gradient, whatever the conditioning.
        others = any(not (isinstance(term, Gaussian) and term.is_linear) for term in terms)
        guided = bool(terms) and conditioning is not None and conditioning.needs_grad
        self.needs_grad = prior.needs_grad or others or guided

    @cached_property
    def method(self) -> Conditioning:
        """The conditioning: the given one, or the one chosen by the terms.

        Raises:
            UnsupportedError: No conditioning can use the terms, such as those of black boxes.
        """
        if self.conditioning is not None:
            return self.conditioning
        likelihoods = [term for term in self.terms if isinstance(term, Likelihood)]
        linear = all(isinstance(term, Gaussian) and term.is_linear for term in likelihoods)
        chosen = MomentMatching() if linear else Laplace()
        chosen.check(self.terms)
        return chosen

    def __repr__(self) -> str:
        parts = ", ".join(map(repr, (self.prior, *self.terms)))
        return f"Posterior({parts}, conditioning={self.conditioning!r})"

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t, y]``, ``(batch, *grid.shape)``, and ``Cov[x_0 | x_t, y]``."""
        if not self.terms:
            return self.prior.moments(x_t, t)
        update = self.update(x_t, t)
        return update.posterior_mean(), update.posterior_covariance()

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """One ``x_0`` per member given ``x_t`` and the data, ``(batch, *grid.shape)``."""
        if not self.terms:
            return self.prior.draw(x_t, t, noise)
        return self.update(x_t, t).draw(self.grid, noise)

    def update(self, x_t: Tensor, t: Tensor) -> Update:
        """The Gaussian that approximates ``p(x_0 | x_t, y)``."""
        return self.method.update(self.prior, self.terms, x_t, t=t)


class TrackedPosterior(Posterior):
    """A posterior that scales the covariance of its prior by what earlier updates found.

    Within one step of a sampler it continues the record of the innovations; see `InnovationScale`.

    Args:
        model: The posterior.
        innovations: Record of the steps so far, ``(update, 4, batch)``; None at the start.
    """

    def __init__(self, model: Posterior, innovations: Tensor | None = None) -> None:
        super().__init__(model.prior, *model.terms, conditioning=model.conditioning)
        self.innovations = innovations

    def update(self, x_t: Tensor, t: Tensor) -> Update:
        """The Gaussian that approximates ``p(x_0 | x_t, y)``, which is added to the record."""
        update, self.innovations = self.method.tracked_update(
            self.prior, self.terms, x_t, t=t, record=self.innovations
        )
        return update


def check_prior(prior: object) -> None:
    """Refuse an object that is not a prior.

    Raises:
        UnsupportedError: The object has no ``moments``; the message states what was probably meant.
    """
    if isinstance(prior, type) or not callable(getattr(prior, "moments", None)):
        hint = "Load one with invdiff.load_prior(name, grid=operator.domain)."
        if hasattr(prior, "range") and hasattr(prior, "domain"):
            hint = "This is an operator: the order of arguments is data, operator, prior."
        raise UnsupportedError(
            "this is not a prior", got=repr(prior), expected="an object with `moments`", hint=hint
        )
    missing = [name for name in _PRIOR_MEMBERS if not hasattr(prior, name)]
    if missing:
        raise UnsupportedError(
            "the prior is incomplete",
            got=f"{prior!r} without {', '.join(missing)}",
            expected=f"an object with {', '.join(_PRIOR_MEMBERS)}",
            hint="Set grid and schedule, and derive from invdiff.protocols.BasePrior, which has"
            " the rest.",
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
