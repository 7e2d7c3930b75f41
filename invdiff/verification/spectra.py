"""Power spectra of periodic fields: along a dimension, and isotropic in two."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.verification.scored import finite, kept, one_chunk

__all__ = ["isotropic_spectrum", "zonal_spectrum"]


def zonal_spectrum(
    field: xr.DataArray, *, dim: str = "lon", period: float | None = 360.0
) -> xr.DataArray:
    r"""Power by wavenumber along a periodic dimension, which adds up to the mean square.

    .. math:: S_k = c_k \left|\frac1n \sum_j x_j e^{-2\pi i jk/n}\right|^2, \qquad
        \sum_{k=0}^{\lfloor n/2 \rfloor} S_k = \frac1n \sum_j x_j^2,

    with :math:`c_k = 2` for the waves that stand for two of opposite sign, else 1 (the mean
    :math:`k = 0`, and :math:`k = n/2`). All other dims are kept: average power, not fields,
    over members, times and latitudes (:func:`weighted_mean`). The result is lazy if the field is.
    Cost: one FFT.

    Args:
        field: Real values on evenly spaced points along ``dim``, without the last one repeated.
        dim: The name of the periodic dimension.
        period: The period in the units of the coordinate ``dim``, if there is one: the points must
            go once around. None if the period is what the points span.

    Returns:
        The power, in squared units of the field, with a last dimension ``wavenumber`` (waves in
        the period) in place of ``dim``.

    Raises:
        ShapeError: The field lacks ``dim``, or its points do not fill the period evenly.
        DTypeError: Complex values.
        NonFiniteError: NaN or Inf, when it is computed.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import zonal_spectrum
        >>> lon = xr.DataArray(np.arange(0, 360, 30.0), dims="lon")
        >>> wave = (3 + np.cos(2 * np.radians(lon))).assign_coords(lon=lon)
        >>> zonal_spectrum(wave).values.round(3)  # 3 squared, and half of 1 squared
        array([9. , 0. , 0.5, 0. , 0. , 0. , 0. ])
    """
    kept((dim,), field)
    _refuse_complex(field)
    step = _step(field, dim)
    n = field.sizes[dim]
    if period is not None and step is not None and not np.isclose(n * step, period, rtol=1e-4):
        raise ShapeError(
            "the points do not go once around",
            got=f"{n} points {step:g} apart along {dim!r}",
            expected=f"a period of {period:g}",
            hint="Drop a repeated last point, or give period=, None if it is what they span.",
        )
    power = xr.apply_ufunc(
        _zonal,
        one_chunk(finite(field, xr.DataArray(True), name="field"), dim),
        input_core_dims=[[dim]],
        output_core_dims=[["wavenumber"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"wavenumber": n // 2 + 1}},
    )
    return _labelled(power, field, np.arange(n // 2 + 1))


def _zonal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power along the last axis."""
    n = values.shape[-1]
    power: NDArray[np.float64] = np.abs(np.fft.rfft(values, norm="forward")) ** 2
    power[..., 1 : (n + 1) // 2] *= 2
    return power


def isotropic_spectrum(field: xr.DataArray, dims: tuple[str, str] = ("y", "x")) -> xr.DataArray:
    r"""Power by total wavenumber of a doubly periodic field, which adds up to the mean square.

    .. math:: S_K = \sum_{K - 1/2 \le |k| < K + 1/2} |\hat x_k|^2, \qquad
        \hat x_k = \frac1n \sum_r x_r e^{-i k \cdot r}, \qquad \sum_K S_K = \frac1n \sum_r x_r^2.

    Rings hold the sum of their waves, not the mean, up to the corners of the plane of
    wavenumbers; beyond half the number of points along the shorter side they are not complete.
    Wavenumbers count waves in the longer side; the sides are those of the coordinates, or the
    numbers of points where there are none. The result is lazy if the field is. Cost: one FFT.

    Args:
        field: Real values on points that are evenly spaced along both dims and periodic.
        dims: The names of the two dims.

    Returns:
        The power, in squared units of the field, with a last dimension ``wavenumber`` in place of
        the two; its attribute ``period`` is the longer side.

    Raises:
        ShapeError: The field lacks one of two dims, or points are not evenly spaced.
        DTypeError: Complex values.
        NonFiniteError: NaN or Inf, when it is computed.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import isotropic_spectrum
        >>> x = xr.DataArray(2 * np.pi * np.arange(16) / 16, dims="x")
        >>> wave = np.sin(3 * x + 4 * x.rename(x="y"))  # total wavenumber 5
        >>> isotropic_spectrum(wave).values.round(3)
        array([0. , 0. , 0. , 0. , 0. , 0.5, 0. , 0. , 0. , 0. , 0. , 0. ])
    """
    if len(set(kept(dims, field))) != 2:
        raise ShapeError("an isotropic spectrum is of two dims", got=dims, expected="two names")
    _refuse_complex(field)
    steps = [_step(field, name) for name in dims]
    lengths = [
        n if step is None else n * step
        for n, step in zip((field.sizes[name] for name in dims), steps, strict=True)
    ]
    period = max(lengths)
    squares = np.add.outer(
        *(
            (np.fft.fftfreq(field.sizes[name], 1 / field.sizes[name]) * period / length) ** 2
            for name, length in zip(dims, lengths, strict=True)
        )
    )
    ring = np.floor(np.sqrt(squares) + 0.5).astype(int).ravel()
    size = int(ring.max()) + 1
    power = xr.apply_ufunc(
        _isotropic,
        one_chunk(finite(field, xr.DataArray(True), name="field"), *dims),
        input_core_dims=[list(dims)],
        output_core_dims=[["wavenumber"]],
        kwargs={"ring": ring, "size": size},
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"wavenumber": size}},
    )
    return _labelled(power, field, np.arange(size)).assign_attrs(period=float(period))


