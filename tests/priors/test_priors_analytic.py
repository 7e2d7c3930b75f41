"""Analytic priors: moments against Tweedie's formula, sampling and conjugate algebra."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.errors import DivergedError, InputError, ShapeError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.operators.linear import Matrix
from invdiff.posterior import Posterior
from invdiff.priors.gaussian import GaussianPrior, StationaryGaussianPrior
from invdiff.priors.levy import LevyPrior
from invdiff.priors.mixture import GaussianMixturePrior, SpectralMixturePrior
from invdiff.protocols import Prior
from invdiff.samplers import Ancestral, sample
from invdiff.schedule import VE, VP, Schedule
from tests.support.closed_form import (
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
    torch.testing.assert_close(prior.exact_draws(5, seed=2), draws[:5])
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
    with pytest.raises(ShapeError, match="covariances"):
        GaussianMixturePrior(grid, torch.ones(1), zeros[None], covariances=eye)
    for weights in (torch.tensor([0.5, 0.6]), torch.tensor([1.0, 0.0])):
        with pytest.raises(InputError, match="mixture"):
            GaussianMixturePrior(
                grid, weights, torch.stack([zeros] * 2), covariances=torch.stack([eye] * 2)
            )
    assert "GaussianPrior" in repr(gaussian_prior(grid))
    assert "Stationary" in repr(stationary_prior(grid))
    assert "5 components" in repr(mixture_prior(N))


# --- mixtures of stationary components ------------------------------------------------------------


def spectral_mixture(n: int, schedule: Schedule | None = None) -> SpectralMixturePrior:
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=REAL)
    spectra = torch.stack([0.3 * power_spectrum(n, length) for length in (1.0, 2.0, 4.0)])
    means = normal((3, n, n), 4)
    return SpectralMixturePrior(grid2d(n), weights, means, spectra=spectra, schedule=schedule)


def as_matrix(covariance: Covariance, n_members: int, shape: tuple[int, ...]) -> Tensor:
    """``(n_members, n, n)``."""
    n = torch.Size(shape).numel()
    columns = [
        covariance(e.reshape(1, *shape).expand(n_members, *shape)).flatten(1)
        for e in torch.eye(n, dtype=REAL)
    ]
    return torch.stack(columns, -1)


def jacobian(prior: Prior, x_t: Tensor, t: Tensor) -> Tensor:
    """``dE[x_0|x_t] / dx_t`` of each member by autograd, ``(batch, n, n)``."""
    x_t = x_t.clone().requires_grad_()
    mean = prior.denoise(x_t, t).flatten(1)
    rows = [torch.autograd.grad(m.sum(), x_t, retain_graph=True)[0] for m in mean.unbind(1)]
    return torch.stack([row.flatten(1) for row in rows], 1)


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_spectral_and_dense_mixtures_agree(level: float) -> None:
    prior = spectral_mixture(N, VP())
    explicit, t = prior.dense(), prior.schedule.time(torch.tensor(level, dtype=REAL))
    x_t = normal((5, N, N), 0)
    (mean, covariance), (expected, matrix) = prior.moments(x_t, t), explicit.moments(x_t, t)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(prior.denoise(x_t, t), expected)
    v = normal((5, N, N), 1)
    torch.testing.assert_close(covariance(v), matrix(v))
    torch.testing.assert_close(prior.log_prob(x_t), explicit.log_prob(x_t))
    zero = torch.zeros((), dtype=REAL)
    torch.testing.assert_close(prior.log_prob(x_t), mixture_log_density(explicit, x_t, zero))


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_covariance_of_the_spectral_mixture_is_the_jacobian(level: float) -> None:
    prior = spectral_mixture(N, VP())
    t = prior.schedule.time(torch.tensor(level, dtype=REAL))
    x_t = normal((3, N, N), 2)
    scale = prior.schedule.sigma(t) ** 2 / prior.schedule.alpha(t)
    expected = scale * jacobian(prior, x_t, t)
    torch.testing.assert_close(as_matrix(prior.covariance(x_t, t), 3, (N, N)), expected)


def test_draws_of_the_spectral_mixture() -> None:
    """Each component's draws are white in its own coordinates."""
    prior, n = spectral_mixture(N), 3_000
    draws = prior.exact_draws(n, seed=2)
    explicit = prior.dense()
    labels = prior.responsibilities(draws, torch.tensor(1e-3)).argmax(1)
    shares = torch.bincount(labels, minlength=3) / n
    bound = 5 * (prior.weights * (1 - prior.weights) / n).sqrt()
    assert ((shares - prior.weights).abs() < bound).all()
    for k in range(3):
        w = whiten(draws[labels == k], prior.means[k].flatten(), explicit.covariances[k])
        assert min(whiteness(w).values()) > 1e-4


