"""Spherical harmonics on Gaussian latitudes: transforms of real fields and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid

__all__ = ["SphericalHarmonics"]


class _Tables(NamedTuple):
    """What the transforms multiply by, of one dtype and on one device."""

    values: Tensor
    """``P_lm`` at the latitudes, ``(l, m, lat)``."""
    slopes: Tensor
    """``d P_lm / d latitude``, ``(l, m, lat)``."""
    weights: Tensor
    """Gaussian weights times the width of a meridian, ``(lat,)``: they sum to ``4 pi / n_lon``."""
    cosine: Tensor
    """Cosine of the latitude, ``(lat, 1)``."""
    orders: Tensor
    """Orders ``m`` of the coefficients, ``(n_orders,)``."""


@dataclass(frozen=True)
class SphericalHarmonics:
    r"""Real fields on the unit sphere as sums of spherical harmonics, triangularly truncated.

    ::

        f(lat, lon) = sum_(l <= T) sum_(|m| <= l) a_lm Y_lm(lat, lon)
        a_lm = integral of conj(Y_lm) f dS,   integral of |Y_lm|^2 dS = 1

    The harmonics ``Y_lm = P_lm(sin lat) exp(i m lon)`` are orthonormal on the unit sphere and have
    the Condon-Shortley phase, as ``scipy.special.sph_harm_y``. So ``integral of f^2 dS = sum_lm
    |a_lm|^2``, a constant 1 has ``a_00 = sqrt(4 pi)``, and a field whose ``a_lm`` are independent
    of variance ``C_l`` has variance ``sum_l (2 l + 1) C_l / 4 pi`` everywhere. Fields are real:
    coefficients are stored for ``m >= 0``, ``a_(l,-m) = (-1)^m conj(a_lm)``; those of ``m = 0`` are
    real, and those of ``m > l`` are zero.

    Latitudes are the Gaussian ones, from south to north; longitudes are equidistant from 0. The
    quadrature is exact for products of two fields that are projected onto a third if ``T <= (n_lon
    - 1) / 3`` and ``T <= (2 n_lat - 1) / 3``, the default truncation, and for a round trip up to
    ``T = n_lat - 1``. The transform is an FFT in longitude and a product with Legendre matrices in
    latitude: ``O(n_lat T^2)`` per field, with tables of ``2 n_lat T^2`` numbers that are made once
    for each dtype and device.

    Args:
        n_lat: Gaussian latitudes.
        n_lon: longitudes; ``2 n_lat`` by default.
        truncation: largest degree ``T``.

    Raises:
        InputError: sizes that are not integers, or a truncation that the grid does not resolve.

    References:
        Orszag (1970), J. Atmos. Sci. 27, 890; Swarztrauber (1993), Mon. Weather Rev. 121, 3415.

    Examples:
        >>> import torch
        >>> from invdiff.operators.atmosphere import SphericalHarmonics
        >>> harmonics = SphericalHarmonics(16)
        >>> harmonics
        SphericalHarmonics(n_lat=16, n_lon=32, truncation=10)
        >>> a = harmonics.forward(torch.ones(1, 16, 32))
        >>> a.shape, a[0, 0, 0].real
        (torch.Size([1, 11, 11]), tensor(3.5449))
        >>> torch.allclose(harmonics.inverse(a), torch.ones(1, 16, 32), atol=1e-5)
        True
    """

    n_lat: int
    n_lon: int | None = None
    truncation: int | None = None

    def __post_init__(self) -> None:
        n_lat = as_integer("n_lat", self.n_lat, least=2)
        n_lon = 2 * n_lat if self.n_lon is None else as_integer("n_lon", self.n_lon, least=3)
        largest = min(n_lat - 1, (n_lon - 1) // 2)
        default = min(largest, (n_lon - 1) // 3, (2 * n_lat - 1) // 3)
        given = self.truncation
        truncation = default if given is None else as_integer("truncation", given, least=1)
        if truncation > largest:
            raise InputError(
                "the grid does not resolve the truncation",
                got=f"truncation={truncation} on {n_lat} x {n_lon} points",
                expected=f"at most {largest}",
                hint=f"Use {truncation + 1} latitudes and twice as many longitudes, or more.",
            )
        for name, value in (("n_lat", n_lat), ("n_lon", n_lon), ("truncation", truncation)):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """Latitudes and longitudes."""
        assert self.n_lon is not None  # set with the object
        return self.n_lat, self.n_lon

    @property
    def degree(self) -> int:
        """Largest degree ``T`` of the harmonics."""
        assert self.truncation is not None
        return self.truncation

    @property
    def latitudes(self) -> np.ndarray:
        """Gaussian latitudes in degrees, ``(n_lat,)``, from south to north."""
        degrees: np.ndarray = np.degrees(np.arcsin(_gauss(self.n_lat)[0]))
        return degrees

    @property
    def longitudes(self) -> np.ndarray:
        """Longitudes in degrees, ``(n_lon,)``, from 0 eastwards."""
        n_lon = self.shape[1]
        return np.arange(n_lon) * (360 / n_lon)

    @property
    def weights(self) -> np.ndarray:
        """Share of the sphere's area that each latitude stands for, ``(n_lat,)``, of sum 1."""
        return _gauss(self.n_lat)[1] / 2

    @property
    def laplacian(self) -> np.ndarray:
        """Eigenvalues ``-l (l + 1)`` of the Laplacian on the unit sphere, ``(T + 1, 1)``."""
        degree = np.arange(self.degree + 1.0)[:, None]
        return -degree * (degree + 1)

    def grid(self, dtype: torch.dtype = torch.float32, units: str = "1") -> Grid:
        """Grid of the fields: dims ``("lat", "lon")``, coordinates in degrees.

        Args:
            dtype: of the fields, real.
            units: of the fields.
        """
        coords = {"lat": self.latitudes, "lon": self.longitudes}
        return Grid(("lat", "lon"), self.shape, dtype, coords, units)

    def forward(self, field: Tensor) -> Tensor:
        """Coefficients ``a_lm``, complex ``(..., T + 1, T + 1)``, of fields ``(..., lat, lon)``.

        Raises:
            ShapeError: fields on other points.
        """
        tables = self._tables(field)
        return _to_degrees(tables.values, self._to_orders(field, tables))

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Fields ``(..., lat, lon)`` of coefficients ``(..., T + 1, T + 1)``.

        Raises:
            ShapeError: coefficients of another truncation.
        """
        tables = self._tables(coefficients)
        return self._from_orders(_to_latitudes(tables.values, coefficients))

    def gradient(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient on the unit sphere: ``(df/dlon / cos lat, df/dlat)``, eastward and northward.

        Args:
            coefficients: of ``f``, ``(..., T + 1, T + 1)``.

        Returns:
            Two fields ``(..., lat, lon)``; divide by the radius for another sphere.
        """
        tables = self._tables(coefficients)
        east = _to_latitudes(tables.values, 1j * tables.orders * coefficients) / tables.cosine
        north = _to_latitudes(tables.slopes, coefficients)
        return self._from_orders(east), self._from_orders(north)

    def divergence(self, eastward: Tensor, northward: Tensor) -> Tensor:
        """Coefficients of ``div (u, v)`` on the unit sphere, ``(..., T + 1, T + 1)``.

        By parts, ``- integral of (u, v) . grad conj(Y_lm) dS``, so it is the negative adjoint of
        the gradient, and nothing is differentiated on the grid.

        Args:
            eastward: ``u``, ``(..., lat, lon)``.
            northward: ``v``, of the same shape.
        """
        tables = self._tables(eastward)
        u, v = (self._to_orders(component, tables) for component in (eastward, northward))
        along = 1j * tables.orders * _to_degrees(tables.values, u / tables.cosine)
        return along - _to_degrees(tables.slopes, v)

    def curl(self, eastward: Tensor, northward: Tensor) -> Tensor:
        """Coefficients of the vertical component of ``curl (u, v)``, the divergence of ``(v, -u)``.

        Args:
            eastward: ``u``, ``(..., lat, lon)``.
            northward: ``v``, of the same shape.
        """
        return self.divergence(northward, -eastward)

    def _tables(self, x: Tensor) -> _Tables:
        n = self.degree + 1
        expected = (n, n) if x.is_complex() else self.shape
        if x.ndim < 2 or tuple(x.shape[-2:]) != expected:
            raise ShapeError(
                f"{'coefficients' if x.is_complex() else 'fields'} do not fit the harmonics",
                got=tuple(x.shape),
                expected=f"(..., {expected[0]}, {expected[1]})",
            )
        return _tables(self, x.dtype.to_real(), x.device)

    def _to_orders(self, field: Tensor, tables: _Tables) -> Tensor:
        """Integrals over longitude against ``exp(-i m lon)``, by latitude, times the weights."""
        orders: Tensor = torch.fft.rfft(field)[..., : self.degree + 1] * tables.weights[:, None]
        return orders

    def _from_orders(self, orders: Tensor) -> Tensor:
        """Fields of their Fourier coefficients ``(..., lat, m)``; absent orders are zero."""
        field: Tensor = torch.fft.irfft(orders, self.shape[1], norm="forward")
        return field


