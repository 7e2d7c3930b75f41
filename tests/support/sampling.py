"""What tests of samplers share: exact laws, whole runs, a skewed posterior. No tests in here."""

import torch
from torch import Tensor

from invdiff.conditioning import Conditioning
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.operators import Identity, Lognormal
from invdiff.posterior import Posterior
from invdiff.samplers.base import LevelSampler, RatioSampler, SamplerState
from invdiff.samplers.drive import iterate
from invdiff.samplers.inner import Target, isotropic
from tests.support.closed_form import (
    GaussianProblem,
    affine_law,
    whiten,
)

CPU = torch.device("cpu")
MEAN, STD, NOISE, DATUM = 0.5, 1.0, 0.5, 1.2


def mean_error(mean: Tensor, problem: GaussianProblem) -> float:
    """Error of the mean in posterior standard deviations, root mean square over points."""
    variance = problem.covariance.diagonal().real
    return float(((mean.flatten() - problem.mean).abs().square() / variance).mean().sqrt())


def variance_ratio(covariance: Tensor, problem: GaussianProblem) -> float:
    """Total variance over the exact one."""
    return float(covariance.diagonal().real.sum() / problem.covariance.diagonal().real.sum())


def law(
    problem: GaussianProblem, sampler: RatioSampler, conditioning: Conditioning | None = None
) -> tuple[float, float]:
    """Mean error and ratio of variances, without Monte Carlo."""
    posterior = Posterior(problem.prior, problem.term, conditioning=conditioning)
    mean, covariance = affine_law(posterior, sampler)
    return mean_error(mean, problem), variance_ratio(covariance, problem)


def prior_covariance(problem: GaussianProblem) -> Tensor:
    prior = problem.prior
    return (prior._vectors * prior._values) @ prior._vectors.mH


def last(model, sampler: LevelSampler, n: int, *, seed: int = 3) -> SamplerState:
    *_, state = iterate(model, sampler, realizations=range(n), seed=seed)
    return state


def errors(problem: GaussianProblem, draws: Tensor) -> tuple[float, float]:
    """Root mean square error of the mean in standard deviations; mean variance over the exact."""
    white = whiten(draws, problem.mean, problem.covariance)
    return float(white.mean(0).square().mean().sqrt()), float(white.var(0).mean())


def lognormal_target(n: int) -> tuple[Target, Grid]:
    """``x ~ N(0.5, 1)`` and ``1.2 = exp(x) + 0.5 n``, for ``n`` members."""
    grid = Grid(("x",), (1,), torch.float64)
    term = Gaussian(torch.full((1,), DATUM).double(), Lognormal(Identity(grid)), NOISE)
    mean, t = torch.full((n, 1), MEAN).double(), torch.tensor(1.0)
    return Target(mean, isotropic(grid, STD, device=CPU), (term,), mean, t), grid


def exact_distribution(draws: Tensor) -> Tensor:
    """Its distribution function at the draws, by quadrature."""
    x = torch.linspace(-8, 4, 20001, dtype=torch.float64)
    log = -(((x - MEAN) / STD) ** 2) / 2 - ((DATUM - x.exp()) / NOISE) ** 2 / 2
    cumulative = log.softmax(0).cumsum(0)
    return cumulative[torch.searchsorted(x, draws.flatten())]
