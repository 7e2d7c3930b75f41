"""Covariances: the factor and its adjoint give the product."""

import pytest
import torch
from torch import Tensor

from invdiff.covariance import (
    Covariance,
    DenseCovariance,
    JacobianCovariance,
    NoCovariance,
    SpectralCovariance,
    TransformedCovariance,
)
from tests.support.closed_form import correlation, gaussian_prior, grid2d, mixture_prior, normal
from tests.support.closed_form import power_spectrum as power

N = 4
REAL, COMPLEX = torch.float64, torch.complex128


def dense_matrix(dtype: torch.dtype) -> Tensor:
    matrix = correlation(N, 2.0).to(dtype)
    if dtype.is_complex:
        phase = torch.polar(torch.ones(N * N), torch.arange(N * N) * 0.7).to(dtype)
        matrix = phase[:, None] * matrix * phase.conj()
    return matrix


def lopsided_power(dtype: torch.dtype) -> Tensor:
    """Asymmetric where the field is complex."""
    spectrum = power(N, 2.0)
    return spectrum + torch.arange(N).double() * spectrum.mean() if dtype.is_complex else spectrum


def jacobian(dtype: torch.dtype) -> Covariance:
    prior, t = gaussian_prior(grid2d(N, dtype)), torch.tensor(0.5)
    x_t = normal((3, N, N), 5, dtype).requires_grad_()
    return JacobianCovariance(prior.denoise(x_t, t), x_t, torch.tensor(0.25), iterations=N * N)


def transformed(dtype: torch.dtype) -> Covariance:
    base = DenseCovariance.of(dense_matrix(dtype))
    weight = torch.linspace(1, 4, N * N, dtype=REAL).reshape(N, N)
    return TransformedCovariance(base, lambda u: weight * u, lambda u: u / weight)


def std_map() -> Tensor:
    return torch.linspace(0.5, 2, 3 * N * N, dtype=REAL).reshape(3, N, N)


COVARIANCES = {
    "none": lambda dtype: NoCovariance(),
    "dense": lambda dtype: DenseCovariance.of(dense_matrix(dtype)),
    "batched": lambda dtype: DenseCovariance.of(
        dense_matrix(dtype) * torch.tensor([1.0, 2.0, 3.0], dtype=REAL)[:, None, None]
    ),
    "singular": lambda dtype: DenseCovariance.of(torch.ones(N * N, N * N, dtype=dtype)),
    "spectral": lambda dtype: SpectralCovariance(
        lopsided_power(dtype), is_complex=dtype.is_complex
    ),
    "mapped": lambda dtype: SpectralCovariance(
        lopsided_power(dtype), std_map(), is_complex=dtype.is_complex
    ),
    "jacobian": jacobian,
    "transformed": transformed,
}
every_covariance = pytest.mark.parametrize("name", COVARIANCES)
every_dtype = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).flatten(1).sum(1)


@every_covariance
@every_dtype
def test_the_factor_gives_the_product(name: str, dtype: torch.dtype) -> None:
    covariance = COVARIANCES[name](dtype)
    v, e = normal((3, N, N), 1, dtype), normal((3, N, N), 2, dtype)
    torch.testing.assert_close(
        covariance.sqrt(covariance.sqrt_adjoint(v)), covariance(v), rtol=1e-6, atol=1e-8
    )
    u = covariance.coordinates(e)
    torch.testing.assert_close(inner(u, u).real, inner(e, e).real)
    left, right = inner(covariance.sqrt(u), v), inner(u, covariance.sqrt_adjoint(v))
    torch.testing.assert_close(left.real, right.real, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(covariance.draw(e), covariance.sqrt(u))


@every_covariance
@every_dtype
def test_it_is_hermitian_and_positive(name: str, dtype: torch.dtype) -> None:
    covariance = COVARIANCES[name](dtype)
    v, w = normal((3, N, N), 1, dtype), normal((3, N, N), 2, dtype)
    torch.testing.assert_close(inner(covariance(v), w), inner(v, covariance(w)))
    energy = inner(v, covariance(v))
    assert (energy.real >= -1e-12).all()


@every_covariance
@every_dtype
def test_scaled_multiplies_products_and_draws(name: str, dtype: torch.dtype) -> None:
    covariance = COVARIANCES[name](dtype)
    factor = torch.tensor([0.5, 1.0, 3.0], dtype=REAL)
    scaled, v = covariance.scaled(factor), normal((3, N, N), 8, dtype)
    shape = (3, 1, 1)
    torch.testing.assert_close(scaled(v), factor.reshape(shape) * covariance(v))
    torch.testing.assert_close(scaled.draw(v), factor.sqrt().reshape(shape) * covariance.draw(v))
    if scaled.spectrum is not None:
        expected = factor.reshape(shape) * covariance.spectrum
        torch.testing.assert_close(scaled.spectrum, expected)


@every_dtype
def test_dense_is_the_matrix(dtype: torch.dtype) -> None:
    matrix, v = dense_matrix(dtype), normal((3, N, N), 1, dtype)
    product = DenseCovariance.of(matrix)(v)
    torch.testing.assert_close(product.flatten(1), v.flatten(1) @ matrix.mT)


def test_spectral_is_circulant_with_the_power_as_eigenvalues() -> None:
    covariance = SpectralCovariance(lopsided_power(COMPLEX), is_complex=True)
    for k in range(N):
        phase = 2 * torch.pi * k * torch.arange(N, dtype=REAL) / N
        wave = torch.polar(torch.ones_like(phase), phase)
        wave = wave.broadcast_to(1, N, N)
        torch.testing.assert_close(covariance(wave), lopsided_power(COMPLEX)[0, k] * wave)
    assert covariance.is_stationary
    assert torch.equal(covariance.spectrum, lopsided_power(COMPLEX))


def test_the_spectrum_of_a_mapped_covariance_has_its_mean_variance() -> None:
    std = std_map()
    covariance = SpectralCovariance(power(N, 2.0), std, is_complex=False)
    assert not covariance.is_stationary
    eye = torch.eye(N * N, dtype=REAL).reshape(-1, 1, N, N)
    for member in range(3):
        single = SpectralCovariance(power(N, 2.0), std[member : member + 1], is_complex=False)
        variance = torch.stack([single(e)[0] for e in eye]).reshape(N * N, N * N).diagonal()
        torch.testing.assert_close(covariance.spectrum[member].mean(), variance.mean())


@pytest.mark.parametrize("prior", ["gaussian", "complex gaussian", "mixture"])
def test_the_jacobian_is_the_exact_covariance(prior: str) -> None:
    """Tweedie's second-order formula, at several noise levels."""
    models = {
        "gaussian": lambda: gaussian_prior(grid2d(N)),
        "complex gaussian": lambda: gaussian_prior(grid2d(N, COMPLEX)),
        "mixture": lambda: mixture_prior(N),
    }
    model = models[prior]()
    for level in (0.1, 1.0, 5.0):
        t = torch.tensor(level, dtype=REAL)
        x_t = normal((3, N, N), 6, model.grid.dtype) * (1 + level)
        v = normal((3, N, N), 7, model.grid.dtype)
        leaf = x_t.clone().requires_grad_()
        by_vjp = JacobianCovariance(model.denoise(leaf, t), leaf, t**2)(v)
        torch.testing.assert_close(by_vjp, model.covariance(x_t, t)(v), rtol=1e-7, atol=1e-9)
