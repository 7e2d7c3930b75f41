"""Power spectra and weights of latitude: sums, single waves, and integrals over the sphere."""

import numpy as np
import pytest
import xarray as xr

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.verification import (
    isotropic_spectrum,
    latitude_weights,
    weighted_mean,
    zonal_spectrum,
)

RNG = np.random.default_rng(0)


def circle(n: int) -> xr.DataArray:
    return xr.DataArray(np.arange(n) * 360 / n, dims="lon", name="lon")


@pytest.mark.parametrize("n", [12, 13])
def test_zonal_power_adds_up_to_the_mean_square(n: int) -> None:
    field = xr.DataArray(2 + RNG.standard_normal((3, n, 5)), dims=("time", "lon", "lat"))
    found = zonal_spectrum(field.assign_coords(lon=circle(n)))
    assert found.dims == ("time", "lat", "wavenumber")
    assert found.sizes["wavenumber"] == n // 2 + 1
    np.testing.assert_allclose(found.sum("wavenumber"), (field**2).mean("lon"), rtol=1e-12)


@pytest.mark.parametrize("wavenumber", [0, 1, 5, 6])
def test_a_wave_is_in_its_bin(wavenumber: int) -> None:
    lon = circle(12)
    found = zonal_spectrum(np.cos(wavenumber * np.radians(lon)).assign_coords(lon=lon))
    expected = np.zeros(7)
    expected[wavenumber] = 1 if wavenumber in (0, 6) else 0.5
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("shape", [(8, 8), (9, 8), (6, 10)])
def test_isotropic_power_adds_up_to_the_mean_square(shape: tuple[int, int]) -> None:
    field = xr.DataArray(1 + RNG.standard_normal((2, *shape)), dims=("realization", "y", "x"))
    found = isotropic_spectrum(field)
    np.testing.assert_allclose(found.sum("wavenumber"), (field**2).mean(("y", "x")), rtol=1e-12)
    turned = isotropic_spectrum(field.transpose("x", "realization", "y"), ("x", "y"))
    np.testing.assert_allclose(found, turned, atol=1e-12)


def test_an_oblique_wave_is_in_its_ring() -> None:
    """On a domain twice as wide as high: (6, 4) waves in width and height are (6, 8) in width."""
    x = xr.DataArray(np.arange(40) * 50.0, dims="x")
    y = xr.DataArray(np.arange(40) * 25.0, dims="y")
    wave = np.sin(2 * np.pi * (6 * x / 2000 + 4 * y / 1000))
    found = isotropic_spectrum(wave.assign_coords(x=x, y=y))
    assert found.attrs["period"] == 2000
    np.testing.assert_allclose(found.sel(wavenumber=10), 0.5)
    np.testing.assert_allclose(found.sum(), 0.5)
    square = isotropic_spectrum(wave)  # without coordinates: (6, 4) waves
    np.testing.assert_allclose(square.sel(wavenumber=7), 0.5)


def test_points_must_go_once_around() -> None:
    field = xr.DataArray(RNG.standard_normal(13), dims="lon")
    with pytest.raises(ShapeError, match="once around"):
        zonal_spectrum(field.assign_coords(lon=np.linspace(0, 360, 13)))
    with pytest.raises(ShapeError, match="evenly spaced"):
        zonal_spectrum(field.assign_coords(lon=np.arange(13) ** 2.0))
    with pytest.raises(ShapeError, match="'x'"):
        zonal_spectrum(field, dim="x")
    with pytest.raises(InputError, match="no waves"):
        zonal_spectrum(field.assign_coords(lon=circle(13))[:1])
    with pytest.raises(DTypeError):
        zonal_spectrum(field + 0j)
    with pytest.raises(NonFiniteError, match="1 values"):
        zonal_spectrum(field.where(field != field[3]))
    with pytest.raises(ShapeError, match="two"):
        isotropic_spectrum(field, ("lon", "lon"))
    part = field.assign_coords(lon=np.arange(13.0))
    np.testing.assert_allclose(zonal_spectrum(part, period=None), zonal_spectrum(field))


@pytest.mark.parametrize("n", [2, 18, 181])
def test_weights_of_latitude_integrate_to_one(n: int) -> None:
    latitude = xr.DataArray(np.linspace(90, -90, n), dims="lat")
    weights = latitude_weights(latitude)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(weights, latitude_weights(latitude[::-1]))
    assert (weights > 0).all()  # at the poles, too


def test_weights_of_latitude_integrate_over_the_sphere() -> None:
    """P2 and P4 have mean zero; the midpoint rule errs by the square of the spacing."""
    errors = []
    for n in (45, 90):
        edges = np.linspace(-90, 90, n + 1)
        latitude = xr.DataArray((edges[1:] + edges[:-1]) / 2, dims="lat")
        s = np.sin(np.radians(latitude))
        weights = latitude_weights(latitude)
        errors.append([float(weighted_mean(p, weights)) for p in ((3 * s**2 - 1) / 2, s**3)])
    assert abs(errors[1][0]) < 3e-4
    assert errors[0][0] / errors[1][0] == pytest.approx(4, rel=0.02)
    assert abs(errors[1][1]) < 1e-14


def test_weights_of_a_region_are_those_of_its_cells() -> None:
    """Ten degrees beside twenty rows: as much as the cells of the globe, up to their sum."""
    edges = np.linspace(-90, 90, 37)
    latitude = xr.DataArray((edges[1:] + edges[:-1]) / 2, dims="lat")
    part, whole = latitude_weights(latitude[20:30]), latitude_weights(latitude)[20:30]
    np.testing.assert_allclose(part, whole / whole.sum(), rtol=1e-12)


def test_what_is_no_latitude_is_refused() -> None:
    with pytest.raises(InputError, match="-91"):
        latitude_weights(xr.DataArray([-91.0, 0.0], dims="lat"))
    with pytest.raises(InputError, match="increasing"):
        latitude_weights(xr.DataArray([0.0, 1.0, 1.0], dims="lat"))
    with pytest.raises(ShapeError, match="at least 2"):
        latitude_weights(xr.DataArray([0.0], dims="lat"))
