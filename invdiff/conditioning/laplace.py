"""Laplace's approximation by Gauss-Newton, for differentiable likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.adaptive import AdaptiveConditioning, linear_model
from invdiff.conditioning.innovation import BY_DATA, InnovationScale
from invdiff.conditioning.update import GaussianUpdate, Slope, gaussian_update
from invdiff.covariance import Covariance
from invdiff.likelihood import Gaussian, Likelihood
from invdiff.linalg import inner, per_member, squared_norm
from invdiff.needs import Needs
from invdiff.protocols import Term

__all__ = ["Laplace"]

_MAX_HALVINGS = 8  # of a Gauss-Newton step that overshoots


@dataclass(frozen=True)
class Laplace(AdaptiveConditioning):
    """Laplace's approximation of ``p(x_0 | x_t, y)``: a Gaussian around the mode, by Gauss-Newton.

    The prior's ``p(x_0 | x_t)`` is taken as ``N(m, C)`` with its moments. The mode ``x*`` of its
    product with the likelihoods is found by Gauss-Newton steps; with ``z = A(x)``, the Fisher
    information ``w^H w`` of the data, the Jacobian ``J`` of ``A`` and the working residual ``r`` at
    the last iterate, a step solves::

        (C^-1 + J^H w^H w J) (x - m) = J^H w^H (r + w J (x_last - m))

    and is shortened until the log-density rises. The Gaussian around ``x*`` has the precision on
    the left there (Fisher scoring, where the noise is not Gaussian; Tierney & Kadane 1986, doi
    10.1080/01621459.1986.10478240).

    Assumptions: differentiable likelihoods; other terms enter to first order. Exact for Gaussian
    priors with linear Gaussian data; otherwise biased by the curvature of the likelihoods.

    Cost: one network pass per step and member, no vjp of the network; per Gauss-Newton step one
    evaluation of the operator and one solve, with two reverse passes of the operator per product.

    Args:
        iterations: Largest number of Gauss-Newton steps.
        rtol: A member has converged when a step moves it by less than this share of its spread.
        tolerance: Largest error of a solve, in posterior standard deviations of any linear
            functional of the field.
        max_iterations: Largest number of conjugate-gradient steps of a solve.
        scale: How the data scale ``C`` within a run; None leaves it as the prior states it.

    Example:
        Accurate data ``y = exp(x) + n`` of a nonlinear operator:

        >>> import torch
        >>> from invdiff import Gaussian, Grid, Laplace, Posterior
        >>> from invdiff.operators import Identity, Lognormal
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> grid = Grid(("x",), (4,))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(4), torch.ones(4))  # N(0, 1)
        >>> data = Gaussian(torch.full((4,), 2.0), Lognormal(Identity(grid)), 0.1)
        >>> x_t, t = torch.zeros(1, 4), torch.tensor(1.0)
        >>> Posterior(prior, data, conditioning=Laplace()).denoise(x_t, t)[0, 0]  # log 2 = 0.693
        tensor(0.6897)
    """

    needs: ClassVar[Needs] = Needs.GRADIENT | Needs.ANALYTIC

    iterations: int = 8
    rtol: float = 1e-2
    tolerance: float = 0.5
    max_iterations: int = 300
    scale: InnovationScale | None = BY_DATA
    has_evidence = True
    needs_grad = True

    def given(
        self,
        mean: Tensor,
        covariance: Covariance,
        terms: Sequence[Term],
        *,
        x_t: Tensor,
        t: Tensor,
    ) -> GaussianUpdate:
        """``N(mean, covariance)`` times any terms, as a Gaussian around the mode."""
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
            mean: Mean of the Gaussian, ``(batch, *shape)``.
            covariance: Covariance of the fields before these data.
            likelihoods: Differentiable likelihoods.
            slope: Other terms to first order; None without any.
        """

        def linearised(u: Tensor | None) -> GaussianUpdate:
            x_star = mean if u is None else mean + covariance.sqrt(u)
            models = [linear_model(likelihood, x_star) for likelihood in likelihoods]
            return gaussian_update(
                mean,
                covariance,
                models,
                slope=slope,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )

        def objective(u: Tensor) -> Tensor:
            """Log-density as a function of the coordinates, ``(batch,)``."""
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
            # A member that has converged stays, so that it does not depend on the others.
            step = torch.where(per_member(moving, u), update.coordinates() - u, 0)
            moved, value = _line_search(objective, u, step, value=value)
            shift = (moved - u).abs().square().flatten(1).mean(1).sqrt()
            u, update, moving = moved, linearised(moved), moving & (shift > self.rtol)
            if not bool(moving.any()):
                break
        return update


def _line_search(
    objective: Callable[[Tensor], Tensor], u: Tensor, step: Tensor, *, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Halve each member's step until its objective rises, or leave it out: new ``u`` and value."""
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
