"""Gaussian likelihoods against torch.distributions and dense formulas."""

import pytest
import torch
from torch import Tensor

from invdiff.errors import (
    DTypeError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)
from invdiff.grid import Grid
from invdiff.likelihood import AxisCovariance, Gaussian
from invdiff.operators import Convolution, Mask, Matrix
from tests.support.closed_form import dense, grid2d, normal

REAL, COMPLEX = torch.float64, torch.complex128
every_dtype = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
COILS, M, N = 3, 4, 5


def coil_matrix(dtype: torch.dtype) -> Tensor:
    root = normal((COILS, COILS), 3, dtype)
    return root @ root.mH + 0.5 * torch.eye(COILS, dtype=dtype)


def hermitian_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.rsqrt()) @ vectors.mH


def full_covariance(kind: str, dtype: torch.dtype) -> Tensor:
    eye = torch.eye(COILS * M, dtype=dtype)
    if kind == "scalar":
        return 0.3**2 * eye
    if kind == "per datum":
        return torch.diag(stds().flatten().to(dtype) ** 2)
    return torch.kron(coil_matrix(dtype), torch.eye(M, dtype=dtype))


def stds() -> Tensor:
    return torch.linspace(0.2, 2, COILS * M, dtype=REAL).reshape(COILS, M)


def likelihood(kind: str, dtype: torch.dtype) -> Gaussian:
    operator = Matrix(
        normal((COILS * M, N), 1, dtype),
        Grid(("x",), (N,), dtype),
        Grid(("coil", "k"), (COILS, M), dtype),
    )
    whitening = hermitian_root(coil_matrix(dtype))
    noise = {
        "scalar": 0.3,
        "per datum": stds(),
        "coils": AxisCovariance(coil_matrix(dtype)),
        "callable": lambda r: torch.einsum("ij,bjk->bik", whitening, r),
    }[kind]
    return Gaussian(normal((COILS, M), 2, dtype), operator, noise)


every_kind = pytest.mark.parametrize("kind", ["scalar", "per datum", "coils", "callable"])


@every_kind
@every_dtype
def test_log_density_differences_are_those_of_the_distribution(
    kind: str, dtype: torch.dtype
) -> None:
    term, x = likelihood(kind, dtype), normal((6, N), 4, dtype)
    got = term.log_prob(x, x, torch.tensor(0.0))
    sigma = full_covariance(kind, dtype)
    residual = term.y.flatten() - term.operator(x).flatten(1)
    if dtype.is_complex:  # as real parts, of half the covariance each
        residual = torch.cat([residual.real, residual.imag], 1)
        upper = torch.cat([sigma.real, -sigma.imag], 1)
        sigma = torch.cat([upper, torch.cat([sigma.imag, sigma.real], 1)]) / 2
    zero = torch.zeros(len(sigma), dtype=REAL)
    truth = torch.distributions.MultivariateNormal(zero, sigma).log_prob(residual)
    torch.testing.assert_close(got - got[0], truth - truth[0])


@every_kind
@every_dtype
def test_misfit_precision_and_pullback(kind: str, dtype: torch.dtype) -> None:
    term, x = likelihood(kind, dtype), normal((6, N), 4, dtype)
    a, inverse = dense(term.operator), torch.linalg.inv(full_covariance(kind, dtype))
    torch.testing.assert_close(term.precision(x), x @ (a.mH @ inverse @ a).mT)
    residual = term.y.flatten() - x @ a.mT
    torch.testing.assert_close(term.pullback(term.residual(x)), residual @ (a.mH @ inverse).mT)
    chi2 = (residual.conj() * (residual @ inverse.mT)).sum(1).real / (COILS * M)
    torch.testing.assert_close(term.misfit(x), chi2)
    torch.testing.assert_close(term.forward(x), term.residual(0 * x) - term.residual(x))


@every_dtype
def test_the_misfit_of_the_truth_is_one(dtype: torch.dtype) -> None:
    """Mean of chi-square over its degrees of freedom; a mask counts what it keeps only."""
    grid = grid2d(50, dtype)
    keep = torch.arange(2500).reshape(50, 50) % 3 == 0
    operator, x = Mask(grid, keep), normal((50, 50), 0, dtype)
    y = operator((x + 0.2 * normal((50, 50), 1, dtype))[None])[0]
    misfit = float(Gaussian(y, operator, 0.2).misfit(x[None]))
    freedom = int(keep.sum()) * (2 if dtype.is_complex else 1)
    assert misfit == pytest.approx(1, abs=4 * (2 / freedom) ** 0.5)


def test_the_spectrum_of_the_precision() -> None:
    grid = grid2d(6)
    operator, y = Convolution.gaussian(grid, 1.0), normal((6, 6), 0)
    scalar, tensor = Gaussian(y, operator, 0.5), Gaussian(y, operator, torch.full((6, 6), 0.5))
    assert scalar.is_circulant
    assert not tensor.is_circulant
    x = normal((2, 6, 6), 1)
    by_fft = torch.fft.ifft2(scalar.precision_spectrum * torch.fft.fft2(x)).real
    torch.testing.assert_close(scalar.precision(x), by_fft)
    torch.testing.assert_close(tensor.precision_spectrum, scalar.precision_spectrum)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf"), torch.zeros(6, 6)])
def test_noise_levels_that_are_not_positive_are_refused(noise) -> None:
    with pytest.raises(NoiseLevelError, match="not positive"):
        Gaussian(normal((6, 6), 0), Mask(grid2d(6), torch.ones(6, 6)), noise)


def test_bad_data_and_noise_are_refused() -> None:
    operator, y = Mask(grid2d(6), torch.ones(6, 6)), normal((6, 6), 0)
    with pytest.raises(ShapeError, match="data"):
        Gaussian(y[:5], operator, 0.1)
    with pytest.raises(DTypeError):
        Gaussian(y.to(COMPLEX), operator, 0.1)
    holed = y.clone()
    holed[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        Gaussian(holed, operator, 0.1)
    with pytest.raises(ShapeError, match="broadcast"):
        Gaussian(y, operator, torch.ones(5))
    with pytest.raises(ShapeError, match="axis"):
        Gaussian(y, operator, AxisCovariance(torch.eye(6)))
    with pytest.raises(ShapeError, match="covariance"):
        Gaussian(y, operator, AxisCovariance(torch.eye(5), dim="y"))
    with pytest.raises(NoiseLevelError, match="positive definite"):
        Gaussian(y, operator, AxisCovariance(-torch.eye(6), dim="y"))


def test_noise_of_more_axes_than_the_data_is_refused() -> None:
    operator, y = Mask(grid2d(6), torch.ones(6, 6)), normal((6, 6), 0)
    with pytest.raises(ShapeError, match="broadcast"):
        Gaussian(y, operator, torch.ones(3, 6, 6))


def test_a_nonlinear_operator_has_no_precision() -> None:
    class Square:
        domain = range = grid2d(6)
        n_data = 36

        def __call__(self, x: Tensor) -> Tensor:
            return x**2

    term = Gaussian(normal((6, 6), 0), Square(), 0.1)
    assert not term.is_linear
    x = normal((2, 6, 6), 1)
    assert term.log_prob(x, x, torch.tensor(0.0)).shape == (2,)
    with pytest.raises(UnsupportedError, match="linear"):
        term.precision(x)
