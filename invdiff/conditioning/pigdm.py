"""Conditioning by pseudoinverse-guided diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, Point, guided, split_terms
from invdiff.linalg import conjugate_gradient
from invdiff.needs import Needs
from invdiff.protocols import Prior, Term

__all__ = ["PiGDM"]


@dataclass(frozen=True)
class PiGDM(Conditioning):
    """Pseudoinverse-guided diffusion models (Song et al. 2023, ICLR, openreview 9_gsMA8MRKQ).

    An isotropic covariance takes the place of ``Cov[x_0 | x_t]``:
    ``p(y | x_t) = N(A m, Sigma + r^2 A A^H)`` with ``r^2 = ratio^2 s^2 / (ratio^2 + s^2)``, where
    ``ratio = sigma / alpha`` and ``s`` is the standard deviation of the field::

        E[x_0|x_t, y] = m + (sigma^2 / alpha) J^H A^H (Sigma + r^2 A A^H)^(-1) (y - A m)

    Assumptions: linear Gaussian data. Exact in the mean for white Gaussian fields of standard
    deviation ``s``; it leaves out the spread of ``x_0`` given ``x_t``, so that ensembles are too
    narrow.

    Cost: one network pass and one vjp of it per step and member (three passes, a vjp counted as
    two), and one solve.

    Args:
        data_std: Standard deviation of the field, in its own units.
        rtol: Relative residual at which the solve stops.
        max_iterations: Largest number of conjugate-gradient steps of the solve.
    """

    needs: ClassVar[Needs] = Needs.LINEAR_GAUSSIAN
    narrow: ClassVar[str] = "it leaves out the spread of x_0 given x_t"

    data_std: float = 1.0
    rtol: float = 1e-4
    max_iterations: int = 100
    needs_grad = True

    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Point:
        """The guided mean without covariance: the spread of ``x_0`` is left out, as published."""
        gaussians, _ = split_terms(terms)
        ratio2 = float(prior.schedule.ratio(t)) ** 2
        r2 = ratio2 * self.data_std**2 / (ratio2 + self.data_std**2)

        def precision(x: Tensor) -> Tensor:
            return x + r2 * sum((term.precision(x) for term in gaussians), torch.zeros_like(x))

        def log_prob(mean: Tensor, x_t: Tensor) -> Tensor:
            # A^H (Sigma + r2 A A^H)^-1 r = (I + r2 P)^-1 A^H Sigma^-1 r, held fixed: its inner
            # product with the mean has the required vector-Jacobian product as gradient.
            with torch.no_grad():
                pulled = sum(
                    (term.pullback(term.residual(mean)) for term in gaussians),
                    torch.zeros_like(mean),
                )
                pull = conjugate_gradient(
                    precision, pulled, rtol=self.rtol, max_iterations=self.max_iterations
                ).x
            product = (pull.conj() * mean).real
            return product.flatten(1).sum(1) * (2 if mean.is_complex() else 1)

        return Point(guided(prior, x_t, t=t, log_prob=log_prob))
