"""From E[x_0|x_t] to E[x_0|x_t, y]: each method against dense algebra where it should be exact."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from invdiff.conditioning import DPS, MMPS, Conditioning, MomentMatching, PiGDM
from invdiff.conditioning.base import guided
from invdiff.errors import UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import AxisCovariance, Gaussian, NoiseModel
from invdiff.operators import Convolution, Linear, Mask, Matrix
from invdiff.operators.mri import CartesianMRI, birdcage
from invdiff.posterior import Posterior
from invdiff.priors.gaussian import GaussianPrior
from invdiff.protocols import Term
from invdiff.samplers import DDIM, Ancestral, sample
from invdiff.schedule import VE, VP, Schedule
from tests.support.closed_form import correlation, dense, half, kalman, normal

N = 5
TIGHT = MomentMatching(tolerance=1e-9, max_iterations=500)
KINDS = [torch.float64, torch.complex128]


def time(schedule: Schedule, ratio: float) -> Tensor:
    return schedule.time(torch.tensor(ratio, dtype=torch.float64))


def grid(dtype: torch.dtype) -> Grid:
    return Grid(("y", "x"), (N, N), dtype)


def gaussian_prior(dtype: torch.dtype, schedule: Schedule | None = None) -> GaussianPrior:
    """Correlated, of unequal variances, with a mean; Hermitian and not real if complex."""
    size = torch.linspace(0.5, 1.5, N * N, dtype=torch.float64).to(dtype)
    if dtype.is_complex:
        size = size * torch.exp(0.4j * torch.arange(N * N))
    matrix = size[:, None] * correlation(N, 2.0).to(dtype) * size.conj()
    return GaussianPrior(grid(dtype), normal((N, N), 1, dtype), matrix, schedule=schedule)


def terms(dtype: torch.dtype) -> list[tuple[Gaussian, Tensor]]:
    """Likelihoods with every kind of noise, and the dense covariance of each."""
    where = grid(dtype)
    operators: list[Linear] = [
        Mask(where, half((N, N), 0.5, seed=1)),
        Matrix(normal((7, N * N), 2, dtype), where),
        Convolution.gaussian(where, std=1.0),
    ]
    spread = normal((N, N), 3, dtype)
    along_y = spread @ spread.mH + 0.1 * torch.eye(N, dtype=dtype)
    levels = torch.linspace(0.2, 1.0, 7, dtype=torch.float64)
    noises: list[NoiseModel] = [0.3, levels, AxisCovariance(along_y, "y")]
    covariances = [
        0.09 * torch.eye(N * N, dtype=dtype),
        torch.diag(levels.square()).to(dtype),
        torch.kron(along_y, torch.eye(N, dtype=dtype)),
    ]
    return [
        (Gaussian(normal(a.range.shape, 10 + i, dtype), a, noise), covariance)
        for i, (a, noise, covariance) in enumerate(zip(operators, noises, covariances, strict=True))
    ]


def exact_moments(
    prior: GaussianPrior, likelihoods: list[tuple[Gaussian, Tensor]], x_t: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Means ``(batch, n)`` and covariance ``(n, n)`` of x_0 given x_t and all data."""
    mean, covariance = prior.moments(x_t, t)
    eye = torch.eye(N * N, dtype=x_t.dtype).reshape(-1, N, N)
    spread = covariance(eye).flatten(1).mT
    matrix = torch.cat([dense(term.operator) for term, _ in likelihoods])
    noise = torch.block_diag(*[covariance for _, covariance in likelihoods])
    data = torch.cat([term.y.flatten() for term, _ in likelihoods])
    gain = torch.linalg.solve(matrix @ spread @ matrix.mH + noise, matrix @ spread).mH
    flat = mean.flatten(1)
    return flat + (data - flat @ matrix.mT) @ gain.mT, spread - gain @ matrix @ spread


