"""Source wavelets from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from invdiff.errors import InputError, NonFiniteError
from invdiff.io.result import open_result

__all__ = ["read_wavelet"]

_TEXT = (".txt", ".csv", ".dat")


def read_wavelet(path: str | Path) -> xr.DataArray:
    """Read a source wavelet, in the units of the data.

    Text (``.txt``, ``.csv``, ``.dat``, lines that start with ``#`` left out) and ``.npy`` hold one
    column of amplitudes at the step of the data, from time zero on, or two of time in s and
    amplitude. A Zarr store or netCDF holds a variable ``wavelet`` of ``(time,)`` or ``(shot,
    time)``, with ``time`` in s if it does not start at zero. Times before zero are kept: those of a
    wavelet of zero phase.

    Args:
        path: of the file or store.

    Returns:
        ``wavelet (time)`` or ``(shot, time)``, with the coordinate ``time`` in s if the file has
        it.

    Raises:
        InputError: no such file, another suffix, or other columns or variables.
        NonFiniteError: NaN or Inf.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".zarr", ".nc"):
        wavelet = _of_dataset(open_result(path), path.name)
    elif suffix in (*_TEXT, ".npy"):
        wavelet = _of_columns(path)
    else:
        raise InputError(
            f"the format of wavelet {path} is not known",
            got=f"suffix {path.suffix!r}",
            expected=f"{', '.join(_TEXT)}, .npy, .zarr or .nc",
        )
    if not np.isfinite(wavelet.values).all():
        raise NonFiniteError(f"the wavelet of {path.name} holds NaN or Inf", expected="numbers")
    return wavelet


def _of_columns(path: Path) -> xr.DataArray:
    if not path.is_file():
        raise InputError(
            f"wavelet {path} does not exist", got="no such file", expected="a file of columns"
        )
    try:
        columns = np.load(path) if path.suffix.lower() == ".npy" else _text(path)
    except ValueError as error:
        raise InputError(
            f"wavelet {path} cannot be read", got=error, expected="columns of numbers"
        ) from error
    if columns.ndim == 1:
        return xr.DataArray(np.asarray(columns, np.float64), dims="time", name="wavelet")
    if columns.ndim != 2 or columns.shape[1] != 2 or len(columns) < 2:
        raise InputError(
            f"wavelet {path.name} has other columns",
            got=f"an array of shape {columns.shape}",
            expected="one column of amplitudes, or two of time in s and amplitude",
        )
    time, amplitude = np.asarray(columns, np.float64).T
    return xr.DataArray(amplitude, {"time": time}, "time", "wavelet")


def _text(path: Path) -> np.ndarray:
    delimiter = "," if path.suffix.lower() == ".csv" else None
    return np.loadtxt(path, delimiter=delimiter, ndmin=1)


def _of_dataset(dataset: xr.Dataset, name: str) -> xr.DataArray:
    if "wavelet" not in dataset or dataset["wavelet"].dims not in (("time",), ("shot", "time")):
        raise InputError(
            f"{name} holds no wavelet",
            got={str(key): v.dims for key, v in dataset.data_vars.items()},
            expected="a variable 'wavelet' (time,) or (shot, time)",
        )
    units = dataset["time"].attrs.get("units", "s") if "time" in dataset.coords else "s"
    if units != "s":
        raise InputError(f"time of {name} is not in s", got=f"units {units!r}", expected="'s'")
    wavelet = dataset["wavelet"].load()
    return wavelet.drop_vars([key for key in wavelet.coords if key != "time"])
