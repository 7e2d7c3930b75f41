r"""Moment matching with ``Cov[x_0 | x_t]``: the default, no differentiation.

``p(x_0 | x_t)`` is taken as ``N(m, C)`` with the prior's own moments; with ``C = L L^H`` and linear
Gaussian data the update is one solve in whitened coordinates ``x_0 = m + L u``::

    (I + L^H P L) u = L^H sum_i A_i^H Sigma_i^(-1) (y_i - A_i m),   P = sum_i A_i^H Sigma_i^(-1) A_i

A draw adds ``e + L^H sum_i A_i^H Sigma_i^(-1/2) e_i`` to the right-hand side (perturb and solve,
Papandreou & Yuille 2010): its ``u`` has exactly the covariance ``(I + L^H P L)^(-1)``. Other terms
enter to first order, ``L^H grad log p(m)``. Exact when the prior is Gaussian; otherwise as good as
the Gaussian shape of ``p(x_0 | x_t)``. Cost: one network pass and a few applications of ``P``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.conditioning.base import Conditioning, data_streams, split_terms
from invdiff.covariance import Covariance, TransformedCovariance
from invdiff.linalg import conjugate_gradient
from invdiff.noise import StepNoise
from invdiff.protocols import Prior, Term

__all__ = ["MomentMatching"]


@dataclass(frozen=True)
class MomentMatching(Conditioning):
    """Gaussian update of the prior's moments by linear-Gaussian data.

    Args:
        tolerance: error left by a solve, as a fraction of the posterior's own spread: the energy
            norm of a draw's noise is ``sqrt(n)``, and conjugate gradients stop at that times this.
        max_iterations: bound on its conjugate-gradient steps.
    """

    tolerance: float = 0.05
    max_iterations: int = 100

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse nonlinear operators."""
        split_terms(terms, method="MomentMatching", others=True)

    def moments(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor
    ) -> tuple[Tensor, Covariance]:
        """Mean and covariance of the updated Gaussian."""
        mean, covariance = prior.moments(x_t, t)
        update = _Update(self, mean, covariance, terms=terms, x_t=x_t, t=t)
        conditioned = TransformedCovariance(covariance, update.precision, update.solve)
        return mean + covariance.sqrt(update.solve(update.pull())), conditioned

    def draw(
        self, prior: Prior, terms: Sequence[Term], x_t: Tensor, *, t: Tensor, noise: StepNoise
    ) -> Tensor:
        """One perturbed solve."""
        mean, covariance = prior.moments(x_t, t)
        update = _Update(self, mean, covariance, terms=terms, x_t=x_t, t=t)
        e = covariance.coordinates(noise(prior.grid, 1).to(mean.dtype))
        perturbed = e + update.pull(data_streams(update.gaussians, noise))
        return mean + covariance.sqrt(update.solve(perturbed))


class _Update:
    """The linear system of one update."""

    def __init__(
        self,
        method: MomentMatching,
        mean: Tensor,
        covariance: Covariance,
        *,
        terms: Sequence[Term],
        x_t: Tensor,
        t: Tensor,
    ) -> None:
        self.method, self.mean, self.covariance, self.x_t, self.t = method, mean, covariance, x_t, t
        self.gaussians, self.others = split_terms(terms, method="MomentMatching", others=True)

    def precision(self, u: Tensor) -> Tensor:
        """``(I + L^H P L) u``."""
        x = self.covariance.sqrt(u)
        return u + self.covariance.sqrt_adjoint(
            _total(term.precision(x) for term in self.gaussians)
        )

    def pull(self, noise: Sequence[Tensor] | None = None) -> Tensor:
        """``L^H`` of the gradient of all terms at the mean, data perturbed by ``noise``."""
        residuals = [term.residual(self.mean) for term in self.gaussians]
        if noise is not None:
            residuals = [r + e for r, e in zip(residuals, noise, strict=True)]
        pulled = [term.pullback(r) for term, r in zip(self.gaussians, residuals, strict=True)]
        pulled += [self._gradient(term) for term in self.others]
        return self.covariance.sqrt_adjoint(_total(pulled))

    def solve(self, b: Tensor) -> Tensor:
        """``(I + L^H P L)^(-1) b``: in closed form where all is diagonal in the DFT."""
        if not self.gaussians:
            return b
        precondition = self._inverse_in_dft()
        stationary = self.covariance.is_stationary
        if precondition and stationary and all(term.is_circulant for term in self.gaussians):
            return precondition(b)
        return conjugate_gradient(
            self.precision,
            b,
            precondition=precondition,
            rtol=8 * torch.finfo(b.dtype).eps,
            atol=self.method.tolerance * self.mean[0].numel() ** 0.5,
            max_iterations=self.method.max_iterations,
        ).x

    def _inverse_in_dft(self) -> Callable[[Tensor], Tensor] | None:
        spectrum = self.covariance.spectrum
        precisions = [term.precision_spectrum for term in self.gaussians]
        if spectrum is None or any(p is None for p in precisions):
            return None
        inverse = 1 / (1 + spectrum * _total(p for p in precisions if p is not None))
        return lambda b: inverse * b

    def _gradient(self, term: Term) -> Tensor:
        with torch.enable_grad():
            x_0 = self.mean.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(term.log_prob(x_0, self.x_t, self.t).sum(), x_0)
        # torch differentiates by real and imaginary part, each of which has half the covariance.
        return gradient / 2 if gradient.is_complex() else gradient


def _total(parts: Iterable[Tensor]) -> Tensor:
    total, *rest = parts
    for part in rest:
        total = total + part
    return total
