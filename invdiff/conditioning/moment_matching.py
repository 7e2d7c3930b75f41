r"""Moment matching with ``Cov[x_0 | x_t]``: the default, no differentiation.

``p(x_0 | x_t)`` is taken as ``N(m, C)`` with the prior's own moments; with ``C = L L^H`` and linear
Gaussian data the update is one solve in whitened coordinates ``x_0 = m + L u``::

    (I + L^H P L) u = L^H sum_i A_i^H Sigma_i^(-1) (y_i - A_i m),   P = sum_i A_i^H Sigma_i^(-1) A_i

Other terms enter to first order, ``L^H grad log p(m)``. Exact when the prior is Gaussian; otherwise
as good as the Gaussian shape of ``p(x_0 | x_t)``. Cost: one network pass and a few applications of
``P``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff.conditioning.base import Conditioning, split_terms
from invdiff.conditioning.update import GaussianUpdate, Slope, gaussian_update
from invdiff.needs import Needs
from invdiff.protocols import Prior, Term

__all__ = ["MomentMatching"]


@dataclass(frozen=True)
class MomentMatching(Conditioning):
    """Gaussian update of the prior's moments by linear-Gaussian data.

    Args:
        tolerance: error left by a solve, as a fraction of the posterior's own spread.
        max_iterations: bound on its conjugate-gradient steps.
    """

    needs: ClassVar[Needs] = Needs.LINEAR | Needs.GAUSSIAN  # other terms enter to first order

    tolerance: float = 0.05
    max_iterations: int = 100
    has_evidence = True

    def update(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> GaussianUpdate:
        """``N(m, C)`` and the data."""
        mean, covariance = prior.moments(x_t, t)
        gaussians, others = split_terms(terms)
        return gaussian_update(
            mean,
            covariance,
            gaussians,
            slope=Slope.of(others, mean, covariance, x_t=x_t, t=t),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