def _to_degrees(table: Tensor, orders: Tensor) -> Tensor:
    """Sum over latitudes: ``(l, m, lat)`` times ``(..., lat, m)`` to ``(..., l, m)``."""
    # As pairs of reals: the table is real, and einsum takes one dtype.
    pairs = torch.view_as_real(orders)
    product = torch.einsum("lmj,...jmc->...lmc", table, pairs)
    coefficients: Tensor = torch.view_as_complex(product.contiguous())
    return coefficients


def _to_latitudes(table: Tensor, coefficients: Tensor) -> Tensor:
    """Sum over degrees: ``(l, m, lat)`` times ``(..., l, m)`` to ``(..., lat, m)``."""
    pairs = torch.view_as_real(coefficients.resolve_conj())
    product = torch.einsum("lmj,...lmc->...jmc", table, pairs)
    orders: Tensor = torch.view_as_complex(product.contiguous())
    return orders


@lru_cache(maxsize=32)
def _gauss(n_lat: int) -> tuple[np.ndarray, np.ndarray]:
    """Sines of the Gaussian latitudes, ascending, and their weights, of sum 2."""
    return np.polynomial.legendre.leggauss(n_lat)


@lru_cache(maxsize=16)
def _tables(harmonics: SphericalHarmonics, dtype: torch.dtype, device: torch.device) -> _Tables:
    sine, weights = _gauss(harmonics.n_lat)
    values = _legendre(sine, harmonics.degree + 1)
    cosine = np.sqrt(1 - sine**2)
    arrays = (
        values[:-1],
        _slopes(values) / cosine,
        weights * 2 * np.pi / harmonics.shape[1],
        cosine[:, None],
        np.arange(harmonics.degree + 1),
    )
    # Kept beyond this call, which may be inside an inference mode whose tensors have no gradients.
    with torch.inference_mode(False):
        return _Tables(*(torch.from_numpy(array).to(device, dtype) for array in arrays))


