r"""MMPS: moment matching with the denoiser's own Jacobian (Rozet et al. 2024, arXiv 2405.13712).

``Cov[x_0|x_t] = (sigma^2/alpha) J`` by vector-Jacobian products, and one solve in data space::

    E[x_0|x_t, y] = m + C A^H W^H (I + W A C A^H W^H)^(-1) W (y - A m)

Exact for Gaussian priors with enough iterations. Linear Gaussian only. Cost: a pass and one vjp an
iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, data_streams, split_terms
from invdiff.covariance import Covariance, JacobianCovariance, NoCovariance
from invdiff.likelihood import Gaussian
from invdiff.linalg import conjugate_gradient
from invdiff.noise import StepNoise
from invdiff.protocols import Prior, Term

__all__ = ["MMPS"]


@dataclass(frozen=True)
class MMPS(Conditioning):
    """Moment matching by Jacobian products.

    Args:
        iterations: conjugate-gradient steps, each a vjp of the prior; the solve stops earlier at
            the relative residual ``rtol``.
        rtol: relative residual.
    """

    iterations: int = 5
    rtol: float = 1e-5
    needs_grad = True

    def check(self, terms: Sequence[Term]) -> None:
        """Linear-Gaussian likelihoods only."""
        split_terms(terms, method="MMPS", others=False)

    def moments(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> tuple[Tensor, Covariance]:
        """The updated mean; its covariance is not formed (samplers that draw call ``draw``)."""
        mean, covariance = _jacobian_moments(prior, x_t, t)
        gaussians, _ = split_terms(terms, method="MMPS", others=False)
        return self._update(mean, covariance, gaussians), NoCovariance()

    def draw(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor, noise: StepNoise
    ) -> Tensor:
        """Update of a prior draw by perturbed data (Matheron's rule)."""
        mean, covariance = _jacobian_moments(prior, x_t, t)
        gaussians, _ = split_terms(terms, method="MMPS", others=False)
        start = mean + covariance.sqrt(noise(prior.grid, 1).to(mean.dtype))
        return self._update(start, covariance, gaussians, data_streams(gaussians, noise))

    def _update(
        self,
        start: Tensor,
        covariance: JacobianCovariance,
        terms: Sequence[Gaussian],
        perturbations: Sequence[Tensor] | None = None,
    ) -> Tensor:
        residuals = [term.residual(start) for term in terms]
        if perturbations is not None:
            residuals = [r + e for r, e in zip(residuals, perturbations, strict=True)]
        shapes = [r.shape[1:] for r in residuals]

        def joined(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([part.flatten(1) for part in parts], dim=1)

        def spread(r: Tensor) -> Tensor:
            parts = r.split([shape.numel() for shape in shapes], dim=1)
            pulled = torch.zeros_like(start)
            for term, part, shape in zip(terms, parts, shapes, strict=True):
                pulled = pulled + term.pullback(part.reshape(-1, *shape))
            return covariance(pulled)

        def apply(r: Tensor) -> Tensor:
            x = spread(r)
            return r + joined([term.forward(x) for term in terms])

        weights = conjugate_gradient(
            apply, joined(residuals), rtol=self.rtol, max_iterations=self.iterations
        ).x
        return start + spread(weights)


def _jacobian_moments(prior: Prior, x_t: Tensor, t: Tensor) -> tuple[Tensor, JacobianCovariance]:
    with torch.enable_grad():
        leaf = x_t.detach().clone().requires_grad_()
        mean = prior.denoise(leaf, t)
    schedule = prior.schedule
    scale = (schedule.sigma(t) ** 2 / schedule.alpha(t)).to(x_t.device, x_t.dtype.to_real())
    return mean.detach(), JacobianCovariance(mean, leaf, scale)
