r"""The Gaussian update: ``N(m, C)`` and linear-Gaussian data make a Gaussian, in closed form.

With ``C = L L^H``, whitened coordinates ``x = m + L u`` and ``P = sum_i A_i^H Sigma_i^-1 A_i``::

    K u = b,   K = I + L^H P L,   b = L^H sum_i A_i^H Sigma_i^-1 (y_i - A_i m)

where ``m`` is shifted by ``C g`` first if other terms have the gradient ``g`` there. A draw adds
``e + L^H sum_i A_i^H Sigma_i^-1/2 e_i`` to the right-hand side (perturb and solve, Papandreou &
Yuille 2010): its ``u`` has exactly the covariance ``K^-1``. The evidence is
``-(|r|^2 - b^H K^-1 b + log det K) / 2`` (twice that for complex fields) with the whitened residual
``r`` at ``m``.

Solves are closed form where all is diagonal in the DFT, else by preconditioned conjugate gradients;
log-determinants likewise, else by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017). Where
the data are few it is all done in their space, by Cholesky of ``S = I + W A C A^H W^H``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from invdiff.conditioning.base import data_streams
from invdiff.covariance import Covariance, ProductCovariance, TransformedCovariance
from invdiff.grid import Grid
from invdiff.likelihood import LinearModel
from invdiff.linalg import conjugate_gradient, inner, lanczos, per_member, squared_norm
from invdiff.noise import StepNoise, Stream
from invdiff.protocols import Term

__all__ = ["MAX_DENSE_DATA", "GaussianUpdate", "Slope", "gaussian_update"]

_FIRST = torch.tensor([0])
_N_PROBES, _LANCZOS_STEPS = 16, 50  # of a log-determinant that has no closed form
# The evidence errs by the square of a solve's energy norm, whatever the number of unknowns.
_EVIDENCE_ERROR, _MAX_EXACT = 0.2, 500
_MAX_HALVINGS = 60  # of a slope
MAX_DENSE_DATA = 512  # data up to which their space is the cheaper one


class Slope(NamedTuple):
    """Terms to first order around ``anchor``: ``value + <gradient, x - anchor>``.

    The gradient of complex fields is half of torch's, whose parts each have half the covariance.
    """

    anchor: Tensor
    value: Tensor
    gradient: Tensor

    @classmethod
    def of(
        cls, terms: Sequence[Term], x_0: Tensor, covariance: Covariance, *, x_t: Tensor, t: Tensor
    ) -> Slope | None:
        """Of the sum of terms at ``x_0``; None where there are none.

        A Gaussian of this covariance moves by ``C g``. Where that leads past the terms' maximum and
        down again their curvature is what counts, and ``g`` is halved until it does not.
        """
        if not terms:
            return None

        def total(x: Tensor) -> Tensor:
            return torch.stack([term.log_prob(x, x_t, t) for term in terms]).sum(0)

        with torch.enable_grad():
            leaf = x_0.detach().clone().requires_grad_()
            value = total(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        value, gradient = value.detach(), gradient / 2 if gradient.is_complex() else gradient
        shift, share = covariance(gradient), torch.ones_like(value)
        for _ in range(_MAX_HALVINGS):
            down = total(x_0 + per_member(share, x_0) * shift) < value
            if not bool(down.any()):
                break
            share = torch.where(down, share / 2, share)
        return cls(x_0, value, per_member(share, x_0) * gradient)

    def take(self, members: Tensor) -> Slope:
        """That of the members with these indices."""
        return Slope(*(part[members] for part in self))


def gaussian_update(
    mean: Tensor,
    covariance: Covariance,
    models: Sequence[LinearModel],
    *,
    slope: Slope | None = None,
    tolerance: float = 0.05,
    max_iterations: int = 100,
) -> GaussianUpdate:
    """The update in the cheaper of its two spaces.

    Args:
        mean: ``(batch, *shape)``.
        covariance: of the fields given what is known before these data.
        models: whitened linear data; none leaves the Gaussian as it is.
        slope: other terms to first order.
        tolerance: error left by an iterative solve, as a fraction of the posterior's own spread:
            the energy norm of a draw's noise is ``sqrt(n)``, and it stops at that times this.
        max_iterations: bound on its conjugate-gradient steps.
    """
    few = 0 < sum(model.n_data for model in models) <= MAX_DENSE_DATA
    cheap = few and covariance.sandwich(torch.zeros(1, mean[0].numel()).to(mean)) is not None
    kind = DataSpaceUpdate if cheap else GaussianUpdate
    return kind(mean, covariance, models, slope, tolerance, max_iterations)


@dataclass(frozen=True, eq=False)
class GaussianUpdate:
    """``N(mean, covariance)`` updated by linear models; made by :func:`gaussian_update`."""

    mean: Tensor
    covariance: Covariance
    models: Sequence[LinearModel]
    slope: Slope | None = None
    tolerance: float = 0.05
    max_iterations: int = 100

    @cached_property
    def tilted_mean(self) -> Tensor:
        """``m + C g``: a Gaussian times ``exp(<g, x>)`` is the same, shifted."""
        if self.slope is None:
            return self.mean
        return self.mean + self.covariance(self.slope.gradient)

    @cached_property
    def _tilt(self) -> Tensor:
        """Log of the expectation of ``exp(slope)`` under the Gaussian, ``(batch,)``."""
        if self.slope is None:
            return torch.zeros(len(self.mean)).to(self.mean.device, self.mean.dtype.to_real())
        middle = (self.mean + self.tilted_mean) / 2 - self.slope.anchor
        factor = 2.0 if self.mean.is_complex() else 1.0
        return self.slope.value + factor * inner(self.slope.gradient, middle)

    def coordinates(self) -> Tensor:
        """``u`` of the posterior mean ``m + L u``."""
        u = self.solve(self._pull())
        return u if self.slope is None else u + self.covariance.sqrt_adjoint(self.slope.gradient)

    def posterior_mean(self) -> Tensor:
        """``m + L u``."""
        return self.mean + self.covariance.sqrt(self.coordinates())

    def posterior_covariance(self) -> Covariance:
        """``L K^-1 L^H``."""
        return TransformedCovariance(self.covariance, self.precision, self.solve)

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """One perturbed solve.

        Args:
            grid: of the field.
            noise: of the members and this step.
        """
        e = self.covariance.coordinates(noise(grid, Stream.CLEAN).to(self.mean.dtype))
        u = self.solve(e + self._pull(data_streams(self.models, noise)))
        return self.tilted_mean + self.covariance.sqrt(u)

    def log_evidence(self) -> Tensor:
        """``log p(y)`` under ``N(mean, covariance)``, without the normalisation of the noise."""
        if not self.models:
            return self._tilt
        b = self._pull()
        squares = _total(squared_norm(model.residual(self.tilted_mean)) for model in self.models)
        atol = min(_EVIDENCE_ERROR, self.tolerance * self.mean[0].numel() ** 0.5)
        explained = inner(b, self._solved(b, atol=atol, max_iterations=_MAX_EXACT))
        half = 1.0 if self.mean.is_complex() else 0.5
        return self._tilt - half * (squares - explained + self._log_determinant())

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Log of what the update multiplies ``N(mean, covariance)`` with, at fields ``x``."""
        half = 1.0 if self.mean.is_complex() else 0.5
        squares = _total(
            [torch.zeros_like(self._tilt), *(squared_norm(m.residual(x)) for m in self.models)]
        )
        if self.slope is None:
            return -half * squares
        along = inner(self.slope.gradient, x - self.slope.anchor)
        return self.slope.value + 2 * half * along - half * squares

    def given(self, fields: Tensor, precision: float) -> Self:
        """The same data seen from ``N(mean, covariance)`` given fields in white noise.

        Args:
            fields: ``x`` plus noise, ``(batch, *shape)``.
            precision: of that noise.
        """
        covariance = self.covariance.observed(precision)
        mean = self.mean + precision * covariance(fields - self.mean)
        return replace(self, mean=mean, covariance=covariance)

    def take(self, members: Tensor) -> Self:
        """The update of the members with these indices."""
        return replace(
            self,
            mean=self.mean[members],
            covariance=self.covariance.take(members),
            models=[model.take(members) for model in self.models],
            slope=None if self.slope is None else self.slope.take(members),
        )

    def precision(self, u: Tensor) -> Tensor:
        """``K u``."""
        x = self.covariance.sqrt(u)
        return u + self.covariance.sqrt_adjoint(_total(m.precision(x) for m in self.models))

    def solve(self, b: Tensor) -> Tensor:
        """``K^-1 b``."""
        atol = self.tolerance * self.mean[0].numel() ** 0.5
        return self._solved(b, atol=atol, max_iterations=self.max_iterations)

    def _solved(self, b: Tensor, *, atol: float, max_iterations: int) -> Tensor:
        if not self.models:
            return b
        inverse = None if self._diagonal is None else self._diagonal.reciprocal()
        if inverse is not None and self._is_diagonal:
            return b * inverse

        def precondition(r: Tensor) -> Tensor:
            return r if inverse is None else r * inverse

        return conjugate_gradient(
            self.precision,
            b,
            precondition=precondition,
            rtol=8 * torch.finfo(b.dtype).eps,
            atol=atol,
            max_iterations=max_iterations,
        ).x

    def _pull(self, noise: Sequence[Tensor] | None = None) -> Tensor:
        """``b``, the data perturbed by ``noise``."""
        if not self.models:
            return torch.zeros_like(self.covariance.coordinates(self.mean))
        residuals = [model.residual(self.tilted_mean) for model in self.models]
        if noise is not None:
            residuals = [r + e.to(r.dtype) for r, e in zip(residuals, noise, strict=True)]
        pulled = [model.pullback(r) for model, r in zip(self.models, residuals, strict=True)]
        return self.covariance.sqrt_adjoint(_total(pulled))

    @cached_property
    def _diagonal(self) -> Tensor | None:
        """Diagonal of ``K`` in the DFT, if known."""
        spectrum = self.covariance.spectrum
        precisions = [model.precision_spectrum for model in self.models]
        known = [p for p in precisions if p is not None]
        if spectrum is None or len(known) < len(precisions):
            return None
        return 1 + spectrum * _total(known)

    @property
    def _is_diagonal(self) -> bool:
        circulant = all(model.is_circulant for model in self.models)
        return self._diagonal is not None and self.covariance.is_stationary and circulant

    def _log_determinant(self) -> Tensor:
        """``log det K``, ``(batch,)``, or of no members where all share it."""
        if self._is_diagonal and self._diagonal is not None:
            axes = tuple(range(-self.mean.ndim + 1, 0))
            return self._diagonal.log().sum(axes)
        # The same probes for all members, so that differences between members carry less error.
        shared = self.covariance.is_shared and all(m is m.take(_FIRST) for m in self.models)
        like = self.mean[:1] if shared else self.mean
        probes = np.random.default_rng(0).choice([-1.0, 1.0], (_N_PROBES, *self.mean.shape[1:]))
        total = torch.zeros(len(like)).to(like.device, like.dtype.to_real())
        for probe in torch.from_numpy(probes).to(like):
            z = self.covariance.coordinates(probe.expand_as(like))
            log = lanczos(self.precision, z, torch.log, iterations=_LANCZOS_STEPS)
            total = total + inner(z, log) / _N_PROBES
        return total