def _legendre(sine: np.ndarray, n: int) -> np.ndarray:
    """Orthonormal ``P_lm(sin lat)`` for ``l <= n`` and ``m < n``, ``(n + 1, n, n_lat)``.

    By the recurrence in ``l`` from the sectoral ``P_mm``, which is stable:
    ``eps_(l+1) P_(l+1) = sin(lat) P_l - eps_l P_(l-1)``.
    """
    p, eps = np.zeros((n + 1, n, len(sine))), _eps(n)
    sectoral = np.full(len(sine), np.sqrt(1 / (4 * np.pi)))
    for m in range(n):
        p[m, m] = sectoral
        for l in range(m, n):  # noqa: E741 - the degree's own name
            below = p[l - 1, m] if l > m else 0.0
            p[l + 1, m] = (sine * p[l, m] - eps[l, m] * below) / eps[l + 1, m]
        sectoral = -np.sqrt((2 * m + 3) / (2 * m + 2)) * np.sqrt(1 - sine**2) * sectoral
    return p


def _slopes(values: np.ndarray) -> np.ndarray:
    """``cos(lat)`` times the derivatives by latitude of all but the last degree of ``values``.

    ``(1 - mu^2) dP_l/dmu = (l + 1) eps_l P_(l-1) - l eps_(l+1) P_(l+1)``.
    """
    n = len(values) - 1
    eps = _eps(n)[..., None]
    degree = np.arange(n)[:, None, None]
    below = np.concatenate([np.zeros_like(values[:1]), values[: n - 1]])
    slopes: np.ndarray = (degree + 1) * eps[:-1] * below - degree * eps[1:] * values[1:]
    return slopes


def _eps(n: int) -> np.ndarray:
    """``sqrt((l^2 - m^2) / (4 l^2 - 1))``, ``(n + 1, n)``; zero for ``m >= l``."""
    degree, order = np.arange(n + 1.0)[:, None], np.arange(n)
    eps: np.ndarray = np.sqrt(np.maximum(degree**2 - order**2, 0) / np.abs(4 * degree**2 - 1))
    return eps
