"""Analytic priors: moments against Tweedie's formula, sampling and conjugate algebra."""

import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError
from invdiff.likelihood import Gaussian
from invdiff.operators.linear import Matrix
from invdiff.posterior import Posterior
from invdiff.priors.gaussian import GaussianPrior, StationaryGaussianPrior
from invdiff.priors.mixture import GaussianMixturePrior
from invdiff.samplers import Ancestral, sample
from invdiff.schedule import VP
from tests.closed_form import (
    correlation,
    dense,
    gaussian_prior,
    grid2d,
    kalman,
    mixture_operator,
    mixture_prior,
    normal,
    observe,
    power_spectrum,
    stationary_prior,
    whiten,
    whiteness,
)

REAL, COMPLEX = torch.float64, torch.complex128
N = 4


def mixture_log_density(prior: GaussianMixturePrior, x_t: Tensor, t: Tensor) -> Tensor:
    """``log p(x_t)`` by torch.distributions."""
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    eye = torch.eye(prior.grid.size, dtype=REAL)
    parts = torch.distributions.MultivariateNormal(
        alpha * prior.means.flatten(1), alpha**2 * prior.covariances + sigma**2 * eye
    )
    weights = torch.distributions.Categorical(prior.weights)
    return torch.distributions.MixtureSameFamily(weights, parts).log_prob(x_t.flatten(1))


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_the_mixture_obeys_tweedie(level: float) -> None:
    prior = mixture_prior(N)
    prior.schedule = VP()
    t = prior.schedule.time(torch.tensor(level, dtype=REAL))
    x_t = normal((5, N, N), 0).requires_grad_()
    (score,) = torch.autograd.grad(mixture_log_density(prior, x_t, t).sum(), x_t)
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    expected = (x_t + sigma**2 * score) / alpha
    torch.testing.assert_close(prior.denoise(x_t, t), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(prior.moments(x_t, t)[0], expected, rtol=1e-6, atol=1e-8)


def test_moments_of_the_mixture_by_importance_sampling() -> None:
    """Weights ``N(x_t; x_0, t^2)`` on draws of the prior, within their own Monte-Carlo error."""
    prior, t = mixture_prior(N), torch.tensor(1.5, dtype=REAL)
    x_t = normal((N, N), 0)
    draws = prior.exact_draws(10_000, seed=1).flatten(1)
    log_weights = -0.5 * ((x_t.flatten() - draws) / t).square().sum(1)
    weights = torch.softmax(log_weights, 0)
    mean = weights @ draws
    error = (weights[:, None] * (draws - mean)).square().sum(0).sqrt()
    exact, covariance = prior.moments(x_t[None], t)
    assert ((mean - exact.flatten()) / error).abs().max() < 5
    squares = weights @ (draws - exact.flatten()).square()
    spread = (weights[:, None] * ((draws - mean).square() - squares)).square().sum(0).sqrt()
    eye = torch.eye(N * N, dtype=REAL).reshape(-1, 1, N, N)
    variance = torch.stack([covariance(e).flatten() for e in eye]).diagonal()
    assert ((squares - variance) / spread).abs().max() < 5


def test_exact_draws_follow_the_mixture() -> None:
    prior = mixture_prior(N)
    n = 5_000
    draws = prior.exact_draws(n, seed=2)
    shares = prior.responsibilities(draws, torch.tensor(1e-3)).mean(0)
    bound = 5 * (prior.weights * (1 - prior.weights) / n).sqrt()
    assert ((shares - prior.weights).abs() < bound).all()
    mean = torch.einsum("k,kyx->yx", prior.weights, prior.means)
    assert ((draws.mean(0) - mean).abs() < 5 * draws.std(0) / n**0.5).all()
    assert torch.equal(prior.exact_draws(5, seed=2), draws[:5])
    assert not torch.equal(prior.exact_draws(5, seed=3), draws[:5])


@pytest.mark.parametrize("name", ["inpainting", "blur", "fourier"])
def test_the_posterior_of_a_mixture_is_bayes(name: str) -> None:
    """``log p(x|y) - log p(x) - log p(y|x)`` is the same at every ``x``."""
    prior, operator = mixture_prior(8), mixture_operator(name)
    term = observe(operator, prior.exact_draws(1, seed=3)[0], 0.5, seed=4)
    exact = prior.posterior(dense(operator), term.y.flatten(), 0.5)
    zero = torch.zeros((), dtype=REAL)
    x = exact.exact_draws(20, seed=5)
    constant = mixture_log_density(exact, x, zero) - mixture_log_density(prior, x, zero)
    constant = constant - term.log_prob(x, x, zero)
    torch.testing.assert_close(constant, constant[:1].expand(20), rtol=0, atol=1e-5)


def test_a_mixture_of_one_is_a_gaussian() -> None:
    gaussian = gaussian_prior(grid2d(N))
    single = GaussianMixturePrior(
        grid2d(N),
        torch.ones(1),
        gaussian.mean[None],
        covariances=correlation(N, 3.0)[None],
    )
    x_t, t = normal((3, N, N), 0), torch.tensor(0.7, dtype=REAL)
    torch.testing.assert_close(single.denoise(x_t, t), gaussian.denoise(x_t, t))
    v = normal((3, N, N), 1)
    torch.testing.assert_close(single.covariance(x_t, t)(v), gaussian.covariance(x_t, t)(v))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_gaussian_moments_are_those_of_kalman(dtype: torch.dtype) -> None:
    grid = grid2d(N, dtype)
    c = gaussian_prior(grid)
    mean = normal((N, N), 9, dtype)
    matrix = (c._vectors * c._values) @ c._vectors.mH
    prior = GaussianPrior(grid, mean, matrix, schedule=VP())
    t = prior.schedule.time(torch.tensor(0.6, dtype=REAL))
    alpha, sigma = float(prior.schedule.alpha(t)), float(prior.schedule.sigma(t))
    x_t = normal((1, N, N), 1, dtype)
    eye = torch.eye(N * N, dtype=dtype)
    shift, covariance = kalman(matrix, alpha * eye, (x_t - alpha * mean).flatten(), sigma)
    got, operator = prior.moments(x_t, t)
    torch.testing.assert_close(got.flatten(), mean.flatten() + shift)
    v = normal((1, N, N), 2, dtype)
    torch.testing.assert_close(operator(v).flatten(), covariance @ v.flatten())


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_stationary_and_dense_agree(dtype: torch.dtype) -> None:
    grid, mean = grid2d(N, dtype), normal((N, N), 3, dtype)
    spectrum = power_spectrum(N, 2.0)
    if dtype.is_complex:
        spectrum = spectrum + torch.arange(N)
    stationary = StationaryGaussianPrior(grid, mean, spectrum)
    eye = torch.eye(N * N, dtype=COMPLEX).reshape(-1, N, N)
    matrix = torch.fft.ifft2(spectrum * torch.fft.fft2(eye)).flatten(1).mT
    full = GaussianPrior(grid, mean, matrix if dtype.is_complex else matrix.real)
    x_t, v = normal((2, N, N), 0, dtype), normal((2, N, N), 1, dtype)
    t = torch.tensor(0.8, dtype=REAL)
    torch.testing.assert_close(stationary.denoise(x_t, t), full.denoise(x_t, t))
    torch.testing.assert_close(stationary.covariance(x_t, t)(v), full.covariance(x_t, t)(v))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_draws_of_a_gaussian_prior_have_its_covariance(dtype: torch.dtype) -> None:
    prior = gaussian_prior(grid2d(N, dtype))
    draws = sample(prior, Ancestral(6), realizations=500, seed=0, batch_size=500)
    matrix = (prior._vectors * prior._values) @ prior._vectors.mH
    p_values = whiteness(whiten(draws, torch.zeros(N * N, dtype=dtype), matrix))
    assert min(p_values.values()) > 1e-4, p_values


def test_a_mean_far_from_zero_is_kept() -> None:
    grid = grid2d(N)
    mean = 3 + normal((N, N), 0)
    prior = GaussianPrior(grid, mean, 0.1 * correlation(N, 2.0))
    operator = Matrix(torch.ones(1, N * N, dtype=REAL), grid)
    y = torch.tensor([50.0], dtype=REAL)
    shift, covariance = kalman(0.1 * correlation(N, 2.0), operator.matrix, y - mean.sum(), 0.2)
    posterior = Posterior(prior, Gaussian(y, operator, 0.2))
    draws = sample(posterior, Ancestral(16), realizations=400, seed=1, batch_size=400)
    p_values = whiteness(whiten(draws, mean.flatten() + shift, covariance))
    assert min(p_values.values()) > 1e-4, p_values


def test_priors_that_make_no_sense_are_refused() -> None:
    grid, zeros = grid2d(N), torch.zeros(N, N, dtype=REAL)
    eye = torch.eye(N * N, dtype=REAL)
    with pytest.raises(ShapeError, match="grid"):
        GaussianPrior(grid, zeros, torch.eye(N, dtype=REAL))
    with pytest.raises(ShapeError, match="grid"):
        StationaryGaussianPrior(grid, zeros, torch.ones(N, N + 1, dtype=REAL))
    with pytest.raises(ShapeError, match=r"S\(-k\)"):
        StationaryGaussianPrior(grid, zeros, torch.arange(N * N).double().reshape(N, N))
    with pytest.raises(ShapeError, match="components"):
        GaussianMixturePrior(grid, torch.ones(1), zeros[None], covariances=eye)
    for weights in (torch.tensor([0.5, 0.6]), torch.tensor([1.0, 0.0])):
        with pytest.raises(InputError, match="mixture"):
            GaussianMixturePrior(
                grid, weights, torch.stack([zeros] * 2), covariances=torch.stack([eye] * 2)
            )
    assert "GaussianPrior" in repr(gaussian_prior(grid))
    assert "Stationary" in repr(stationary_prior(grid))
    assert "5 components" in repr(mixture_prior(N))