class DataSpaceUpdate(GaussianUpdate):
    """The same by dense algebra in the space of the data."""

    def coordinates(self) -> Tensor:
        """``u = L^H (g + A^H W^H S^-1 r)`` of the posterior mean ``m + L u``."""
        pulled = self._pulled(self._residual(self.tilted_mean))
        return self.covariance.sqrt_adjoint(
            pulled if self.slope is None else pulled + self.slope.gradient
        )

    def posterior_covariance(self) -> Covariance:
        """``C - C A^H W^H S^-1 W A C``."""

        def product(v: Tensor) -> Tensor:
            spread = self.covariance(v)
            seen = (self._matrix @ spread.flatten(1)[..., None])[..., 0]
            return spread - self.covariance(self._pulled(seen))

        return ProductCovariance(product)

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """Update of a draw of ``N(m, C)`` by perturbed data (Matheron's rule)."""
        e = noise(grid, Stream.CLEAN).to(self.mean.dtype)
        start = self.tilted_mean + self.covariance.draw(e)
        residual = self._residual(start, data_streams(self.models, noise))
        return start + self.covariance(self._pulled(residual))

    def log_evidence(self) -> Tensor:
        """``-(r^H S^-1 r + log det S) / 2``, and the tilt."""
        white = self._whitened(self._residual(self.tilted_mean))
        log_det = 2 * self._cholesky.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        half = 1.0 if self.mean.is_complex() else 0.5
        return self._tilt - half * (squared_norm(white) + log_det)

    @cached_property
    def _matrix(self) -> Tensor:
        """``W A`` of the measured data, ``(m, n)`` or ``(batch, m, n)``."""
        matrices = [model.matrix() for model in self.models]
        if any(matrix.ndim == 3 for matrix in matrices):
            matrices = [m.expand(len(self.mean), *m.shape[-2:]) for m in matrices]
        return torch.cat(matrices, -2)

    @cached_property
    def _cholesky(self) -> Tensor:
        """Cholesky factor of ``S``."""
        product = self.covariance.sandwich(self._matrix)
        assert product is not None
        eye = torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)
        factor: Tensor = torch.linalg.cholesky(eye + (product + product.mH) / 2)
        return factor

    def _residual(self, x: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        residuals = [model.residual(x) for model in self.models]
        if noise is not None:
            residuals = [r + e.to(r.dtype) for r, e in zip(residuals, noise, strict=True)]
        pairs = zip(self.models, residuals, strict=True)
        return torch.cat([model.measured(r) for model, r in pairs], 1)

    def _pulled(self, residual: Tensor) -> Tensor:
        """``A^H W^H S^-1 residual``."""
        n = len(self.mean)
        matrix = self._whitened_matrix.expand(n, *self._whitened_matrix.shape[-2:])
        white = self._whitened(residual)[..., None].expand(n, -1, -1)
        return torch.bmm(matrix.mH, white)[..., 0].reshape(self.mean.shape)

    def _whitened(self, residual: Tensor) -> Tensor:
        """``R^-1 residual`` with ``S = R R^H``."""
        # By products: LAPACK's batched solves round by where in memory a member lies.
        inverse = self._inverse_root.expand(len(self.mean), *self._inverse_root.shape[-2:])
        return torch.bmm(inverse, residual[..., None].expand(len(inverse), -1, -1))[..., 0]

    @cached_property
    def _inverse_root(self) -> Tensor:
        eye = torch.eye(self._cholesky.shape[-1]).to(self._cholesky)
        inverse: Tensor = torch.linalg.solve_triangular(self._cholesky, eye, upper=False)
        return inverse

    @cached_property
    def _whitened_matrix(self) -> Tensor:
        return self._inverse_root @ self._matrix


def _total(parts: Iterable[Tensor]) -> Tensor:
    total, *rest = parts
    for part in rest:
        total = total + part
    return total
