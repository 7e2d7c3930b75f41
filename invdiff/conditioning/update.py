"""The Gaussian update: a Gaussian and linear Gaussian data make a Gaussian, in closed form."""

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
from invdiff.linalg import Apply, conjugate_gradient, inner, lanczos, per_member, squared_norm
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

    The gradient of complex fields is half of torch's, whose parts each have half of the covariance.

    Attributes:
        anchor: Fields at which the terms were evaluated, ``(batch, *shape)``.
        value: Sum of the terms there, ``(batch,)``.
        gradient: Gradient of the sum there, ``(batch, *shape)``.
    """

    anchor: Tensor
    value: Tensor
    gradient: Tensor

    @classmethod
    def of(
        cls, terms: Sequence[Term], x_0: Tensor, covariance: Covariance, *, x_t: Tensor, t: Tensor
    ) -> Slope | None:
        """The slope of the sum of terms at ``x_0``; None without terms.

        A Gaussian of this covariance moves by ``C g``. Where that leads beyond the maximum of the
        terms, to a lower value than at the start, the gradient ``g`` is halved until it does not.

        Args:
            terms: Differentiable log-densities.
            x_0: Fields at which they are expanded, ``(batch, *shape)``.
            covariance: Covariance of the fields before these terms.
            x_t: Noisy fields ``(batch, *shape)``, for terms that depend on them.
            t: Time of the noisy fields, a scalar.
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
        """The slope of the members with these indices."""
        return Slope(*(part[members] for part in self))


def gaussian_update(
    mean: Tensor,
    covariance: Covariance,
    models: Sequence[LinearModel],
    *,
    slope: Slope | None = None,
    tolerance: float = 0.5,
    max_iterations: int = 300,
) -> GaussianUpdate:
    """The Gaussian update, in the space of the fields or of the data, whichever is cheaper.

    Args:
        mean: Mean of the Gaussian, ``(batch, *shape)``.
        covariance: Covariance of the fields before these data.
        models: Whitened linear data; without any the Gaussian is left as it is.
        slope: Other terms to first order; None without any.
        tolerance: Largest error of an iterative solve, in posterior standard deviations of any
            linear functional of the field.
        max_iterations: Largest number of conjugate-gradient steps of a solve.

    Returns:
        A `GaussianUpdate`; its subclass in data space for at most 512 data and a covariance with
        closed forms.
    """
    few = 0 < sum(model.n_data for model in models) <= MAX_DENSE_DATA
    cheap = few and covariance.sandwich(torch.zeros(1, mean[0].numel()).to(mean)) is not None
    kind = DataSpaceUpdate if cheap else GaussianUpdate
    return kind(mean, covariance, models, slope, tolerance, max_iterations)


