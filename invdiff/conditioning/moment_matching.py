"""Moment matching with the prior's own covariance, the default for linear Gaussian data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff.conditioning.adaptive import AdaptiveConditioning
from invdiff.conditioning.base import split_terms
from invdiff.conditioning.innovation import BY_DATA, InnovationScale
from invdiff.conditioning.update import GaussianUpdate, Slope, gaussian_update
from invdiff.covariance import Covariance
from invdiff.needs import Needs
from invdiff.protocols import Term

__all__ = ["MomentMatching"]


@dataclass(frozen=True)
class MomentMatching(AdaptiveConditioning):
    """Gaussian update of the prior's moments by linear Gaussian data; the default for such data.

    ``p(x_0 | x_t)`` is taken as ``N(m, C)`` with the prior's own moments, as in MMPS (Rozet et al.
    2024, arXiv 2405.13712), but with a covariance that the prior provides instead of the Jacobian
    of its denoiser. With ``C = L L^H`` the update is one solve in whitened coordinates
    ``x_0 = m + L u``::

        (I + L^H P L) u = L^H sum_i A_i^H Sigma_i^(-1) (y_i - A_i m)
        P = sum_i A_i^H Sigma_i^(-1) A_i

    Other terms enter to first order, by ``L^H grad log p(m)``. Within a run of a sampler ``C`` is
    multiplied by the factor that the data ask for; see `InnovationScale`.

    Assumptions: linear operators and Gaussian noise. Exact for Gaussian priors; otherwise as good
    as the Gaussian approximation of ``p(x_0 | x_t)``.

    Cost: one network pass per step and member, no vjp, and one solve: in closed form where all is
    diagonal in the DFT, otherwise a few applications of ``P``.

    Args:
        tolerance: Largest error of a solve, in posterior standard deviations of any linear
            functional of the field.
        max_iterations: Largest number of conjugate-gradient steps of a solve.
        scale: How the data scale ``C`` within a run; None leaves it as the prior states it.

    Example:
        >>> import torch
        >>> from invdiff import Gaussian, Grid, MomentMatching, Posterior
        >>> from invdiff.operators import Identity
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> grid = Grid(("x",), (4,))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(4), torch.ones(4))  # N(0, 1)
        >>> data = Gaussian(torch.full((4,), 2.0), Identity(grid), 1.0)
        >>> x_t, t = torch.zeros(1, 4), torch.tensor(1.0)
        >>> Posterior(prior, data, conditioning=MomentMatching()).denoise(x_t, t)[0, 0]  # exact
        tensor(0.6667)
    """

    needs: ClassVar[Needs] = Needs.LINEAR | Needs.GAUSSIAN  # other terms enter to first order

    tolerance: float = 0.5
    max_iterations: int = 300
    scale: InnovationScale | None = BY_DATA
    has_evidence = True

    def given(
        self,
        mean: Tensor,
        covariance: Covariance,
        terms: Sequence[Term],
        *,
        x_t: Tensor,
        t: Tensor,
    ) -> GaussianUpdate:
        """The update of ``N(mean, covariance)`` by the data; other terms to first order."""
        gaussians, others = split_terms(terms)
        return gaussian_update(
            mean,
            covariance,
            gaussians,
            slope=Slope.of(others, mean, covariance, x_t=x_t, t=t),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
