"""Distances of an ensemble to exact draws, or to exact moments. No tests in here.

Members and exact draws are ``(n, *shape)``; means are flat and covariances matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invdiff.priors.mixture import GaussianMixturePrior

LogProb = Callable[[Tensor], Tensor]


def energy_distance(a: Tensor, b: Tensor) -> float:
    """``sqrt(2 E|a - b| - E|a - a'| - E|b - b'|)`` of two samples as they are (Szekely 2013)."""
    a, b = a.flatten(1), b.flatten(1)

    def mean_distance(p: Tensor, q: Tensor) -> float:
        return float(torch.cdist(p, q).mean())

    square = 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b)
    # Never negative but by rounding.
    return math.sqrt(max(square, 0.0))


def mean_error(draws: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """``|mean of the draws - mean| / sqrt(tr covariance)``; ``1 / sqrt(n)`` for exact draws."""
    return float((draws.flatten(1).mean(0) - mean).norm() / covariance.trace().sqrt())


def covariance_error(draws: Tensor, covariance: Tensor) -> float:
    """Frobenius norm of the error of the sample covariance, relative."""
    return float((draws.flatten(1).mT.cov() - covariance).norm() / covariance.norm())


def std_ratio(draws: Tensor, covariance: Tensor) -> float:
    """Standard deviation over the exact one, mean over points."""
    return float((draws.flatten(1).std(0) / covariance.diagonal().sqrt()).mean())


def power_of(covariance: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Diagonal of ``F C F^H``: the power spectrum of fields of ``shape`` with this covariance."""
    axes = tuple(range(1, len(shape) + 1))
    rows = torch.fft.fftn(covariance.reshape(-1, *shape), dim=axes, norm="ortho").flatten(1).conj()
    both = torch.fft.fftn(rows.mT.reshape(-1, *shape), dim=axes, norm="ortho").flatten(1)
    return both.diagonal().real.reshape(shape)


def spectrum_ratio(draws: Tensor, power: Tensor) -> Tensor:
    """Power of the ensemble's spread over the exact one, in rings of whole wavenumbers."""
    axes = tuple(range(1, draws.ndim))
    modes = torch.fft.fftn(draws - draws.mean(0), dim=axes, norm="ortho")
    estimate = modes.abs().square().sum(0) / (len(draws) - 1)
    waves = [torch.fft.fftfreq(n, 1 / n, dtype=power.dtype) for n in power.shape]
    ring = torch.stack(torch.meshgrid(*waves, indexing="ij")).norm(dim=0).round().long().flatten()
    by_ring = [torch.bincount(ring, weights=p.flatten()) for p in (estimate, power)]
    return by_ring[0] / by_ring[1]


def mode_tv(draws: Tensor, exact: GaussianMixturePrior) -> float:
    """Total variation between the weights of the modes and the exact ones."""
    shares = exact.responsibilities(draws, torch.tensor(1e-3, dtype=torch.float64)).mean(0)
    return float((shares - exact.weights).abs().sum() / 2)


def coverage(draws: Tensor, reference: Tensor, level: float) -> float:
    """Share of exact draws inside the central interval of the ensemble, over all points.

    Between order statistics, so that the expectation is ``level`` for any number of exact draws.
    """
    edges = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(draws.flatten(1).numpy(), edges, axis=0, method="weibull")
    exact = reference.flatten(1).numpy()
    return float(((low <= exact) & (exact <= high)).mean())


def hpd_coverage(draws: Tensor, reference: Tensor, level: float, *, log_prob: LogProb) -> float:
    """Share of exact draws that are denser than the ensemble's ``1 - level`` quantile of density.

    The level set of the ensemble's own values of the exact log-density (Zach et al. 2025, arXiv
    2509.12821): near 0 for an ensemble too narrow about the mode, 1 for one too wide.
    """
    threshold = np.quantile(log_prob(draws).numpy(), 1 - level, method="weibull")
    return float((log_prob(reference).numpy() >= threshold).mean())


def mmse_gap_db(draws: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """``10 log10`` of the mean squared error of the ensemble's mean over that of the exact mean.

    Expected over the exact posterior: ``1 + |m - mean|^2 / tr covariance`` (Zach et al. 2025).
    """
    return 10 * math.log10(1 + mean_error(draws, mean, covariance) ** 2)