@dataclass(frozen=True, eq=False)
class GaussianUpdate:
    """The Gaussian ``N(m, C)`` updated by linear Gaussian data, as made by :func:`gaussian_update`.

    With ``C = L L^H``, whitened coordinates ``x = m + L u`` and ``P = sum_i A_i^H Sigma_i^-1 A_i``,
    the posterior is ``u ~ N(K^-1 b, K^-1)``::

        K = I + L^H P L,   b = L^H sum_i A_i^H Sigma_i^-1 (y_i - A_i m)

    where ``m`` is first shifted by ``C g`` if other terms have the gradient ``g`` there. A draw
    adds ``e + L^H sum_i A_i^H Sigma_i^-1/2 e_i`` to the right-hand side (perturb and solve,
    Papandreou & Yuille 2010): its ``u`` has exactly the covariance ``K^-1``. The evidence is
    ``-(|r|^2 - b^H K^-1 b + log det K) / 2`` (twice that for complex fields) with the whitened
    residual ``r`` at ``m``.

    Assumptions: none beyond a Gaussian and linear Gaussian data; exact up to ``tolerance``.

    Cost: one solve for the mean, a draw or the evidence; in closed form where all is diagonal in
    the DFT, otherwise by preconditioned conjugate gradients, with one application of ``P`` per
    iteration. Log-determinants are in closed form likewise, otherwise by stochastic Lanczos
    quadrature (Ubaru, Chen & Saad 2017, doi 10.1137/16M1104974) with 16 probes.

    An iterative solve stops at an energy norm ``|e|_K`` of its error. It bounds the error of every
    linear functional by ``|<v, e>| <= |e|_K std(<v, u>)``, whatever the number of unknowns. A bound
    on the sum over all of them would not do: the error is nearly the same in all members and lies
    along the few directions that the data leave open, where it moves the weights of modes.

    Args:
        mean: Mean ``m`` before the data, ``(batch, *shape)``.
        covariance: Covariance ``C`` before the data.
        models: Whitened linear data.
        slope: Other terms to first order; None without any.
        tolerance: Largest error of an iterative solve, in posterior standard deviations of any
            linear functional of the field.
        max_iterations: Largest number of conjugate-gradient steps of a solve.
    """

    mean: Tensor
    covariance: Covariance
    models: Sequence[LinearModel]
    slope: Slope | None = None
    tolerance: float = 0.5
    max_iterations: int = 300

    @cached_property
    def tilted_mean(self) -> Tensor:
        """``m + C g``, ``(batch, *shape)``: the mean of ``N(m, C)`` times ``exp(<g, x>)``."""
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
        """Whitened coordinates ``u`` of the posterior mean ``m + L u``."""
        u = self.solve(self._pull())
        return u if self.slope is None else u + self.covariance.sqrt_adjoint(self.slope.gradient)

    def posterior_mean(self) -> Tensor:
        """Posterior mean ``m + L u``, ``(batch, *shape)``."""
        return self.mean + self.covariance.sqrt(self.coordinates())

    def posterior_covariance(self) -> Covariance:
        """Posterior covariance ``L K^-1 L^H``; each product with it takes a solve."""
        return TransformedCovariance(self.covariance, self.precision, self.solve)

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """One draw per member, ``(batch, *shape)``, by one perturbed solve.

        Args:
            grid: Grid of the fields.
            noise: Noise of the members and this step.
        """
        e = self.covariance.coordinates(noise(grid, Stream.CLEAN).to(self.mean.dtype))
        u = self.solve(e + self._pull(data_streams(self.models, noise)))
        return self.tilted_mean + self.covariance.sqrt(u)

    def log_evidence(self) -> Tensor:
        """``log p(y)`` under ``N(m, C)``, ``(batch,)``, without the normalisation of the noise."""
        if not self.models:
            return self._tilt
        b = self._pull()
        squares = _total(squared_norm(model.residual(self.tilted_mean)) for model in self.models)
        atol = min(_EVIDENCE_ERROR, self.tolerance)
        explained = inner(b, self._solved(b, atol=atol, max_iterations=_MAX_EXACT))
        half = 1.0 if self.mean.is_complex() else 0.5
        return self._tilt - half * (squares - explained + self._log_determinant())

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Log of the factor that multiplies ``N(m, C)``, at fields ``x``: ``(batch,)``."""
        half = 1.0 if self.mean.is_complex() else 0.5
        squares = _total(
            [torch.zeros_like(self._tilt), *(squared_norm(m.residual(x)) for m in self.models)]
        )
        if self.slope is None:
            return -half * squares
        along = inner(self.slope.gradient, x - self.slope.anchor)
        return self.slope.value + 2 * half * along - half * squares

    def given(self, fields: Tensor, precision: float) -> Self:
        """The update by the same data of ``N(m, C)`` conditioned on fields in white noise.

        Args:
            fields: Clean fields plus noise, ``(batch, *shape)``.
            precision: Inverse variance of that noise.
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
        """Product ``K u`` with the posterior precision in whitened coordinates."""
        x = self.covariance.sqrt(u)
        return u + self.covariance.sqrt_adjoint(_total(m.precision(x) for m in self.models))

    def solve(self, b: Tensor) -> Tensor:
        """Solution ``K^-1 b`` in whitened coordinates, to ``tolerance``."""
        return self._solved(b, atol=self.tolerance, max_iterations=self.max_iterations)

    def _solved(self, b: Tensor, *, atol: float, max_iterations: int) -> Tensor:
        if not self.models:
            return b
        if self._is_diagonal and self._diagonal is not None:
            return b / self._diagonal
        return conjugate_gradient(
            self.precision,
            b,
            precondition=self._approximate_inverse,
            rtol=8 * torch.finfo(b.dtype).eps,
            atol=atol,
            max_iterations=max_iterations,
        ).x

    def _pull(self, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Right-hand side ``b``, with the data perturbed by ``noise``."""
        if not self.models:
            return torch.zeros_like(self.covariance.coordinates(self.mean))
        residuals = [model.residual(self.tilted_mean) for model in self.models]
        if noise is not None:
            residuals = [r + e.to(r.dtype) for r, e in zip(residuals, noise, strict=True)]
        pulled = [model.pullback(r) for model, r in zip(self.models, residuals, strict=True)]
        return self.covariance.sqrt_adjoint(_total(pulled))

    @cached_property
    def _precision_spectrum(self) -> Tensor | None:
        """Diagonal of ``P`` in the DFT, if known."""
        precisions = [model.precision_spectrum for model in self.models]
        known = [p for p in precisions if p is not None]
        return None if len(known) < len(precisions) else _total(known)

    @cached_property
    def _approximate_inverse(self) -> Apply | None:
        """The preconditioner of the solves, if the data have a spectrum."""
        precision = self._precision_spectrum
        return None if precision is None else self.covariance.approximate_inverse(precision)

    @cached_property
    def _diagonal(self) -> Tensor | None:
        """Diagonal of ``K`` in the DFT, if known."""
        spectrum, precision = self.covariance.spectrum, self._precision_spectrum
        return None if spectrum is None or precision is None else 1 + spectrum * precision

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
    """The Gaussian update by dense algebra in the space of the data.

    With the whitened operators ``W A`` as a matrix, all is done by the Cholesky factor of
    ``S = I + W A C A^H W^H``. Cost: ``O(m^2 n + m^3)`` for ``m`` data and ``n`` unknowns, then
    ``O(m n)`` per member and product.
    """

    def coordinates(self) -> Tensor:
        """``u = L^H (g + A^H W^H S^-1 r)`` of the posterior mean ``m + L u``."""
        pulled = self._pulled(self._residual(self.tilted_mean))
        return self.covariance.sqrt_adjoint(
            pulled if self.slope is None else pulled + self.slope.gradient
        )

    def posterior_covariance(self) -> Covariance:
        """Posterior covariance ``C - C A^H W^H S^-1 W A C``."""

        def product(v: Tensor) -> Tensor:
            spread = self.covariance(v)
            predicted = (self._matrix @ spread.flatten(1)[..., None])[..., 0]
            return spread - self.covariance(self._pulled(predicted))

        return ProductCovariance(product)

    def draw(self, grid: Grid, noise: StepNoise) -> Tensor:
        """One draw per member: a draw of ``N(m, C)`` updated by perturbed data (Matheron)."""
        e = noise(grid, Stream.CLEAN).to(self.mean.dtype)
        start = self.tilted_mean + self.covariance.draw(e)
        residual = self._residual(start, data_streams(self.models, noise))
        return start + self.covariance(self._pulled(residual))

    def log_evidence(self) -> Tensor:
        """``-(r^H S^-1 r + log det S) / 2`` plus the contribution of other terms, ``(batch,)``."""
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
        # By products: LAPACK's batched solves round differently by the memory address of a member.
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
