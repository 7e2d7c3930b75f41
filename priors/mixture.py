"""Gaussian mixtures in closed form: multi-modal priors whose posteriors are known exactly."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invdiff.covariance import Covariance, DenseCovariance, LowRankCovariance, SpectralCovariance
from invdiff.errors import DTypeError, InputError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.priors.checks import as_tensor, check_hermitian, check_mirrored, semidefinite_eigen
from invdiff.protocols import BasePrior
from invdiff.schedule import Schedule
from invdiff.spread import Spread

__all__ = ["GaussianMixturePrior", "SpectralMixturePrior"]


class _Mixture(BasePrior):
    """A mixture of Gaussians with ``C_k = V_k S_k V_k^H``, but for the eigenvectors ``V_k``."""

    def __init__(self, grid: Grid, weights: Any, means: Any) -> None:
        if grid.is_complex:
            raise DTypeError(
                "a mixture is defined on a real grid",
                got=grid.dtype,
                expected="torch.float32 or torch.float64",
                hint="Write a complex field as two real ones along a dim of its own.",
            )
        n = len(weights)
        self.grid = grid
        self.weights = as_tensor(weights, "weights", shape=(n,), dtype=grid.dtype)
        self.means = as_tensor(means, "means", shape=(n, *grid.shape), dtype=grid.dtype)
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise InputError(
                "the weights are not those of a mixture",
                got=self.weights.tolist(),
                expected="positive numbers that sum to one",
                hint="Divide them by their sum; leave out components of weight zero.",
            )

    def _spread(self) -> Spread:
        """Mean of the mixture, width of its narrowest component, reach of all."""
        centre = torch.einsum("k,k...->...", self.weights, self.means)
        distances = (self.means - centre).flatten(1).double().square().sum(1)
        values = self._values.double()
        smallest, largest = values.mean(1).amin().sqrt(), (values.amax(1) + distances).amax().sqrt()
        return Spread(float(smallest), float(largest), centre)

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
        """Probability of each component, ``p(k | x_t)``, ``(batch, k)``."""
        return self._components(x_t, t)[0]

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Exact mean ``(batch, *grid.shape)``, without its covariance."""
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
        for k in component.unique().tolist():
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
    r"""``sum_k w_k N(mu_k, C_k)`` on a real grid, with dense covariances, in closed form.

    Given ``z = x_t / alpha = x_0 + r eps`` it is a mixture again, of the Gaussian posteriors of its
    components (`GaussianPrior`)::

        p(k | x_t) ∝ w_k N(z; mu_k, C_k + r^2 I),   m_k = mu_k + C_k (C_k + r^2 I)^-1 (z - mu_k)
        E[x_0 | x_t] = sum_k p(k | x_t) m_k = m
        Cov[x_0 | x_t] = sum_k p(k | x_t) (r^2 C_k (C_k + r^2 I)^-1 + (m_k - m)(m_k - m)^T)

    So is ``p(x_0 | y)`` for linear-Gaussian data (`posterior`), which makes it the reference for
    samplers on multi-modal posteriors.

    Assumptions: none beyond the mixture; moments and posteriors are exact. Cost: ``k``
    eigendecompositions of O(n^3) when it is built; then O(k n^2) per member for `denoise`, and
    O(k n^3) for `moments`, which builds a dense covariance per member.

    Args:
        grid: of the field; real, of any number of dims.
        weights: ``w_k``, ``(k,)``, positive, summing to one.
        means: ``mu_k``, ``(k, *grid.shape)``.
        covariances: ``C_k``, ``(k, n, n)`` with ``n = grid.size``, symmetric positive
            semi-definite.
        schedule: noise levels of ``x_t`` in the units of the field; default: from its spread.

    Raises:
        ShapeError: arrays that do not fit each other or the grid.
        DTypeError: a complex grid, or complex values.
        NonFiniteError: NaN or Inf.
        InputError: weights that are not probabilities, or a covariance that is not symmetric.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import GaussianMixturePrior
        >>> prior = GaussianMixturePrior(
        ...     Grid(("x",), (1,)),
        ...     torch.tensor([0.5, 0.5]),
        ...     torch.tensor([[-1.0], [1.0]]),
        ...     covariances=0.01 * torch.ones(2, 1, 1),
        ... )
        >>> prior.responsibilities(torch.tensor([[0.0]]), torch.tensor(0.3))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(
        self,
        grid: Grid,
        weights: Any,
        means: Any,
        *,
        covariances: Any,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(grid, weights, means)
        shape = (len(self.weights), grid.size, grid.size)
        self.covariances = as_tensor(covariances, "covariances", shape=shape, dtype=grid.dtype)
        check_hermitian(self.covariances, "a covariance")
        self.spread = self._spread()
        self.schedule = self.spread.schedule(schedule)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact mean ``(batch, *grid.shape)`` and covariance of the mixture ``p(x_0 | x_t)``."""
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
        return semidefinite_eigen(self.covariances)

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
    r"""``sum_k w_k N(mu_k, F^H S_k F)`` on a real grid: stationary components, all by FFT.

    The moments are those of `GaussianMixturePrior` with ``C_k = F^H S_k F``. Given ``x_t`` the
    covariance is a stationary one for each member and one direction per component::

        Cov[x_0 | x_t] = sum_k p(k | x_t) (F^H r^2 S_k / (S_k + r^2) F + (m_k - m)(m_k - m)^T)

    Assumptions: periodic boundaries and components that are stationary about their means; the
    moments are exact. Cost: O(k n log n) per member and call, so that it scales to images.

    Args:
        grid: of the field; real, of any number of dims.
        weights: ``w_k``, ``(k,)``, positive, summing to one.
        means: ``mu_k``, ``(k, *grid.shape)``.
        spectra: ``S_k > 0`` in ``torch.fft.fftn`` order, ``(k, *grid.shape)``; ``S(-f) = S(f)``.
        schedule: noise levels of ``x_t`` in the units of the field; default: from its spread.

    Raises:
        ShapeError: arrays that do not fit each other or the grid, or an asymmetric spectrum.
        DTypeError: a complex grid, or complex values.
        NonFiniteError: NaN or Inf.
        InputError: weights that are not probabilities, or a spectrum with zeros.

    Example:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.priors import SpectralMixturePrior
        >>> prior = SpectralMixturePrior(
        ...     Grid(("x",), (4,)),
        ...     torch.tensor([0.5, 0.5]),
        ...     torch.stack([-torch.ones(4), torch.ones(4)]),
        ...     spectra=0.01 * torch.ones(2, 4),
        ... )
        >>> prior.denoise(torch.ones(1, 4), torch.tensor(0.1))
        tensor([[1., 1., 1., 1.]])
    """

    def __init__(
        self,
        grid: Grid,
        weights: Any,
        means: Any,
        *,
        spectra: Any,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(grid, weights, means)
        shape = tuple(self.means.shape)
        self.spectra = as_tensor(spectra, "spectra", shape=shape, dtype=grid.dtype)
        check_mirrored(self.spectra, grid.ndim, "each of the spectra")
        if not (self.spectra > 0).all():
            raise InputError(
                "the spectra are not positive",
                got=f"values down to {float(self.spectra.min()):.3g}",
                expected="variances > 0",
                hint="Add a small constant to spectra with zeros.",
            )
        self.spread = self._spread()
        self.schedule = self.spread.schedule(schedule)

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact mean ``(batch, *grid.shape)`` and covariance of the mixture ``p(x_0 | x_t)``."""
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
