r"""Gaussian mixtures in closed form: a multi-modal prior whose posteriors are known exactly.

For ``x_0 ~ sum_k w_k N(mu_k, C_k)`` everything stays a mixture: ``p(x_0 | x_t)``, its moments, and
``p(x_0 | y)`` for linear-Gaussian data. It is the referee of samplers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.covariance import Covariance, DenseCovariance
from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.protocols import BasePrior
from invdiff.schedule import VE, Schedule

__all__ = ["GaussianMixturePrior"]


class GaussianMixturePrior(BasePrior):
    """``sum_k w_k N(mu_k, C_k)`` on a real grid.

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
        k, n = len(weights), grid.size
        if tuple(means.shape) != (k, *grid.shape) or tuple(covariances.shape) != (k, n, n):
            raise ShapeError(
                "mixture components do not fit the grid",
                got=f"means {tuple(means.shape)}, covariances {tuple(covariances.shape)}",
                expected=f"{(k, *grid.shape)}, {(k, n, n)}",
            )
        if grid.is_complex or (weights <= 0).any() or abs(float(weights.sum()) - 1) > 1e-6:
            raise InputError(
                "not a real mixture",
                got=f"{grid.dtype}, weights {weights.tolist()}",
                expected="a real grid and positive weights that sum to one",
            )
        self.grid, self.schedule = grid, schedule or VE()
        self.weights, self.means = weights.to(grid.dtype), means.to(grid.dtype)
        self.covariances = covariances.to(grid.dtype)
        values, self._vectors = torch.linalg.eigh(self.covariances)
        self._values = values.clamp_min(0)

    def __repr__(self) -> str:
        """Number of components and grid."""
        return f"GaussianMixturePrior({len(self.weights)} components, {self.grid})"

    def responsibilities(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``p(k | x_t)``, ``(batch, k)``."""
        return self._components(x_t, t)[0]

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """Exact moments: those of the mixture ``p(x_0 | x_t)``."""
        weights, means, gain, ratio = self._components(x_t, t)
        mean = torch.einsum("bk,bkn->bn", weights, means)
        within = (self._vectors * (ratio**2 * gain)[:, None, :]) @ self._vectors.mT
        spread = means - mean[:, None]
        between = torch.einsum("bk,bkn,bkm->bnm", weights, spread, spread)
        matrix = torch.einsum("bk,knm->bnm", weights, within) + between
        return mean.reshape(x_t.shape), DenseCovariance.of(matrix)

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Exact mean, without its covariance."""
        weights, means, _, _ = self._components(x_t, t)
        return torch.einsum("bk,bkn->bn", weights, means).reshape(x_t.shape)

    def posterior(self, matrix: Tensor, y: Tensor, noise_std: float) -> GaussianMixturePrior:
        """``p(x_0 | y)`` for ``y = matrix x_0 + noise_std n``, again a mixture.

        Args:
            matrix: ``(m, grid.size)``, real (split a complex operator in its parts).
            y: ``(m,)``.
            noise_std: standard deviation of each datum.
        """
        noise = noise_std**2 * torch.eye(len(y), dtype=y.dtype)
        log_weights, means, covariances = [], [], []
        for weight, mu, c in zip(
            self.weights, self.means.flatten(1), self.covariances, strict=True
        ):
            innovation = matrix @ c @ matrix.mT + noise
            gain = torch.linalg.solve(innovation, matrix @ c).mT
            residual = y - matrix @ mu
            evidence = torch.distributions.MultivariateNormal(
                torch.zeros_like(y), innovation
            ).log_prob(residual)
            log_weights.append(torch.log(weight) + evidence)
            means.append(mu + gain @ residual)
            updated = c - gain @ matrix @ c
            covariances.append((updated + updated.mT) / 2)
        weights = torch.softmax(torch.stack(log_weights), 0)
        # Components that the data exclude underflow; they are kept with a negligible weight.
        weights = weights.clamp_min(1e-30)
        return GaussianMixturePrior(
            self.grid,
            weights / weights.sum(),
            torch.stack(means).reshape(self.means.shape),
            covariances=torch.stack(covariances),
            schedule=self.schedule,
        )

    def exact_draws(self, n: int, *, seed: int) -> Tensor:
        """``n`` independent draws of ``x_0``, ``(n, *grid.shape)``."""
        noise = NoiseField(seed)
        uniform = torch.special.ndtr(noise(Grid(("n",), (n,), torch.float64), [0], 0, stream=1)[0])
        edges = self.weights.double().cumsum(0)
        component = torch.searchsorted(edges, uniform).clamp_max(len(self.weights) - 1)
        eps = noise(self.grid, range(n), 0).flatten(1)
        scaled = self._values[component].sqrt() * eps
        fields = torch.einsum("bnm,bm->bn", self._vectors[component], scaled)
        return self.means[component] + fields.reshape(n, *self.grid.shape)

    def _components(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Weights ``(b, k)``, means ``(b, k, n)``, gains ``(k, n)`` in eigenspace, the ratio."""
        alpha, ratio = self.levels(t)
        deviation = (x_t / alpha).flatten(1)[:, None] - self.means.flatten(1)
        projected = torch.einsum("bkn,knm->bkm", deviation, self._vectors)
        total = self._values + ratio**2
        gain = self._values / total
        log_density = -0.5 * (projected.square() / total + total.log()).sum(-1)
        weights = torch.softmax(self.weights.log() + log_density, -1)
        means = self.means.flatten(1) + torch.einsum(
            "bkm,knm->bkn", projected * gain, self._vectors
        )
        return weights, means, gain, ratio