def _isotropic(
    values: NDArray[np.float64], *, ring: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    """Power of the last two axes, summed in rings."""
    power = np.abs(np.fft.fft2(values, norm="forward")) ** 2
    sums = [np.bincount(ring, flat, minlength=size) for flat in power.reshape(-1, ring.size)]
    return np.array(sums, dtype=np.float64).reshape(*values.shape[:-2], size)


def _refuse_complex(field: xr.DataArray) -> None:
    if np.iscomplexobj(field):
        raise DTypeError("the spectrum is of real values", got=field.dtype, expected="real")


def _step(field: xr.DataArray, dim: str) -> float | None:
    """The spacing of the points along a dim, None without a coordinate.

    Raises:
        ShapeError: They are not evenly spaced.
        InputError: There is one point alone, which has no spacing.
    """
    if dim not in field.coords:
        return None
    points = field[dim].values.astype(float)
    if points.size < 2:
        raise InputError(f"one point along {dim!r} has no waves", expected="at least 2 points")
    steps = np.diff(points)
    if not np.allclose(steps, steps[0], rtol=1e-3, atol=0) or steps[0] == 0:
        raise ShapeError(
            f"the points along {dim!r} are not evenly spaced",
            got=f"steps of {np.abs(steps).min():g} to {np.abs(steps).max():g}",
            expected="equal steps",
            hint="Interpolate to even points, or drop the coordinate.",
        )
    return float(abs(steps[0]))


def _labelled(
    power: xr.DataArray, field: xr.DataArray, wavenumber: NDArray[np.int64]
) -> xr.DataArray:
    """The power with its wavenumbers and units."""
    units = field.attrs.get("units", "1")
    power = power.assign_coords(wavenumber=("wavenumber", wavenumber, {"units": "1"}))
    attrs = {"long_name": "power", "units": units if units == "1" else f"({units})2"}
    return power.rename("power").assign_attrs(attrs)
