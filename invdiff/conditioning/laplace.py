r"""Laplace's approximation of ``p(x_0 | x_t, y)`` by Gauss-Newton: for differentiable likelihoods.

``p(x_0 | x_t)`` is taken as ``N(m, C)``; the mode ``x*`` of its product with the likelihoods is
found by Gauss-Newton steps, each the Gaussian update by the likelihoods linearised at the last
iterate, shortened until the log-density rises. The Gaussian around ``x*`` is that of the
likelihoods linearised there (Fisher scoring, where the noise is not Gaussian). Exact for
linear-Gaussian data and Gaussian priors. Cost a step: one network pass; an operator evaluation and
a solve, of two reverse passes a product, an iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning
from invdiff.conditioning.update import GaussianUpdate, Slope, gaussian_update
from invdiff.covariance import Covariance
from invdiff.likelihood import Gaussian, Likelihood, Linearised, LinearModel
from invdiff.linalg import inner, per_member, squared_norm
from invdiff.needs import Needs
from invdiff.protocols import Prior, Term

__all__ = ["Laplace"]

_MAX_HALVINGS = 8  # of a Gauss-Newton step that overshoots


@dataclass(frozen=True)
class Laplace(Conditioning):
    """Gaussian around the mode, by Gauss-Newton.

    Args:
        iterations: bound on the Gauss-Newton steps.
        rtol: a member has arrived when a step moves it by less than this share of its spread.
        tolerance: error left by an iterative solve, as a fraction of the posterior's own spread.
        max_iterations: bound on its conjugate-gradient steps.
    """

    needs: ClassVar[Needs] = Needs.GRADIENT | Needs.ANALYTIC

    iterations: int = 8
    rtol: float = 1e-2
    tolerance: float = 0.05
    max_iterations: int = 100
    has_evidence = True
    needs_grad = True

    def update(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> GaussianUpdate:
        """The update of ``N(m, C)`` by the likelihoods linearised at the mode."""
        mean, covariance = prior.moments(x_t, t)
        return self.given(mean, covariance, terms, x_t=x_t, t=t)

    def given(
        self,
        mean: Tensor,
        covariance: Covariance,
        terms: Sequence[Term],
        *,
        x_t: Tensor,
        t: Tensor,
    ) -> GaussianUpdate:
        """``N(mean, covariance)`` times any terms; those that are no likelihoods to first order."""
        likelihoods = [term for term in terms if isinstance(term, Likelihood)]
        others = [term for term in terms if not isinstance(term, Likelihood)]
        slope = Slope.of(others, mean, covariance, x_t=x_t, t=t)
        return self.around_mode(mean, covariance, likelihoods, slope=slope)

    def around_mode(
        self,
        mean: Tensor,
        covariance: Covariance,
        likelihoods: Sequence[Likelihood],
        *,
        slope: Slope | None = None,
    ) -> GaussianUpdate:
        """``N(mean, covariance)`` times the likelihoods, as a Gaussian around its mode.

        Args:
            mean: ``(batch, *shape)``.
            covariance: of the fields before these data.
            likelihoods: differentiable ones.
            slope: other terms to first order.
        """

        def linearised(u: Tensor | None) -> GaussianUpdate:
            x_star = mean if u is None else mean + covariance.sqrt(u)
            models = [_model(likelihood, x_star) for likelihood in likelihoods]
            return gaussian_update(
                mean,
                covariance,
                models,
                slope=slope,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )

        def objective(u: Tensor) -> Tensor:
            """Log-density of coordinates, ``(batch,)``."""
            x = mean + covariance.sqrt(u)
            half = 1.0 if mean.is_complex() else 0.5
            value = -half * squared_norm(u)
            for likelihood in likelihoods:
                value = value + likelihood.log_density(likelihood.operator(x))
            if slope is not None:
                value = value + 2 * half * inner(slope.gradient, x - slope.anchor)
            return value

        u, update = torch.zeros_like(covariance.coordinates(mean)), linearised(None)
        if all(isinstance(model, Gaussian) for model in update.models):
            return update
        value, moving = objective(u), torch.ones(len(mean), dtype=torch.bool, device=mean.device)
        for _ in range(self.iterations):
            # A member that has arrived stays, so that it does not depend on the others.
            step = torch.where(per_member(moving, u), update.coordinates() - u, 0)
            moved, value = _line_search(objective, u, step, value=value)
            shift = (moved - u).abs().square().flatten(1).mean(1).sqrt()
            u, update, moving = moved, linearised(moved), moving & (shift > self.rtol)
            if not bool(moving.any()):
                break
        return update


def _model(likelihood: Likelihood, x_star: Tensor) -> LinearModel:
    """A linear-Gaussian likelihood is its own linearisation."""
    if isinstance(likelihood, Gaussian) and likelihood.is_linear:
        return likelihood
    return Linearised(likelihood, x_star)


def _line_search(
    objective: Callable[[Tensor], Tensor], u: Tensor, step: Tensor, *, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Each member's step halved until its objective rises, or not taken: new ``u`` and value."""
    length = torch.ones_like(value)
    best, risen = value, torch.zeros_like(value, dtype=torch.bool)
    for _ in range(_MAX_HALVINGS):
        trial = objective(u + per_member(length, step) * step)
        better = (trial > value) & ~risen
        best, risen = torch.where(better, trial, best), risen | better
        if bool(risen.all()):
            break
        length = torch.where(risen, length, length / 2)
    length = torch.where(risen, length, 0)
    return u + per_member(length, step) * step, best
