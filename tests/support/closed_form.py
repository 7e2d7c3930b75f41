"""Problems with known answers, and the laws that draws of them obey. No tests in here.

Shared by the tests and by ``tests/referee.py``, which the benchmarks use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators import Convolution, Linear, Mask, Matrix
from invdiff.operators.mri import CartesianMRI
from invdiff.priors.gaussian import GaussianPrior, StationaryGaussianPrior
from invdiff.priors.mixture import GaussianMixturePrior
from invdiff.protocols import Prior
from invdiff.samplers.base import RatioSampler
from invdiff.schedule import Schedule


def grid2d(n: int, dtype: torch.dtype = torch.float64) -> Grid:
    return Grid(("y", "x"), (n, n), dtype)


def normal(shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal values; complex ones are circular with ``E|n|^2 = 1``."""
    rng = np.random.default_rng(seed)
    real = torch.from_numpy(rng.standard_normal(tuple(shape)))
    if not dtype.is_complex:
        return real.to(dtype)
    imag = torch.from_numpy(rng.standard_normal(tuple(shape)))
    return (torch.complex(real, imag) / 2**0.5).to(dtype)


# --- problems -------------------------------------------------------------------------------------


def correlation(n: int, length: float) -> Tensor:
    """``exp(-d / length)`` between the points of an ``n x n`` grid, ``(n^2, n^2)``."""
    axis = torch.arange(n, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    return torch.exp(-torch.cdist(points, points) / length)


def power_spectrum(n: int, length: float) -> Tensor:
    """Spectrum ``~ (1 + (k length)^2)^-1.5`` of a periodic field of unit variance, ``(n, n)``."""
    k = 2 * torch.pi * torch.fft.fftfreq(n, dtype=torch.float64)
    power = (1 + (k[:, None] ** 2 + k**2) * length**2) ** -1.5
    return power / power.mean()


def gaussian_prior(grid: Grid, *, schedule: Schedule | None = None) -> GaussianPrior:
    """Exponential correlation; on a complex grid with phases that make it Hermitian, not real."""
    matrix = correlation(grid.shape[0], length=3.0).to(grid.dtype)
    if grid.is_complex:
        phase = torch.polar(torch.ones(grid.size), 0.3 * torch.arange(grid.size)).to(grid.dtype)
        matrix = phase[:, None] * matrix * phase.conj()
    mean = torch.zeros(grid.shape, dtype=grid.dtype)
    return GaussianPrior(grid, mean, matrix, schedule=schedule)


def stationary_prior(grid: Grid) -> StationaryGaussianPrior:
    mean = torch.zeros(grid.shape, dtype=grid.dtype)
    return StationaryGaussianPrior(grid, mean, power_spectrum(grid.shape[0], length=4.0))


def half(shape: tuple[int, ...], fraction: float, seed: int) -> Tensor:
    """A random boolean mask."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < fraction)


OPERATORS = ("inpainting", "blur", "fourier")


def linear_operator(name: str, n: int) -> Linear:
    """Inpainting and blur of a real field, a Fourier mask of a complex one; float64."""
    if name == "inpainting":
        return Mask(grid2d(n), half((n, n), 0.5, seed=1))
    if name == "blur":
        return Convolution.gaussian(grid2d(n), std=1.0)
    return CartesianMRI(half((n, n), 0.4, seed=2), domain=grid2d(n, torch.complex128))


def dense(operator: Linear) -> Tensor:
    """The matrix of an operator, ``(range.size, domain.size)``."""
    eye = torch.eye(operator.domain.size, dtype=operator.domain.dtype)
    return operator(eye.reshape(-1, *operator.domain.shape)).flatten(1).mT


def observe(operator: Linear, x: Tensor, noise: float, *, seed: int) -> Gaussian:
    """Likelihood of simulated data: zero where the operator measures nothing, as in k-space."""
    n = normal(operator.range.shape, seed, operator.range.dtype)
    if isinstance(operator, Mask):
        n = n * operator.keep
    if isinstance(operator, CartesianMRI):
        n = n * operator.mask
    return Gaussian(operator(x[None])[0] + noise * n, operator, noise)


@dataclass(frozen=True)
class GaussianProblem:
    """A Gaussian prior, data, and the exact posterior ``N(mean, covariance)``, flattened."""

    prior: Prior
    term: Gaussian
    mean: Tensor = field(repr=False)
    covariance: Tensor = field(repr=False)


def gaussian_problem(
    name: str, noise: float, *, n: int = 8, schedule: Schedule | None = None
) -> GaussianProblem:
    """Dense problem of ``n^2`` dimensions; the posterior by the Kalman formula, no inverses."""
    operator = linear_operator(name, n)
    prior = gaussian_prior(operator.domain, schedule=schedule)
    c = (prior._vectors * prior._values) @ prior._vectors.mH
    # The symmetric root: eigenvectors alone differ in sign from one machine to the next.
    root = (prior._vectors * prior._values.sqrt()) @ prior._vectors.mH
    x = (root @ normal((n * n,), 3, root.dtype)).reshape(n, n)
    term = observe(operator, x, noise, seed=4)
    mean, covariance = kalman(c, dense(operator), term.y.flatten(), noise)
    return GaussianProblem(prior, term, mean, covariance)


def kalman(c: Tensor, matrix: Tensor, y: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of ``x ~ N(0, c)`` given ``y = matrix x + noise n``."""
    innovation = matrix @ c @ matrix.mH + noise**2 * torch.eye(len(y), dtype=c.dtype)
    gain = torch.linalg.solve(innovation, matrix @ c).mH
    updated = c - gain @ matrix @ c
    return gain @ y, (updated + updated.mH) / 2


# --- the law of an affine sampler, without Monte Carlo --------------------------------------------


class ImpulseNoise:
    """Stands in for NoiseField: each member sees zeros but for one unit coordinate of the noise.

    Member 0 sees zeros only. What a sampler of an affine model makes of the members, less member
    0, are then the columns of its linear map from noise to draw.
    """

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.offsets: dict[tuple[int, int], int] = {}
        self.n_coordinates = 0

    def initial(self, realizations: Sequence[int], device: torch.device) -> _Impulses:
        return _Impulses(self, -1)

    def at(self, realizations: Sequence[int], step: int, device: torch.device) -> _Impulses:
        return _Impulses(self, step)


@dataclass(frozen=True)
class _Impulses:
    field: ImpulseNoise
    step: int

    def __call__(self, grid: Grid, stream: int, *, where: Tensor | None = None) -> Tensor:
        units = [1.0] if not grid.is_complex else [0.5**0.5, 1j * 0.5**0.5]
        key = (self.step, stream)
        if key not in self.field.offsets:
            self.field.offsets[key] = 1 + self.field.n_coordinates
            self.field.n_coordinates += len(units) * grid.size
        out = torch.zeros(self.field.size, grid.size, dtype=grid.dtype)
        if self.field.size > 1:
            start = self.field.offsets[key]
            for i, unit in enumerate(units):
                rows = torch.arange(grid.size) + start + i * grid.size
                out[rows, torch.arange(grid.size)] = unit
        return out.reshape(-1, *grid.shape)


def affine_law(model: Prior, sampler: RatioSampler) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of what a sampler draws from a linear-Gaussian model."""
    counting = ImpulseNoise()
    _run(model, sampler, counting)
    impulses = ImpulseNoise(1 + counting.n_coordinates)
    out = _run(model, sampler, impulses).flatten(1)
    columns = (out[1:] - out[0]).mT
    return out[0], columns @ columns.mH


def _run(model: Prior, sampler: RatioSampler, noise: ImpulseNoise) -> Tensor:
    with torch.no_grad():
        state = sampler.init(model, noise, range(noise.size), device=torch.device("cpu"))
        while state.step < sampler.steps:
            state = sampler.step(model, noise, state)
    return state.x


# --- laws of draws --------------------------------------------------------------------------------


def as_reals(w: Tensor) -> Tensor:
    """Circular standard complex values ``(n, d)`` as standard real ones ``(n, 2d)``."""
    return torch.cat([w.real, w.imag], 1) * 2**0.5 if w.is_complex() else w


def whiten(draws: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """``L^-1 (x - mean)``, real ``(n, d)``: independent standard normal if the draws are exact."""
    factor = torch.linalg.cholesky(covariance)
    deviation = (draws.flatten(1) - mean).mT
    return as_reals(torch.linalg.solve_triangular(factor, deviation, upper=False).mT)


def whiten_stationary(deviation: Tensor, variance: Tensor) -> Tensor:
    """The same for a covariance diagonal in the 2-D DFT, with eigenvalues ``variance``."""
    modes = torch.fft.fft2(deviation, norm="ortho") / variance.sqrt()
    if deviation.is_complex():
        return as_reals(modes.flatten(1))
    return (modes.real - modes.imag).flatten(1)  # Hartley: orthogonal, and real for real fields


def whiteness(w: Tensor) -> dict[str, float]:
    """p-values of ``w (n, d)`` being independent standard normal, by four exact moments.

    - mean: ``n |mean w|^2 ~ chi2_d``;
    - spread: ``sum w^2 ~ chi2_nd``;
    - variances: ``n S_ii ~ chi2_n``, independent (Kolmogorov-Smirnov);
    - covariances: ``T = n sum_{i<j} S_ij^2`` with ``M = d (d - 1) / 2`` terms has mean ``M`` and
      variance ``M (2 + 6/n + 4 (d - 2) / n)``; nearly normal.
    """
    n, d = w.shape
    squares = w.square().sum(0)
    gram = w @ w.mT  # |S|_F^2 = |gram|_F^2 / n^2, also where d is large
    total = float((gram.square().sum() - squares.square().sum()) / (2 * n))
    terms = d * (d - 1) / 2
    spread = (terms * (2 + 6 / n + 4 * (d - 2) / n)) ** 0.5
    return {
        "mean": _two_sided(stats.chi2(d).cdf(float(w.mean(0).square().sum()) * n)),
        "spread": _two_sided(stats.chi2(n * d).cdf(float(squares.sum()))),
        "variances": float(stats.kstest(squares.numpy(), stats.chi2(n).cdf).pvalue),
        "covariances": _two_sided(stats.norm.cdf((total - terms) / spread)),
    }


def _two_sided(probability: float) -> float:
    return float(2 * min(probability, 1 - probability))


def sliced_w2(a: Tensor, b: Tensor, *, n_projections: int = 128, seed: int = 0) -> float:
    """Root mean square over random directions of the 1-D Wasserstein-2 distance.

    ``len(b)`` is a multiple of ``len(a)``.
    """
    directions = normal((a[0].numel(), n_projections), seed)
    directions = directions / directions.norm(dim=0)
    along_a = (a.flatten(1).double() @ directions).sort(0).values
    along_b = (b.flatten(1).double() @ directions).sort(0).values
    along_a = along_a.repeat_interleave(len(b) // len(a), 0)
    return float((along_a - along_b).square().mean().sqrt())


# --- Gaussian mixtures ----------------------------------------------------------------------------

MODE_WEIGHTS = (0.35, 0.25, 0.2, 0.12, 0.08)
MIXTURE_NOISE = 0.1


def mixture_prior(n: int = 8, *, seed: int = 0) -> GaussianMixturePrior:
    """Five smooth mean fields of unit variance, each with a smooth spread of its own."""
    root = torch.linalg.cholesky(correlation(n, 4.0))
    k = len(MODE_WEIGHTS)
    means = (normal((k, n * n), seed) @ root.mT).reshape(k, n, n)
    spreads = [0.5**2 * correlation(n, length) for length in (1.5, 2.0, 3.0, 4.0, 6.0)]
    weights = torch.tensor(MODE_WEIGHTS, dtype=torch.float64)
    return GaussianMixturePrior(grid2d(n), weights, means, covariances=torch.stack(spreads))


def mixture_operator(name: str, n: int = 8) -> Linear:
    """Real, also the partial Fourier one, so that posteriors are mixtures again."""
    grid = grid2d(n)
    if name == "inpainting":
        return Mask(grid, half((n, n), 0.1, seed=5))
    if name == "blur":
        return Convolution.gaussian(grid, std=3.0)
    keep = [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]
    y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * 2, indexing="ij")
    phases = [2 * torch.pi * (ky * y + kx * x).flatten() / n for ky, kx in keep]
    return Matrix(torch.stack([f(p) / n for p in phases for f in (torch.cos, torch.sin)]), grid)


@dataclass(frozen=True)
class MixtureCase:
    """Data drawn from a mixture, its exact posterior, and the yardsticks of sliced W2."""

    name: str
    prior: GaussianMixturePrior
    term: Gaussian
    exact: GaussianMixturePrior
    reference: Tensor = field(repr=False)
    distance: float
    floor: float

    def sw2(self, draws: Tensor) -> float:
        """Sliced W2 to the posterior as a fraction of the distance from prior to posterior."""
        return sliced_w2(draws, self.reference) / self.distance

    def std_ratio(self, draws: Tensor) -> float:
        """Standard deviation over the exact one, mean over pixels."""
        return float((draws.std(0) / self.reference.std(0)).mean())

    def mode_tv(self, draws: Tensor) -> float:
        """Total variation between the weights of the modes and the exact ones."""
        shares = self.exact.responsibilities(draws, torch.tensor(1e-3)).mean(0)
        return float((shares - self.exact.weights).abs().sum() / 2)


def mixture_case(name: str, index: int, *, members: int = 256) -> MixtureCase:
    """Posterior ``index`` of an operator of :data:`OPERATORS`; the floor is a mean of 8."""
    prior, operator = mixture_prior(), mixture_operator(name)
    x = prior.exact_draws(32, seed=11)[index]
    term = observe(operator, x, MIXTURE_NOISE, seed=20 + index)
    exact = prior.posterior(dense(operator), term.y.flatten(), MIXTURE_NOISE)
    n_reference = 16 * members
    reference = exact.exact_draws(n_reference, seed=12)
    distance = sliced_w2(prior.exact_draws(n_reference, seed=13), reference)
    others = [exact.exact_draws(members, seed=100 + i) for i in range(8)]
    floor = float(np.mean([sliced_w2(draws, reference) for draws in others])) / distance
    return MixtureCase(f"{name} {index}", prior, term, exact, reference, distance, floor)


def noise_field(grid: Grid, n: int, seed: int) -> Tensor:
    """``n`` fields of noise from the package's own source."""
    return NoiseField(seed)(grid, range(n), 0)
