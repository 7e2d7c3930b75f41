"""Moment matching with the Jacobian of the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, Update, data_streams, split_terms
from invdiff.covariance import Covariance, JacobianCovariance, ProductCovariance
from invdiff.grid import Grid
from invdiff.linalg import conjugate_gradient
from invdiff.needs import Needs
from invdiff.noise import StepNoise, Stream
from invdiff.protocols import Prior, Term

__all__ = ["MMPS"]


@dataclass(frozen=True)
class MMPS(Conditioning):
    """Moment matching posterior sampling (Rozet et al. 2024, arXiv 2405.13712).

    The covariance ``C = Cov[x_0|x_t] = (sigma^2 / alpha) J`` is applied by vector-Jacobian products
    of the denoiser. The update is one solve in the space of the whitened data::

        E[x_0|x_t, y] = m + C A^H W^H (I + W A C A^H W^H)^(-1) W (y - A m)

    Assumptions: linear Gaussian data. Exact for Gaussian priors with enough iterations; otherwise
    as good as the Gaussian approximation of ``p(x_0 | x_t)``.

    Cost: one network pass and ``iterations + 1`` vjps of the network per step and member, that is
    up to ``2 iterations + 3`` passes.

    Args:
        iterations: Largest number of conjugate-gradient steps, each with one vjp of the prior.
        rtol: Relative residual at which the solve stops.
    """

    needs: ClassVar[Needs] = Needs.LINEAR_GAUSSIAN

    iterations: int = 5
    rtol: float = 1e-5
    needs_grad = True

    def update(self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor) -> Update:
        """The update of the Gaussian with the prior's mean and the Jacobian as covariance."""
        with torch.enable_grad():
            leaf = x_t.detach().clone().requires_grad_()
            mean = prior.denoise(leaf, t)
        schedule = prior.schedule
        scale = (schedule.sigma(t) ** 2 / schedule.alpha(t)).to(x_t.device, x_t.dtype.to_real())
        return _DataSpace(self, mean.detach(), JacobianCovariance(mean, leaf, scale), terms=terms)


class _DataSpace:
    """The linear system of one update, in the space of all whitened data concatenated."""

    def __init__(
        self, method: MMPS, mean: Tensor, covariance: Covariance, *, terms: Sequence[Term]
    ) -> None:
        self.method, self.mean, self.covariance = method, mean, covariance
        self.terms, _ = split_terms(terms)

    def posterior_mean(self) -> Tensor:
        """``E[x_0 | x_t, y]``, ``(batch, *shape)``, for one solve."""
        return self._updated(self.mean)

    def posterior_covariance(self) -> Covariance:
        """``Cov[x_0 | x_t, y]``; each product with it takes a solve."""
        return ProductCovariance(self.conditioned)

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """One draw per member: a prior draw updated by perturbed data (Matheron's rule)."""
        start = self.mean + self.covariance.draw(noise(grid, Stream.CLEAN).to(self.mean.dtype))
        return self._updated(start, data_streams(self.terms, noise))

    def _updated(self, start: Tensor, perturbations: Sequence[Tensor] | None = None) -> Tensor:
        """``start + C A^H W^H (I + W A C A^H W^H)^(-1) (W (y - A start) + perturbations)``."""
        residuals = [term.residual(start) for term in self.terms]
        if perturbations is not None:
            residuals = [r + e for r, e in zip(residuals, perturbations, strict=True)]
        return start + self.spread(self.solve(_joined(residuals)))

    def conditioned(self, v: Tensor) -> Tensor:
        """Product of the posterior covariance ``C - C A^H W^H (I + W A C A^H W^H)^(-1) W A C``."""
        product = self.covariance(v)
        return product - self.spread(self.solve(self.forward(product)))

    def forward(self, x: Tensor) -> Tensor:
        """Whitened predictions ``W A x`` of all terms, ``(batch, m)``."""
        return _joined([term.forward(x) for term in self.terms])

    def spread(self, r: Tensor) -> Tensor:
        """Fields ``C A^H W^H r`` of whitened residuals ``(batch, m)``."""
        grids = [term.operator.range for term in self.terms]
        parts = r.split([grid.size for grid in grids], dim=1)
        pulled = [
            term.pullback(part.reshape(-1, *grid.shape))
            for term, part, grid in zip(self.terms, parts, grids, strict=True)
        ]
        return self.covariance(torch.stack(pulled).sum(0))

    def solve(self, r: Tensor) -> Tensor:
        """Whitened residuals ``(I + W A C A^H W^H)^(-1) r``, ``(batch, m)``."""
        return conjugate_gradient(
            lambda u: u + self.forward(self.spread(u)),
            r,
            rtol=self.method.rtol,
            max_iterations=self.method.iterations,
        ).x


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten(1) for part in parts], dim=1)
