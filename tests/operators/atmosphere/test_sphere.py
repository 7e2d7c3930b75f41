"""The spherical-harmonic transform against scipy, its own inverse, and identities of calculus."""

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from invdiff.errors import InputError, ShapeError
from invdiff.operators.atmosphere import SphericalHarmonics
from tests.support.flows import band_limited

HARMONICS = [SphericalHarmonics(16), SphericalHarmonics(12, 20, 9), SphericalHarmonics(9, 31, 8)]
any_harmonics = pytest.mark.parametrize("harmonics", HARMONICS, ids=str)


def of_scipy(harmonics: SphericalHarmonics, degree: int, order: int) -> np.ndarray:
    colatitude = np.radians(90 - harmonics.latitudes)[:, None]
    return sph_harm_y(degree, order, colatitude, np.radians(harmonics.longitudes))


@any_harmonics
def test_the_harmonics_are_those_of_scipy(harmonics):
    n = harmonics.degree + 1
    for degree, order in [(0, 0), (1, 0), (1, 1), (5, 3), (7, 7), (8, 1)]:
        a = torch.zeros(n, n, dtype=torch.complex128)
        a[degree, order] = 0.3 - (0.8j if order else 0)
        harmonic = of_scipy(harmonics, degree, order)
        expected = (2 if order else 1) * (complex(a[degree, order]) * harmonic).real
        np.testing.assert_allclose(harmonics.inverse(a).numpy(), expected, atol=1e-13)
        np.testing.assert_allclose(harmonics.forward(torch.from_numpy(expected)), a, atol=1e-13)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@any_harmonics
def test_round_trip_of_batches(harmonics, dtype, atol):
    a = band_limited(harmonics, 6, dtype=dtype).reshape(2, 3, *2 * [harmonics.degree + 1])
    field = harmonics.inverse(a)
    assert field.dtype == dtype
    assert field.shape == (2, 3, *harmonics.shape)
    torch.testing.assert_close(harmonics.forward(field), a, rtol=0, atol=atol)
    torch.testing.assert_close(harmonics.inverse(a[1, 2]), field[1, 2], rtol=0, atol=atol)


def test_a_large_truncation_is_still_accurate():
    harmonics = SphericalHarmonics(128, truncation=127)
    a = band_limited(harmonics, 1, dtype=torch.float64)
    torch.testing.assert_close(harmonics.forward(harmonics.inverse(a)), a, rtol=0, atol=1e-11)


@any_harmonics
def test_parseval_and_area(harmonics):
    a = band_limited(harmonics, 1, dtype=torch.float64)[0]
    weights = 4 * np.pi * torch.from_numpy(harmonics.weights)[:, None] / harmonics.shape[1]
    power = 2 * a.abs().square().sum() - a[:, 0].abs().square().sum()
    # A square has up to twice the degree, which all these grids integrate exactly.
    torch.testing.assert_close((weights * harmonics.inverse(a).square()).sum(), power)
    assert harmonics.weights.sum() == pytest.approx(1)


@any_harmonics
def test_derivatives(harmonics):
    a = band_limited(harmonics, 2, dtype=torch.float64)
    east, north = harmonics.gradient(a)
    laplacian = torch.from_numpy(harmonics.laplacian)
    torch.testing.assert_close(harmonics.divergence(east, north), laplacian * a)
    torch.testing.assert_close(harmonics.curl(east, north), torch.zeros_like(a))
    torch.testing.assert_close(harmonics.curl(-north, east), laplacian * a)
    # Of Y_10 = sqrt(3 / 4 pi) sin(lat), and of Y_11 = -sqrt(3 / 8 pi) cos(lat) exp(i lon).
    lat, lon = np.radians(harmonics.latitudes)[:, None], np.radians(harmonics.longitudes)
    a = torch.zeros(harmonics.degree + 1, harmonics.degree + 1, dtype=torch.complex128)
    a[1, 0], a[1, 1] = np.sqrt(4 * np.pi / 3), -np.sqrt(2 * np.pi / 3)
    east, north = (component.numpy() for component in harmonics.gradient(a))
    np.testing.assert_allclose(east, -np.sin(lon) + 0 * lat, atol=1e-13)
    np.testing.assert_allclose(north, np.cos(lat) - np.sin(lat) * np.cos(lon), atol=1e-13)


def test_products_are_projected_without_aliasing():
    """The default truncation: integrals of three fields are exact, those one degree up are not."""
    coarse, fine = SphericalHarmonics(16), SphericalHarmonics(64, truncation=21)
    assert coarse.degree == 10
    assert SphericalHarmonics(16, 24).degree == 7  # here the longitudes limit it
    errors = []
    for degree in (10, 11):
        harmonics = SphericalHarmonics(16, truncation=degree)
        a = band_limited(harmonics, 1, dtype=torch.float64)
        padded = torch.zeros(1, 22, 22, dtype=a.dtype)
        padded[:, : degree + 1, : degree + 1] = a
        exact = fine.forward(fine.inverse(padded).square())[:, : degree + 1, : degree + 1]
        errors.append(float((harmonics.forward(harmonics.inverse(a).square()) - exact).norm()))
    assert errors[0] < 1e-12
    assert errors[1] > 1e-2


def test_tables_made_in_inference_mode_have_gradients_later():
    harmonics = SphericalHarmonics(6, 14, 4)
    with torch.inference_mode():
        harmonics.forward(torch.ones(6, 14))
    field = torch.ones(6, 14, requires_grad=True)
    harmonics.inverse(harmonics.forward(field)).sum().backward()
    assert field.grad is not None


def test_gradients_of_the_transform():
    harmonics = SphericalHarmonics(5)
    field = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 10))).requires_grad_()
    assert torch.autograd.gradcheck(harmonics.forward, field)
    assert torch.autograd.gradcheck(lambda f: harmonics.gradient(harmonics.forward(f)), field)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((16, 32, 16), "truncation=16"), ((16, 20, 12), "at most 9"), ((1,), "n_lat"), ((8.0,), "n_")],
)
def test_bad_sizes(arguments, words):
    with pytest.raises(InputError, match=words):
        SphericalHarmonics(*arguments)


def test_other_shapes():
    harmonics = SphericalHarmonics(8)
    with pytest.raises(ShapeError, match="fields do not fit"):
        harmonics.forward(torch.zeros(2, 16, 8))
    with pytest.raises(ShapeError, match="coefficients do not fit"):
        harmonics.inverse(torch.zeros(9, 9, dtype=torch.complex64))


def test_grid_and_repr():
    harmonics = SphericalHarmonics(8)
    grid = harmonics.grid(torch.float64, "m")
    assert (grid.dims, grid.shape, grid.units) == (("lat", "lon"), (8, 16), "m")
    assert (np.diff(grid.coords["lat"]) > 0).all()
    assert eval(repr(harmonics)) == harmonics