def test_evidence_is_the_mean_likelihood() -> None:
    prior, noise = mixture_prior(N), 1.0
    operator = mixture_operator("inpainting", N)
    term = observe(operator, prior.exact_draws(1, seed=3)[0], noise, seed=4)
    matrix = dense(operator)[operator.keep.flatten()]
    y = term.y[operator.keep]
    x = prior.exact_draws(20_000, seed=5).flatten(1)
    data = torch.distributions.Normal(x @ matrix.mT, noise)
    likelihood = data.log_prob(y).sum(1).exp()
    error = likelihood.std() / likelihood.mean() / len(x) ** 0.5
    evidence = prior.log_evidence(matrix, y, noise)
    assert abs(float(likelihood.mean().log()) - evidence) < 5 * error


# --- Laplace increments ---------------------------------------------------------------------------


def line(n: int, dtype: torch.dtype = REAL) -> Grid:
    return Grid(("x",), (n,), dtype)


def quadrature(prior: LevyPrior, z: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of three points given ``z (3,)``, summed on a fine lattice."""
    x = torch.linspace(-12, 12, 2401, dtype=REAL)
    first, second, third = torch.exp(-0.5 * ((x - z[:, None]) / ratio) ** 2)
    first = first * torch.exp(-0.5 * (x / prior.first_std) ** 2)
    kernel = torch.exp(-(x[:, None] - x).abs() / prior.scale)
    # Moments of the outer points given the middle one, which are independent then.
    powers = torch.stack([torch.ones_like(x), x, x**2])
    left, right = (powers * first) @ kernel, (powers * third) @ kernel
    weight = second / (left[0] @ (second * right[0]))

    def expect(i: int, j: int, k: int) -> float:
        return float((left[i] * x**j * right[k]) @ weight)

    mean = torch.tensor([expect(1, 0, 0), expect(0, 1, 0), expect(0, 0, 1)], dtype=REAL)
    exact = [[(2, 0, 0), (1, 1, 0), (1, 0, 1)], [(1, 1, 0), (0, 2, 0), (0, 1, 1)]]
    exact.append([(1, 0, 1), (0, 1, 1), (0, 0, 2)])
    second_moment = torch.tensor([[expect(*p) for p in row] for row in exact], dtype=REAL)
    return mean, second_moment - torch.outer(mean, mean)


@pytest.mark.parametrize("ratio", [0.1, 0.4, 1.5, 6.0])
def test_moments_of_levy_by_quadrature(ratio: float) -> None:
    prior, t = LevyPrior(line(3), 0.5), torch.tensor(ratio, dtype=REAL)
    x_t = prior.exact_draws(3, seed=0) + ratio * normal((3, 3), 1)
    x_t[2] += torch.tensor([2.0, -3.0, 1.0], dtype=REAL)  # and one that the prior would not make
    mean, covariance = prior.moments(x_t, t)
    matrix = as_matrix(covariance, 3, (3,))
    for i in range(3):
        exact, spread = quadrature(prior, x_t[i], ratio)
        std = spread.diagonal().sqrt()
        assert ((mean[i] - exact) / std).abs().max() < 1e-3
        assert ((matrix[i] - spread) / torch.outer(std, std)).abs().max() < 1e-3


@pytest.mark.parametrize("schedule", [VE(), VP()])
@pytest.mark.parametrize("level", [0.02, 0.3, 2.0, 30.0])
def test_levy_obeys_tweedie(level: float, schedule: Schedule) -> None:
    """``covariance = (sigma^2 / alpha) dE[x_0|x_t] / dx_t``, for 12 points."""
    prior = LevyPrior(line(12), 0.4, schedule=schedule)
    t = schedule.time(torch.tensor(level, dtype=REAL))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = alpha * prior.exact_draws(2, seed=1) + sigma * normal((2, 12), 2)
    expected = sigma**2 / alpha * jacobian(prior, x_t, t)
    got = as_matrix(prior.covariance(x_t, t), 2, (12,))
    scale = got.diagonal(dim1=1, dim2=2).amax()
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(prior.moments(x_t, t)[0], prior.denoise(x_t, t))


def test_wide_increments_and_no_noise() -> None:
    """Far apart, points do not know of each other but by the pull ``r^2 / scale``."""
    prior = LevyPrior(line(4, torch.float32), 0.5, first_std=5.0)
    x_t = torch.tensor([[0.0, 40.0, 80.0, 40.0]])
    mean = prior.denoise(x_t, torch.tensor(0.2))
    pull = 0.2**2 / 0.5
    expected = x_t + torch.tensor([[pull, 0.0, -2 * pull, pull]])
    torch.testing.assert_close(mean, expected, rtol=0, atol=2e-3 * 0.2 + 1e-5)
    assert mean.dtype == torch.float32
    same, covariance = prior.moments(x_t, torch.tensor(0.0))
    assert torch.equal(same, x_t)
    assert torch.equal(covariance(x_t), torch.zeros_like(x_t))


def test_draws_of_levy() -> None:
    prior = LevyPrior(line(5), 0.4, first_std=2.0)
    draws = prior.exact_draws(2_000, seed=0)
    assert stats.kstest(draws[:, 0].numpy(), stats.norm(scale=2.0).cdf).pvalue > 1e-3
    steps = draws.diff(dim=1)
    laplace = stats.laplace(scale=0.4)
    assert stats.kstest(steps.flatten().numpy(), laplace.cdf).pvalue > 1e-3
    limit = 5 / len(draws) ** 0.5
    assert (steps.mT.corrcoef() - torch.eye(4)).abs().max() < limit
    expected = stats.norm(scale=2.0).logpdf(draws[:, 0]) + laplace.logpdf(steps).sum(1)
    torch.testing.assert_close(prior.log_prob(draws), torch.from_numpy(expected))
    assert torch.equal(prior.exact_draws(5, seed=0), draws[:5])


def test_levy_and_spectral_mixtures_that_make_no_sense_are_refused() -> None:
    for build in (
        lambda: LevyPrior(grid2d(N), 1.0),
        lambda: LevyPrior(line(4, torch.complex128), 1.0),
        lambda: LevyPrior(line(4), 0.0),
        lambda: LevyPrior(line(4), 1.0, first_std=-1.0),
    ):
        with pytest.raises(InputError, match="Levy"):
            build()
    prior = LevyPrior(line(4), 0.5)
    assert repr(eval(repr(prior), {"LevyPrior": LevyPrior, "Grid": Grid, "torch": torch, "VE": VE}))
    with pytest.raises(DivergedError, match="scales"):
        prior.denoise(torch.full((1, 4), 1e300, dtype=REAL), torch.tensor(1.0))
    means, weights = torch.zeros(2, N, N, dtype=REAL), torch.tensor([0.5, 0.5])
    slope = torch.arange(N * N).double().reshape(N, N).expand(2, N, N)
    for spectra, error in ((slope + 1, ShapeError), (means, InputError), (means[:1], ShapeError)):
        with pytest.raises(error, match="spectra"):
            SpectralMixturePrior(grid2d(N), weights, means, spectra=spectra)


def test_a_single_exact_draw_of_a_mixture_leaves_the_other_components_out() -> None:
    prior = SpectralMixturePrior(
        grid2d(4),
        torch.tensor([0.5, 0.5], dtype=torch.float64),
        torch.stack([normal((4, 4), 1), normal((4, 4), 2)]),
        spectra=torch.ones(2, 4, 4, dtype=torch.float64),
    )
    many = prior.exact_draws(8, seed=0)
    torch.testing.assert_close(prior.exact_draws(1, seed=0)[0], many[0])
