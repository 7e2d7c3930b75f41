"""Posteriors known in closed form or by a long exact chain, and distances to them. No tests here.

A `Case` is a prior, data and draws of the exact posterior. Factories make them: Gaussian fields by
FFT, mixtures and linear data by conjugacy, Laplace increments by blocked Gibbs, nonlinear operators
by Hamiltonian Monte Carlo. `Case.score` measures an ensemble, `Case.floor` what exact draws score:
no method can do better than the floor but by chance.

Shared by the tests and by ``benchmarks/exact_posterior.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.operators import (
    Convolution,
    Linear,
    LineIntegrals,
    Lognormal,
    Mask,
    Matrix,
    Saturating,
)
from invdiff.priors.gaussian import StationaryGaussianPrior
from invdiff.priors.levy import LevyPrior
from invdiff.priors.mixture import GaussianMixturePrior, SpectralMixturePrior
from invdiff.protocols import Operator, Prior
from tests.support.chains import (
    coloured,
    filtered,
    gibbs,
    hmc,
    identity,
    likelihood_of,
    measured_rows,
    r_hat,
    thinned,
)
from tests.support.closed_form import (
    MIXTURE_NOISE,
    grid2d,
    half,
    mixture_operator,
    mixture_prior,
    normal,
    power_spectrum,
    sliced_w2,
    stationary_prior,
)
from tests.support.distances import (
    LogProb,
    covariance_error,
    coverage,
    energy_distance,
    hpd_coverage,
    mean_error,
    mmse_gap_db,
    mode_tv,
    power_of,
    spectrum_ratio,
    std_ratio,
)

REAL = torch.float64
OPERATORS = ("inpainting", "blur", "fourier", "lines")
N_REFERENCE, N_SPARE = 4096, 2048
N_SETS = 8  # of exact draws, whose mean score is the floor

# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A posterior and ``N_REFERENCE`` exact draws of it, with others to spare.

    ``log_prob`` is the exact log-density up to a constant. ``log_evidence`` is that of
    ``term.log_prob``, which leaves out the normalisation of the noise: what samplers estimate.
    ``mean`` and ``covariance`` are flat, and exact where there is a closed form.
    """

    name: str
    prior: Prior
    term: Gaussian
    reference: Tensor = field(repr=False)
    spare: Tensor = field(repr=False)
    log_prob: LogProb = field(repr=False)
    mean: Tensor = field(repr=False)
    covariance: Tensor = field(repr=False)
    log_evidence: float | None = None
    modes: GaussianMixturePrior | None = field(default=None, repr=False)

    @property
    def n(self) -> int:
        """Points along an edge."""
        return self.prior.grid.shape[0]

    @cached_property
    def power(self) -> Tensor:
        """Power spectrum of the exact spread, on the grid of the DFT."""
        return power_of(self.covariance, self.prior.grid.shape)

    @cached_property
    def _reference_log_prob(self) -> Tensor:
        return self.log_prob(self.reference)

    def score(self, draws: Tensor) -> dict[str, float]:
        """All distances of an ensemble; its size divides that of the reference."""

        def log_prob(x: Tensor) -> Tensor:
            return self._reference_log_prob if x is self.reference else self.log_prob(x)

        moments = self.mean, self.covariance
        scores = {
            "sw2": sliced_w2(draws, self.reference),
            "energy": energy_distance(draws, self.reference[:1024]),
            "mean_error": mean_error(draws, *moments),
            "covariance_error": covariance_error(draws, self.covariance),
            "spectrum_error": float((spectrum_ratio(draws, self.power) - 1).abs().max()),
            "std_ratio": std_ratio(draws, self.covariance),
            "mmse_gap_db": mmse_gap_db(draws, *moments),
        }
        for percent in (50, 90):
            level = percent / 100
            scores[f"coverage{percent}"] = coverage(draws, self.reference, level)
            scores[f"hpd{percent}"] = hpd_coverage(draws, self.reference, level, log_prob=log_prob)
        if self.modes is not None:
            scores["mode_tv"] = mode_tv(draws, self.modes)
        return scores

    def floor(self, n: int) -> dict[str, float]:
        """Mean score of ``N_SETS`` sets of ``n`` exact draws, ``n * N_SETS <= len(spare)``."""
        if n * N_SETS > len(self.spare):
            raise ValueError(f"{N_SETS} sets of {n} draws, but only {len(self.spare)} to spare")
        scores = [self.score(draws) for draws in self.spare[: n * N_SETS].split(n)]
        return {key: float(np.mean([score[key] for score in scores])) for key in scores[0]}