# --- moment matching ------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.05, 0.7, 10.0])
@pytest.mark.parametrize("schedule", [VE(), VP()], ids=["VE", "VP"])
@pytest.mark.parametrize("dtype", KINDS)
def test_several_terms_with_every_kind_of_noise(
    dtype: torch.dtype, schedule: Schedule, ratio: float
) -> None:
    prior, likelihoods, t = gaussian_prior(dtype, schedule), terms(dtype), time(schedule, ratio)
    x_t = normal((3, N, N), 5, dtype)
    mean, covariance = exact_moments(prior, likelihoods, x_t, t)
    posterior = Posterior(prior, *[term for term, _ in likelihoods], conditioning=TIGHT)
    found, spread = posterior.moments(x_t, t)
    torch.testing.assert_close(found.flatten(1), mean, rtol=1e-6, atol=1e-7)
    v = normal((3, N, N), 6, dtype)
    torch.testing.assert_close(
        spread(v).flatten(1), v.flatten(1) @ covariance.mT, rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("dtype", KINDS)
def test_terms_add_up_in_any_order(dtype: torch.dtype) -> None:
    prior, t = gaussian_prior(dtype), time(VE(), 0.7)
    likelihoods = [term for term, _ in terms(dtype)]
    x_t = normal((2, N, N), 5, dtype)
    forward = Posterior(prior, *likelihoods, conditioning=TIGHT).denoise(x_t, t)
    backward = Posterior(prior, *likelihoods[::-1], conditioning=TIGHT).denoise(x_t, t)
    torch.testing.assert_close(forward, backward, rtol=1e-7, atol=1e-8)


def test_coils_with_correlated_noise() -> None:
    """What MRI is: several coils, one covariance between them."""
    where = grid(torch.complex128)
    operator = CartesianMRI(half((N, N), 0.6, seed=1), birdcage((N, N), 3), domain=where)
    spread = normal((3, 3), 3, torch.complex128)
    between = spread @ spread.mH + 0.1 * torch.eye(3)
    y = normal(operator.range.shape, 10, torch.complex128) * operator.mask
    term = Gaussian(y, operator, AxisCovariance(between))
    prior, t = gaussian_prior(torch.complex128), time(VE(), 0.7)
    x_t = normal((2, N, N), 5, torch.complex128)
    full = torch.kron(between, torch.eye(N * N, dtype=torch.complex128))
    mean, _ = exact_moments(prior, [(term, full)], x_t, t)
    found = Posterior(prior, term, conditioning=TIGHT).denoise(x_t, t)
    torch.testing.assert_close(found.flatten(1), mean, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True, eq=False)
class Tilt:
    """``log p = Re <b, x>``: shifts a Gaussian and leaves its spread."""

    b: Tensor

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return (self.b.conj() * x_0).real.flatten(1).sum(1)


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("dtype", KINDS)
def test_a_further_term_shifts_the_mean_by_its_gradient(
    dtype: torch.dtype, with_data: bool
) -> None:
    """``exp(Re <b, x>)`` moves the mean ``m`` of a Gaussian by ``C b``, half of it if complex."""
    prior, t, b = gaussian_prior(dtype), time(VE(), 0.7), normal((N, N), 7, dtype)
    likelihoods = [term for term, _ in terms(dtype)][:with_data]
    x_t = normal((2, N, N), 5, dtype)
    base = Posterior(prior, *likelihoods, conditioning=TIGHT)
    mean, covariance = base.moments(x_t, t)
    shift = covariance(b[None]) * (0.5 if dtype.is_complex else 1)
    found = Posterior(prior, *likelihoods, Tilt(b), conditioning=TIGHT).denoise(x_t, t)
    torch.testing.assert_close(found - mean, shift.expand_as(found), rtol=1e-6, atol=1e-8)


@dataclass(frozen=True, eq=False)
class Ridge:
    """``log p = -|x|^2 / (2 s^2)``, without the 1/2 for complex fields: a Gaussian in disguise."""

    std: float

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        half = 1.0 if x_0.is_complex() else 0.5
        return -half * x_0.abs().square().flatten(1).sum(1) / self.std**2


@pytest.mark.parametrize("dtype", KINDS)
def test_a_further_term_acts_to_first_order(dtype: torch.dtype) -> None:
    """Against the same density as a likelihood: the error falls with its strength squared."""
    prior, t = gaussian_prior(dtype), time(VE(), 0.7)
    x_t = normal((2, N, N), 5, dtype)
    mean = prior.denoise(x_t, t)
    everywhere = Mask(grid(dtype), torch.ones(N, N))
    errors = []
    for std in (20.0, 40.0):
        zero = Gaussian(torch.zeros(N, N, dtype=dtype), everywhere, std)
        exact = Posterior(prior, zero, conditioning=TIGHT).denoise(x_t, t)
        found = Posterior(prior, Ridge(std), conditioning=TIGHT).denoise(x_t, t)
        assert (exact - mean).norm() > 20 * (found - exact).norm()
        errors.append(float((found - exact).norm()))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.1)  # 1/s^4


