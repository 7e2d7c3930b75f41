"""Tweedie moment projection with row sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, Point, split_terms
from invdiff.covariance import JacobianCovariance
from invdiff.likelihood import Gaussian
from invdiff.needs import Needs
from invdiff.protocols import Prior, Term

__all__ = ["TMPD"]


@dataclass(frozen=True)
class TMPD(Conditioning):
    """Tweedie moment projected diffusion (Boys et al. 2023, arXiv 2310.06721).

    The covariance ``C = Cov[x_0|x_t] = (sigma^2 / alpha) J`` is applied by vector-Jacobian products
    of the denoiser. In the space of the whitened data it is replaced by its row sums, a diagonal,
    so that nothing is solved::

        d = W A C A^H W^H 1,   E[x_0|x_t, y] = m + C A^H W^H (W (y - A m) / (1 + d))

    Assumptions: linear Gaussian data. Exact for a Gaussian field where ``W A C A^H W^H`` is
    diagonal (stationary fields in Fourier space); a rough approximation for correlated data, poor
    for blurs. It leaves out the spread of ``x_0`` given ``x_t``.

    Cost: one network pass and two vjps of it per step and member (five passes, a vjp counted as
    two), two products with ``A`` and two with ``A^H``.
    """

    needs: ClassVar[Needs] = Needs.LINEAR_GAUSSIAN

    needs_grad = True

    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Point:
        """The projected mean without covariance: the spread of ``x_0`` is left out as published."""
        gaussians, _ = split_terms(terms)
        with torch.enable_grad():
            leaf = x_t.detach().clone().requires_grad_()
            graph = prior.denoise(leaf, t)
        mean, schedule = graph.detach(), prior.schedule
        scale = (schedule.sigma(t) ** 2 / schedule.alpha(t)).to(x_t.device, x_t.dtype.to_real())
        covariance = JacobianCovariance(graph, leaf, scale)

        ones = [torch.ones_like(term.y).expand(len(mean), *term.y.shape) for term in gaussians]
        spread = covariance(_pulled(gaussians, ones))
        weighted = []
        for term in gaussians:
            # A diagonal represents variances, so negative row sums (distant pixels that are
            # anticorrelated) count as none.
            row_sums = term.forward(spread).real.clamp_min(0)
            weighted.append(term.residual(mean) / (1 + row_sums))
        return Point(mean + covariance(_pulled(gaussians, weighted)))


def _pulled(terms: Sequence[Gaussian], residuals: Sequence[Tensor]) -> Tensor:
    """``sum_i A_i^H W_i^H r_i``."""
    pairs = zip(terms, residuals, strict=True)
    return torch.stack([term.pullback(r) for term, r in pairs]).sum(0)