def linear_operator(name: str, grid: Grid) -> Linear:
    """Operators of real fields: half the points, a blur, low waves, rays at 12 angles."""
    n = grid.shape[0]
    if name == "inpainting":
        return Mask(grid, half(grid.shape, 0.5, seed=1))
    if name == "blur":
        return Convolution.gaussian(grid, std=1.0)
    if name == "fourier":
        return real_fourier(grid, 0.3)
    angles = np.arange(12) * np.pi / 12
    return (1 / n) * LineIntegrals(grid, list(angles), max(n // 2, 4))


def real_fourier(grid: Grid, fraction: float) -> Matrix:
    """Cosines and sines of a random share of the waves, low ones first; orthonormal rows."""
    axes = [np.fft.fftfreq(n, 1 / n).astype(int) for n in grid.shape]
    waves = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, grid.ndim)
    ends = np.array(grid.shape)
    # One of each pair of opposite waves; those that are their own opposite have no sine: left out.
    kept = [k for k in waves if tuple(k) > tuple(-k) and not ((2 * k) % ends == 0).all()]
    rank = np.array([np.linalg.norm(k / ends) for k in kept])
    rank = rank * np.random.default_rng(6).uniform(0.3, 1, len(kept))
    chosen = [kept[i] for i in np.argsort(rank)[: max(1, int(fraction * len(kept)))]]
    points = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    phases = 2 * np.pi * points.reshape(-1, grid.ndim) @ (np.stack(chosen) / ends).T
    rows = np.concatenate([np.cos(phases), np.sin(phases)], 1).T * (2 / grid.size) ** 0.5
    constant = np.full((1, grid.size), grid.size**-0.5)
    return Matrix(torch.from_numpy(np.concatenate([constant, rows])), grid)


def observe(operator: Operator, x: Tensor, noise: float, *, seed: int) -> Gaussian:
    """Likelihood of simulated data, zero where nothing is measured."""
    n = normal(operator.range.shape, seed)
    measured = getattr(operator, "measured", None)
    if measured is not None:
        n = n * measured
    return Gaussian(operator(x[None])[0] + noise * n, operator, noise)


def without_constant(log_evidence: float, n_data: int, noise: float) -> float:
    """Evidence of ``exp(-|y - A x|^2 / 2 s^2)`` from that of the normalised likelihood."""
    return log_evidence + n_data / 2 * math.log(2 * math.pi * noise**2)


# --- Gaussian fields ------------------------------------------------------------------------------


def gaussian_case(
    operator: str, noise: float, n: int, *, n_reference: int = N_REFERENCE, n_spare: int = N_SPARE
) -> Case:
    """A periodic Gaussian field of ``n x n`` points, to 64: the posterior by Matheron's rule."""
    prior = stationary_prior(grid2d(n))
    a = linear_operator(operator, prior.grid)
    x = coloured(prior, normal((1, n, n), 3))
    term = observe(a, x[0], noise, seed=4)
    solver = filter_posterior if a.is_diagonal_in_dft else kriging_posterior
    mean, covariance, draws, evidence = solver(
        prior, term, noise, normal((n_reference + n_spare, n, n), 5)
    )
    return Case(
        f"gaussian{n} {operator} {noise}",
        prior,
        term,
        reference=draws[:n_reference],
        spare=draws[n_reference:],
        log_prob=partial(gaussian_log_prob, prior, term),
        mean=mean,
        covariance=covariance,
        log_evidence=evidence,
    )


def gaussian_log_prob(prior: StationaryGaussianPrior, term: Gaussian, x: Tensor) -> Tensor:
    """Log-posterior up to a constant."""
    whitened = filtered(prior.spectrum.rsqrt(), x - prior.mean)
    return likelihood_of(term, x) - 0.5 * whitened.flatten(1).square().sum(1)


Solved = tuple[Tensor, Tensor, Tensor, float]


def filter_posterior(
    prior: StationaryGaussianPrior, term: Gaussian, noise: float, eps: Tensor
) -> Solved:
    """A filter of all the field: everything is diagonal in the DFT. Prior mean zero."""
    a, s = term.operator, prior.spectrum
    total = s * a.gram_spectrum + noise**2
    power = s * noise**2 / total
    mean = filtered(s / total, a.adjoint(term.y[None]))[0]
    covariance = filtered(power, identity(prior)).flatten(1)
    modes = torch.fft.fftn(term.y, norm="ortho").abs().square()
    evidence = -0.5 * float((modes / total + (total / noise**2).log()).sum())
    return mean.flatten(), covariance, mean + filtered(power.sqrt(), eps), evidence


def kriging_posterior(
    prior: StationaryGaussianPrior, term: Gaussian, noise: float, eps: Tensor
) -> Solved:
    """``x + C A^T (A C A^T + s^2 I)^-1 (y + s n - A x)`` for draws ``x`` of the prior."""
    matrix, y = measured_rows(term.operator, term.y)
    crossed = filtered(prior.spectrum, matrix.reshape(-1, *prior.grid.shape)).flatten(1)
    innovation = crossed @ matrix.mT + noise**2 * torch.eye(len(y), dtype=REAL)
    root = torch.linalg.cholesky((innovation + innovation.mT) / 2)
    half_gain = torch.linalg.solve_triangular(root, crossed, upper=False)
    whitened = torch.linalg.solve_triangular(root, y[:, None], upper=False)[:, 0]
    mean = half_gain.mT @ whitened
    covariance = filtered(prior.spectrum, identity(prior)).flatten(1) - half_gain.mT @ half_gain
    x = coloured(prior, eps).flatten(1)
    residual = y + noise * normal((len(eps), len(y)), 6) - x @ matrix.mT
    shift = torch.linalg.solve_triangular(root, residual.mT, upper=False).mT @ half_gain
    log_det = 2 * float((root.diagonal() / noise).log().sum())
    evidence = -0.5 * (float(whitened.square().sum()) + log_det)
    return mean, covariance, (x + shift).reshape(eps.shape), evidence


# --- mixtures -------------------------------------------------------------------------------------


def mixture_prior32() -> SpectralMixturePrior:
    """Four modes of 32x32 points, unequal, each with a spread of its own roughness.

    The means differ little in their longest waves, which are what few data see.
    """
    n, weights = 32, torch.tensor((0.4, 0.3, 0.2, 0.1), dtype=REAL)
    k = torch.fft.fftfreq(n, 1 / n, dtype=REAL)
    power = power_spectrum(n, 12.0) * torch.where(k[:, None] ** 2 + k**2 < 4, 0.04, 1.0)
    means = 0.35 * filtered((power / power.mean()).sqrt(), normal((4, n, n), 7))
    lengths = (1.5, 2.0, 3.0, 4.0)
    spectra = torch.stack([0.5**2 * power_spectrum(n, length) for length in lengths])
    return SpectralMixturePrior(grid2d(n), weights, means, spectra=spectra)


def few_data(name: str, n: int) -> Linear:
    """Operators that leave several modes of the mixtures possible: 2 to 16 data.

    Those of `closed_form.mixture_operator` single one mode out, so that they test no
    weights.
    """
    grid = grid2d(n)
    if name == "inpainting":
        return _points(grid, 2 if n == 8 else 8, seed=5)
    if name == "blur":
        blurred = Convolution.gaussian(grid, std=3.0 if n == 8 else 4.0)
        return _points(grid, 4 if n == 8 else 16, seed=8) @ blurred
    if name == "lines":
        return (1 / n) * LineIntegrals(grid, [0.0], 3 if n == 8 else 8)
    if n > 8:
        return mixture_operator(name, n)
    return Matrix(mixture_operator(name, n).matrix[2:4], grid)  # one wave


def _points(grid: Grid, n_points: int, *, seed: int) -> Mask:
    chosen = np.random.default_rng(seed).choice(grid.size, n_points, replace=False)
    keep = torch.zeros(grid.size, dtype=torch.bool)
    keep[torch.from_numpy(chosen)] = True
    return Mask(grid, keep.reshape(grid.shape))


def mixture_case8(operator: str, *, noise: float = 0.1, index: int = 0) -> Case:
    """The mixture with few data of its draw ``index``."""
    prior, name = mixture_prior(), f"mixture8 {operator} {noise} {index}"
    return _mixture_case(prior, prior, few_data(operator, 8), name=name, noise=noise, index=index)


def design_case8(operator: str, *, index: int = 0) -> Case:
    """The cases of `closed_form.mixture_operator`: many data, nearly always a single mode."""
    prior, name = mixture_prior(), f"mixture8-design {operator} {MIXTURE_NOISE} {index}"
    a = mixture_operator(operator)
    return _mixture_case(prior, prior, a, name=name, noise=MIXTURE_NOISE, index=index)


def mixture_case32(operator: str, *, noise: float = 0.1, index: int = 3) -> Case:
    """A mixture with stationary components on 32x32 points; the posterior is dense."""
    prior, a = mixture_prior32(), few_data(operator, 32)
    name = f"mixture32 {operator} {noise} {index}"
    return _mixture_case(prior, prior.dense(), a, name=name, noise=noise, index=index)


def _mixture_case(
    prior: GaussianMixturePrior | SpectralMixturePrior,
    explicit: GaussianMixturePrior,
    operator: Linear,
    *,
    name: str,
    noise: float,
    index: int,
) -> Case:
    x = prior.exact_draws(32, seed=11)[index]
    term = observe(operator, x, noise, seed=20 + index)
    matrix, y = measured_rows(term.operator, term.y)
    exact = explicit.posterior(matrix, y, noise)
    means = exact.means.flatten(1)
    mean = exact.weights @ means
    spread = (means - mean) * exact.weights.sqrt()[:, None]
    within = torch.einsum("k,knm->nm", exact.weights, exact.covariances)
    return Case(
        name,
        prior,
        term,
        reference=exact.exact_draws(N_REFERENCE, seed=12),
        spare=exact.exact_draws(N_SPARE, seed=13),
        log_prob=lambda x: prior.log_prob(x) + likelihood_of(term, x),
        mean=mean,
        covariance=within + spread.mT @ spread,
        log_evidence=without_constant(explicit.log_evidence(matrix, y, noise), len(y), noise),
        modes=exact,
    )


# --- chains ---------------------------------------------------------------------------------------


def _chain_case(name: str, prior: Prior, term: Gaussian, chains: Tensor, log_prob: LogProb) -> Case:
    """The first half of the chains is the reference, the other has the spare draws."""
    convergence = r_hat(chains)
    if not convergence < 1.01:
        raise RuntimeError(f"{name}: R-hat {convergence:.4f} of the chains is not below 1.01")
    first, second = chains.tensor_split(2)
    pooled = chains.flatten(0, 1)
    shape = prior.grid.shape
    return Case(
        name,
        prior,
        term,
        reference=thinned(first, N_REFERENCE).reshape(-1, *shape),
        spare=thinned(second, N_SPARE).reshape(-1, *shape),
        log_prob=log_prob,
        mean=pooled.mean(0),
        covariance=pooled.mT.cov(),
    )


def levy_case(operator: str, noise: float, *, n: int = 32, seed: int = 0) -> Case:
    """Laplace increments, ``n`` points, linear data; the posterior by Gibbs sampling."""
    prior = LevyPrior(Grid(("x",), (n,), REAL), 0.5)
    a = linear_operator(operator, prior.grid)
    term = observe(a, prior.exact_draws(1, seed=3)[0], noise, seed=4)
    chains = gibbs(prior, term, noise, seed=seed)
    return _chain_case(
        f"levy{n} {operator} {noise}",
        prior,
        term,
        chains,
        lambda x: prior.log_prob(x) + likelihood_of(term, x),
    )


def nonlinear_operator(kind: str, grid: Grid) -> Operator:
    """``saturating``: half the points through a detector; ``lognormal``: rays through exp(x)."""
    if kind == "saturating":
        return Saturating(linear_operator("inpainting", grid), level=1.0)
    return Lognormal(linear_operator("lines", grid), log_std=0.7)


def nonlinear_case(
    kind: str, noise: float, *, n: int = 8, n_steps: int = 800, seed: int = 0
) -> Case:
    """A Gaussian field of ``n x n`` points seen through a nonlinear operator; gold by HMC."""
    prior = stationary_prior(grid2d(n))
    a = nonlinear_operator(kind, prior.grid)
    x = coloured(prior, normal((1, n, n), 6))[0]  # up to twice the level of saturation
    term = observe(a, x, noise, seed=4)
    chains = hmc(prior, term, n_steps=n_steps, seed=seed)
    log_prob = partial(gaussian_log_prob, prior, term)
    return _chain_case(f"{kind}{n} {noise}", prior, term, chains, log_prob)
