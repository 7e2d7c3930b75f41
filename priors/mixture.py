r"""Gaussian mixtures in closed form: a multi-modal prior whose posteriors are known exactly.

For ``x_0 ~ sum_k w_k N(mu_k, C_k)`` everything stays a mixture: ``p(x_0 | x_t)``, its moments, and
``p(x_0 | y)`` for linear-Gaussian data. It is the referee of samplers. Each ``C_k = V_k S_k V_k^H``
is kept by its eigenvalues: ``V_k`` is a matrix of its own for each component, or the DFT for all.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from invdiff.covariance import Covariance, DenseCovariance, LowRankCovariance, SpectralCovariance
from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.protocols import BasePrior
from invdiff.schedule import VE, Schedule

__all__ = ["GaussianMixturePrior", "SpectralMixturePrior"]


class _Mixture(BasePrior):
    """What the two share: all but the eigenvectors of the components."""

    def __init__(
        self, grid: Grid, weights: Tensor, means: Tensor, *, schedule: Schedule | None
    ) -> None:
        if tuple(means.shape) != (len(weights), *grid.shape):
            raise ShapeError(
                "mixture components do not fit the grid",
                got=f"means {tuple(means.shape)}",
                expected=(len(weights), *grid.shape),
            )
        if grid.is_complex or (weights <= 0).any() or abs(float(weights.sum()) - 1) > 1e-6:
            raise InputError(
                "not a real mixture",
                got=f"{grid.dtype}, weights {weights.tolist()}",
                expected="a real grid and positive weights that sum to one",
            )
        self.grid, self.schedule = grid, schedule or VE()
        self.weights, self.means = weights.to(grid.dtype), means.to(grid.dtype)

    @property
    @abstractmethod
    def _values(self) -> Tensor:
        """Eigenvalues ``S_k``, ``(k, n)``."""

    @abstractmethod
    def _analyse(self, fields: Tensor) -> Tensor:
        """``V_k^H x_k``: ``(batch, k, *shape)`` to ``(batch, k, n)``."""

    @abstractmethod
    def _synthesise(self, modes: Tensor) -> Tensor:
        """``V_k c_k``: the inverse."""

    @abstractmethod
    def _colour(self, component: int, eps: Tensor) -> Tensor:
        """Draws from ``N(0, C_k)`` made of standard normal fields ``(batch, *shape)``."""

    def __repr__(self) -> str:
        """Number of components and grid."""
        return f"{type(self).__name__}({len(self.weights)} components, {self.grid})"

    def responsibilities(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``p(k | x_t)``, ``(batch, k)``."""
        return self._components(x_t, t)[0]

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Exact mean, without its covariance."""
        weights, means, _, _ = self._components(x_t, t)
        return torch.einsum("bk,bk...->b...", weights, means)

    def log_prob(self, x_0: Tensor) -> Tensor:
        """Normalised log-density of clean fields, ``(batch,)``; needs positive eigenvalues."""
        _, log_joint = self._log_joint(x_0, 0.0)
        return torch.logsumexp(log_joint, 1) - self.grid.size / 2 * math.log(2 * math.pi)

    def exact_draws(self, n: int, *, seed: int) -> Tensor:
        """``n`` independent draws of ``x_0``, ``(n, *grid.shape)``."""
        noise = NoiseField(seed)
        uniform = torch.special.ndtr(noise(Grid(("n",), (n,), torch.float64), [0], 0, stream=1)[0])
        edges = self.weights.double().cumsum(0)
        component = torch.searchsorted(edges, uniform).clamp_max(len(self.weights) - 1)
        draws = self.means[component]
        eps = noise(self.grid, range(n), 0)
        for k in range(len(self.weights)):
            draws[component == k] += self._colour(k, eps[component == k])
        return draws

    def _log_joint(self, x: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        """Modes of ``x - mu_k``; ``log w_k N(x; mu_k, C_k + variance I)``, without ``2 pi``."""
        modes = self._analyse(x[:, None] - self.means)
        total = self._values + variance
        log_density = -0.5 * (modes.abs().square() / total + total.log()).sum(-1)
        return modes, self.weights.log() + log_density

    def _components(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Weights ``(b, k)``, means ``(b, k, *shape)``, gains ``(k, n)`` of modes, the ratio."""
        alpha, ratio = self.levels(t)
        modes, log_joint = self._log_joint(x_t / alpha, ratio**2)
        gain = self._values / (self._values + ratio**2)
        means = self.means + self._synthesise(modes * gain)
        return torch.softmax(log_joint, -1), means, gain, ratio