def test_further_terms_work_in_a_sampler() -> None:
    """Where samplers turn differentiation off, too."""
    prior, b = gaussian_prior(torch.float64), torch.full((N, N), 0.2, dtype=torch.float64)
    tilted = Posterior(prior, Tilt(b))
    draws, plain = (
        sample(model, Ancestral(6), realizations=200, seed=0, batch_size=200)
        for model in (tilted, prior)
    )
    # First order at every step is exact for a tilt in the last one only: direction and size.
    shift = (draws - plain).mean(0)
    full = prior.covariance(torch.zeros(1, N, N, dtype=torch.float64), time(VE(), 1e6))(b[None])[0]
    assert (shift > 0).all()
    assert float((shift * full).sum() / (shift.norm() * full.norm())) > 0.95


# --- Jacobian and pseudoinverse guidance ----------------------------------------------------------


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("ratio", [0.05, 0.7, 10.0])
def test_mmps_is_moment_matching_for_a_gaussian_prior(dtype: torch.dtype, ratio: float) -> None:
    prior, t = gaussian_prior(dtype), time(VE(), ratio)
    likelihoods = [term for term, _ in terms(dtype)]
    x_t = normal((2, N, N), 5, dtype)
    expected, _ = exact_moments(prior, terms(dtype), x_t, t)
    mmps = Posterior(prior, *likelihoods, conditioning=MMPS(iterations=200, rtol=1e-12))
    torch.testing.assert_close(mmps.denoise(x_t, t).flatten(1), expected, rtol=1e-5, atol=1e-6)
    assert mmps.needs_grad
    # Fewer iterations are worse.
    few = Posterior(prior, *likelihoods, conditioning=MMPS(iterations=1)).denoise(x_t, t)
    assert (few.flatten(1) - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("data_std", [0.5, 2.0])
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("ratio", [0.05, 0.7, 10.0])
def test_pigdm_is_exact_for_white_noise_of_its_std(
    dtype: torch.dtype, ratio: float, data_std: float
) -> None:
    eye = torch.eye(N * N, dtype=dtype)
    prior = GaussianPrior(grid(dtype), normal((N, N), 1, dtype), data_std**2 * eye)
    likelihoods, t = terms(dtype), time(VE(), ratio)
    x_t = normal((2, N, N), 5, dtype)
    expected, _ = exact_moments(prior, likelihoods, x_t, t)
    method = PiGDM(data_std=data_std, rtol=1e-12, max_iterations=500)
    found = Posterior(prior, *[term for term, _ in likelihoods], conditioning=method)
    torch.testing.assert_close(found.denoise(x_t, t).flatten(1), expected, rtol=1e-5, atol=1e-6)
    wrong = PiGDM(data_std=2 * data_std)
    other = Posterior(prior, *[term for term, _ in likelihoods], conditioning=wrong)
    if ratio > 0.5:  # at low noise the guess does not matter
        assert (other.denoise(x_t, t).flatten(1) - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("schedule", [VE(), VP()], ids=["VE", "VP"])
@pytest.mark.parametrize("dtype", KINDS)
def test_guidance_by_the_exact_likelihood_is_exact(dtype: torch.dtype, schedule: Schedule) -> None:
    """``guided`` with ``log p(y | x_t)`` itself: its factor for complex fields is the right one."""
    prior, t = gaussian_prior(dtype, schedule), time(schedule, 0.7)
    likelihoods = terms(dtype)
    x_t = normal((2, N, N), 5, dtype)
    expected, _ = exact_moments(prior, likelihoods, x_t, t)
    eye = torch.eye(N * N, dtype=dtype).reshape(-1, N, N)
    spread = prior.covariance(x_t, t)(eye).flatten(1).mT
    matrix = torch.cat([dense(term.operator) for term, _ in likelihoods])
    noise = torch.block_diag(*[covariance for _, covariance in likelihoods])
    data = torch.cat([term.y.flatten() for term, _ in likelihoods])
    inverse = torch.linalg.inv(matrix @ spread @ matrix.mH + noise)

    def log_prob(mean: Tensor, x_t: Tensor) -> Tensor:
        r = data - mean.flatten(1) @ matrix.mT
        squares = (r.conj() * (r @ inverse.mT)).real.sum(1)
        return -squares * (1.0 if dtype.is_complex else 0.5)

    found = guided(prior, x_t, t=t, log_prob=log_prob)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-6, atol=1e-7)


# --- DPS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", KINDS)
def test_dps_is_its_formula(dtype: torch.dtype) -> None:
    """With ``C = (sigma^2/alpha) J``: ``m + scale C A^H W^H r / |r|``, half of it if complex."""
    schedule = VP()
    prior, t = gaussian_prior(dtype, schedule), time(schedule, 0.7)
    ((term, _), *_) = terms(dtype)
    x_t = normal((2, N, N), 5, dtype)
    mean, covariance = prior.moments(x_t, t)
    r = term.residual(mean)
    direction = term.pullback(r) / r.flatten(1).norm(dim=1)[:, None, None]
    step = 0.7 * covariance(direction) * (0.5 if dtype.is_complex else 1)
    found = Posterior(prior, term, conditioning=DPS(0.7)).denoise(x_t, t)
    torch.testing.assert_close(found, mean + step, rtol=1e-6, atol=1e-8)


class Modulus:
    """``|x|^2 / 2``: differentiable and not linear."""

    def __init__(self, domain: Grid) -> None:
        self.domain, self.range = domain, domain.with_dtype(domain.real_dtype)

    @property
    def n_data(self) -> int:
        return self.range.size

    def __call__(self, x: Tensor) -> Tensor:
        return x.abs().square() / 2


@pytest.mark.parametrize("dtype", KINDS)
def test_dps_takes_nonlinear_operators(dtype: torch.dtype) -> None:
    prior, operator = gaussian_prior(dtype), Modulus(grid(dtype))
    truth = normal((N, N), 8, dtype) + prior.mean
    term = Gaussian(operator(truth[None])[0], operator, 0.1)
    assert not term.is_linear
    draws = {
        name: sample(model, DDIM(100, eta=1.0), realizations=16, seed=0, batch_size=16)
        for name, model in {
            "prior": prior,
            "posterior": Posterior(prior, term, conditioning=DPS()),
        }.items()
    }
    misfit = {name: float(term.misfit(x).mean()) for name, x in draws.items()}
    assert misfit["posterior"] < 0.3 * misfit["prior"], misfit


@pytest.mark.parametrize("method", [MomentMatching(), MMPS(), PiGDM()])
def test_nonlinear_operators_are_refused_by_name(method: Conditioning) -> None:
    operator = Modulus(grid(torch.float64))
    term = Gaussian(torch.ones(N, N, dtype=torch.float64), operator, 0.1)
    with pytest.raises(UnsupportedError, match="linear") as caught:
        Posterior(gaussian_prior(torch.float64), term, conditioning=method)
    message = str(caught.value)
    assert type(method).__name__ in message
    assert "Modulus" in message
    for able in ("Laplace", "DPS", "DAPS", "SplitGibbs", "EnKG"):
        assert able in message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("method", [MMPS(), PiGDM()])
def test_other_terms_are_refused_where_they_cannot_be_used(method: Conditioning) -> None:
    term: Term = Tilt(torch.ones(N, N, dtype=torch.float64))
    with pytest.raises(UnsupportedError, match="likelihoods only") as caught:
        Posterior(gaussian_prior(torch.float64), term, conditioning=method)
    for word in (type(method).__name__, "Tilt", "DPS", "MomentMatching"):
        assert word in str(caught.value)
    for able in (DPS(), MomentMatching()):
        Posterior(gaussian_prior(torch.float64), term, conditioning=able)


def test_one_datum_is_kalman() -> None:
    """The dense helper above against the textbook's."""
    prior, t = gaussian_prior(torch.float64), time(VE(), 1e6)
    ((term, noise), *_) = terms(torch.float64)
    x_t = torch.zeros(1, N, N, dtype=torch.float64)
    mean, covariance = exact_moments(prior, [(term, noise)], x_t, t)
    c = prior.covariance(x_t, t)(torch.eye(N * N, dtype=torch.float64).reshape(-1, N, N))
    shifted = term.y.flatten() - dense(term.operator) @ prior.mean.flatten()
    mean_0, covariance_0 = kalman(c.flatten(1).mT, dense(term.operator), shifted, 0.3)
    torch.testing.assert_close(mean[0], mean_0 + prior.mean.flatten(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(covariance, covariance_0, rtol=1e-6, atol=1e-8)