class GaussianMixturePrior(_Mixture):
    """``sum_k w_k N(mu_k, C_k)`` on a real grid, with dense covariances.

    Args:
        grid: of the field; real.
        weights: ``(k,)``, positive, summing to one.
        means: ``(k, *grid.shape)``.
        covariances: ``(k, n, n)`` with ``n = grid.size``, symmetric positive semi-definite.
        schedule: noise levels of ``x_t``.

    Raises:
        ShapeError: arrays that do not fit each other or the grid.
        InputError: weights that are no probabilities, or a complex grid.
    """

    def __init__(
        self,
        grid: Grid,
        weights: Tensor,
        means: Tensor,
        *,
        covariances: Tensor,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(grid, weights, means, schedule=schedule)
        if tuple(covariances.shape) != (len(weights), grid.size, grid.size):
            raise ShapeError(
                "mixture components do not fit the grid",
                got=f"covariances {tuple(covariances.shape)}",
                expected=(len(weights), grid.size, grid.size),
            )
        self.covariances = covariances.to(grid.dtype)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact moments: those of the mixture ``p(x_0 | x_t)``."""
        weights, means, gain, ratio = self._components(x_t, t)
        mean = torch.einsum("bk,bk...->b...", weights, means)
        within = (self._vectors * (ratio**2 * gain)[:, None, :]) @ self._vectors.mT
        spread = (means - mean[:, None]).flatten(2)
        between = torch.einsum("bk,bkn,bkm->bnm", weights, spread, spread)
        matrix = torch.einsum("bk,knm->bnm", weights, within) + between
        return mean, DenseCovariance.of(matrix)

    def posterior(self, matrix: Tensor, y: Tensor, noise_std: float) -> GaussianMixturePrior:
        """``p(x_0 | y)`` for ``y = matrix x_0 + noise_std n``, again a mixture.

        Args:
            matrix: ``(m, grid.size)``, real (split a complex operator in its parts).
            y: ``(m,)``.
            noise_std: standard deviation of each datum.
        """
        means, covariances = [], []
        for mu, c in zip(self.means.flatten(1), self.covariances, strict=True):
            innovation = _innovation(matrix, c, noise_std)
            gain = torch.linalg.solve(innovation, matrix @ c).mT
            means.append(mu + gain @ (y - matrix @ mu))
            updated = c - gain @ matrix @ c
            covariances.append((updated + updated.mT) / 2)
        weights = torch.softmax(self._log_evidences(matrix, y, noise_std), 0)
        # Components that the data exclude underflow; they are kept with a negligible weight.
        weights = weights.clamp_min(1e-30)
        return GaussianMixturePrior(
            self.grid,
            weights / weights.sum(),
            torch.stack(means).reshape(self.means.shape),
            covariances=torch.stack(covariances),
            schedule=self.schedule,
        )

    def log_evidence(self, matrix: Tensor, y: Tensor, noise_std: float) -> float:
        """``log p(y)`` for the data of :meth:`posterior`."""
        return float(torch.logsumexp(self._log_evidences(matrix, y, noise_std), 0))

    def _log_evidences(self, matrix: Tensor, y: Tensor, noise_std: float) -> Tensor:
        """``log w_k N(y; A mu_k, A C_k A^T + s^2 I)``, ``(k,)``."""
        innovations = torch.stack([_innovation(matrix, c, noise_std) for c in self.covariances])
        predicted = self.means.flatten(1) @ matrix.mT
        data = torch.distributions.MultivariateNormal(predicted, innovations)
        log_joint: Tensor = torch.log(self.weights) + data.log_prob(y)
        return log_joint

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.covariances)
        return values.clamp_min(0), vectors

    @property
    def _values(self) -> Tensor:
        return self._eigen[0]

    @property
    def _vectors(self) -> Tensor:
        return self._eigen[1]

    def _analyse(self, fields: Tensor) -> Tensor:
        return torch.einsum("bkn,knm->bkm", fields.flatten(2), self._vectors)

    def _synthesise(self, modes: Tensor) -> Tensor:
        fields = torch.einsum("bkm,knm->bkn", modes, self._vectors)
        return fields.reshape(*modes.shape[:2], *self.grid.shape)

    def _colour(self, component: int, eps: Tensor) -> Tensor:
        modes = self._values[component].sqrt() * eps.flatten(1)
        return (modes @ self._vectors[component].mT).reshape(eps.shape)


def _innovation(matrix: Tensor, c: Tensor, noise_std: float) -> Tensor:
    """``A C A^T + s^2 I``."""
    return matrix @ c @ matrix.mT + noise_std**2 * torch.eye(len(matrix), dtype=c.dtype)


class SpectralMixturePrior(_Mixture):
    """``sum_k w_k N(mu_k, F^H S_k F)`` on a real grid: stationary components, all by FFT.

    Given ``x_t`` the covariance is a stationary one for each member and a direction for each
    component: ``sum_k w_k Q_k + sum_k w_k (m_k - m)(m_k - m)^T``. It scales to images.

    Args:
        grid: of the field; real.
        weights: ``(k,)``, positive, summing to one.
        means: ``(k, *grid.shape)``.
        spectra: ``S_k > 0`` in ``torch.fft.fftn`` order, ``(k, *grid.shape)``; ``S(-f) = S(f)``.
        schedule: noise levels of ``x_t``.

    Raises:
        ShapeError: arrays that do not fit each other or the grid, or an asymmetric spectrum.
        InputError: weights that are no probabilities, a complex grid, a spectrum with zeros.
    """

    def __init__(
        self,
        grid: Grid,
        weights: Tensor,
        means: Tensor,
        *,
        spectra: Tensor,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(grid, weights, means, schedule=schedule)
        axes = tuple(range(1, grid.ndim + 1))
        mirrored = spectra.flip(axes).roll((1,) * grid.ndim, axes)
        if spectra.shape != means.shape or not torch.allclose(mirrored, spectra):
            raise ShapeError(
                "spectra of a mixture of real fields",
                got=f"shape {tuple(spectra.shape)}",
                expected=f"{tuple(means.shape)} with S(-f) = S(f)",
            )
        if not (spectra > 0).all():
            raise InputError("spectra must be positive", got=float(spectra.min()), expected="> 0")
        self.spectra = spectra.to(grid.dtype)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact moments: those of the mixture ``p(x_0 | x_t)``."""
        weights, means, gain, ratio = self._components(x_t, t)
        mean = torch.einsum("bk,bk...->b...", weights, means)
        power = (weights @ (ratio**2 * gain)).reshape(x_t.shape)
        roots = weights.sqrt().reshape(*weights.shape, *(1,) * self.grid.ndim)
        within = SpectralCovariance(power, is_complex=False, by_member=True)
        return mean, LowRankCovariance(within, roots * (means - mean[:, None]))

    def dense(self) -> GaussianMixturePrior:
        """The same mixture with explicit covariances ``(k, n, n)``: for exact posteriors."""
        n = self.grid.size
        eye = torch.eye(n, dtype=self.grid.dtype).reshape(n, 1, *self.grid.shape)
        modes = self._analyse(eye.expand(-1, len(self.weights), *self.grid.shape))
        covariances = self._synthesise(modes * self._values).flatten(2).movedim(0, 1)
        return GaussianMixturePrior(
            self.grid, self.weights, self.means, covariances=covariances, schedule=self.schedule
        )

    @property
    def _values(self) -> Tensor:
        return self.spectra.flatten(1)

    def _analyse(self, fields: Tensor) -> Tensor:
        modes: Tensor = torch.fft.fftn(fields, dim=tuple(range(2, fields.ndim)), norm="ortho")
        return modes.flatten(2)

    def _synthesise(self, modes: Tensor) -> Tensor:
        coefficients = modes.reshape(*modes.shape[:2], *self.grid.shape)
        axes = tuple(range(2, coefficients.ndim))
        fields: Tensor = torch.fft.ifftn(coefficients, dim=axes, norm="ortho").real
        return fields

    def _colour(self, component: int, eps: Tensor) -> Tensor:
        modes = self._analyse(eps[:, None]) * self._values[component].sqrt()
        return self._synthesise(modes)[:, 0]
