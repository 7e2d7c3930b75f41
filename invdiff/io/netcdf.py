"""Labelled Datasets, complex ones too, to and from netCDF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from invdiff.errors import InputError, MissingDependencyError

__all__ = [
    "check_netcdf",
    "from_netcdf_safe",
    "is_netcdf",
    "read_netcdf",
    "to_netcdf_safe",
    "write_netcdf",
]

_PART = "complex_part"
_CLASSIC = (b"CDF\x01", b"CDF\x02")  # the first bytes of netCDF-3 files
_HDF5 = b"\x89HDF"  # of netCDF-4 files
_INT32 = _MAX_BYTES = 2**31 - 1
_HINT = "Install netCDF4 (pip install netCDF4), or write a Zarr store."

Engine = Literal["netcdf4", "h5netcdf", "scipy"]


def to_netcdf_safe(dataset: xr.Dataset) -> xr.Dataset:
    """Split each complex variable ``v`` into real ``v_real`` and ``v_imag``.

    NetCDF has no complex type. Both parts get the attributes of ``v``, and ``complex_part``, by
    which :func:`from_netcdf_safe` finds them. Variables that are real stay as they are.

    Args:
        dataset: The Dataset, of any variables.

    Returns:
        A Dataset without complex data variables; dims, coordinates and attributes are kept.

    Raises:
        InputError: The dataset has a variable of such a name already, or a complex coordinate.

    Examples:
        >>> import xarray as xr
        >>> from invdiff.io import from_netcdf_safe, to_netcdf_safe
        >>> image = xr.Dataset({"image": ("x", [1 + 2j, 3j])})
        >>> list(to_netcdf_safe(image))
        ['image_real', 'image_imag']
        >>> from_netcdf_safe(to_netcdf_safe(image)).identical(image)
        True
    """
    if labels := [str(name) for name, c in dataset.coords.items() if c.dtype.kind == "c"]:
        raise InputError(
            "complex coordinates cannot be stored as netCDF",
            got=f"coordinates {labels}",
            expected="real coordinates",
            hint="Make them variables (reset_coords), or write a Zarr store.",
        )
    parts: dict[str, xr.DataArray] = {}
    split = [str(name) for name, array in dataset.data_vars.items() if array.dtype.kind == "c"]
    for name in split:
        array = dataset[name]
        for part, values in (("real", array.real), ("imag", array.imag)):
            if f"{name}_{part}" in dataset.variables:
                raise InputError(
                    f"the complex variable {name!r} cannot be split",
                    got=f"another variable {name}_{part}",
                    hint="Rename one of them.",
                )
            parts[f"{name}_{part}"] = values.assign_attrs({**array.attrs, _PART: part})
    return dataset.drop_vars(split).assign(parts)


def from_netcdf_safe(dataset: xr.Dataset) -> xr.Dataset:
    """Join ``v_real`` and ``v_imag`` into complex ``v``: the inverse of :func:`to_netcdf_safe`.

    Args:
        dataset: The Dataset as read from netCDF. Values of complex variables are loaded.

    Returns:
        The Dataset with complex variables, complex64 of float32 parts, complex128 of float64 ones.

    Raises:
        InputError: A real part without its imaginary part, or the reverse.
    """
    joined: dict[str, xr.DataArray] = {}
    parts = [str(name) for name, array in dataset.data_vars.items() if _PART in array.attrs]
    for name in sorted({part.rpartition("_")[0] for part in parts}):
        pair = [f"{name}_real", f"{name}_imag"]
        if not set(pair) <= set(parts):
            raise InputError(
                f"the complex variable {name!r} lacks one of its parts",
                got=sorted(set(pair) & set(parts)),
                expected=pair,
            )
        real, imag = (dataset[part] for part in pair)
        attrs = {key: value for key, value in real.attrs.items() if key != _PART}
        joined[name] = real.copy(data=_join(real.values, imag.transpose(*real.dims).values))
        joined[name].attrs = attrs
    return dataset.drop_vars(parts).assign(joined)


def check_netcdf(path: Path) -> None:
    """Check that netCDF of the suffix of ``path`` can be written here.

    Raises:
        MissingDependencyError: ``path`` ends in ``.nc4``, and neither netCDF4 nor h5netcdf is
            installed: SciPy writes netCDF-3 alone.
    """
    if _engine() == "scipy" and path.suffix.lower() == ".nc4":
        raise MissingDependencyError(
            f"{path.name} cannot be written as netCDF-4",
            got="neither netCDF4 nor h5netcdf is installed",
            hint=f"{_HINT} A path that ends in .nc is written as netCDF-3.",
        )


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a Dataset as one netCDF file, with complex variables by :func:`to_netcdf_safe`.

    netCDF-4 by netCDF4 or h5netcdf where one is installed, else netCDF-3 with 64-bit offsets by
    SciPy, which stores 64-bit integers with 32 bits where all values fit. Attributes that netCDF
    has no type for (booleans, None, dicts, mixed lists, integers beyond 32 bits) are stored as JSON
    text.

    Args:
        dataset: The Dataset, without encodings, with attributes that JSON can hold.
        path: The file to write; it is replaced if it exists.

    Raises:
        MissingDependencyError: Values that netCDF-3 cannot hold, and no package for netCDF-4.
        InputError: Values that netCDF-4 cannot hold either.
    """
    safe = to_netcdf_safe(dataset)
    safe.attrs = _netcdf_attrs(safe.attrs)
    for name in safe.variables:
        safe[name].attrs = _netcdf_attrs(safe[name].attrs)
    if _engine() == "scipy":
        _write_classic(safe, path)
        return
    try:
        safe.to_netcdf(path, engine=_engine(), format="NETCDF4")
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            "the dataset cannot be written as netCDF", got=error, hint="Write a Zarr store."
        ) from error


def _write_classic(dataset: xr.Dataset, path: Path) -> None:
    """Write netCDF-3 by SciPy.

    Raises:
        MissingDependencyError: Values that need netCDF-4.
    """
    problem: object = None
    if 0 in dataset.sizes.values():
        problem = f"a dim of length 0: {dict(dataset.sizes)}"  # length 0 means unlimited there
    elif large := [str(name) for name, v in dataset.variables.items() if v.nbytes > _MAX_BYTES]:
        problem = f"variables of more than 2 GiB: {large}"
    if problem is None:
        try:
            dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")
        except (ValueError, TypeError) as error:
            problem = error
    if problem is not None:
        raise MissingDependencyError(
            "the dataset does not fit into netCDF-3, the only netCDF that can be written here",
            got=problem,
            hint=_HINT,
        )


def read_netcdf(path: Path) -> xr.Dataset:
    """Read a netCDF file into memory, complex variables by :func:`from_netcdf_safe`.

    Raises:
        MissingDependencyError: A netCDF-4 file, and neither netCDF4 nor h5netcdf is installed.
        InputError: There is no such file, or it is not netCDF.
    """
    if not path.is_file() or not is_netcdf(path):
        raise InputError(
            f"{path} cannot be opened as netCDF",
            got="a file of another format" if path.is_file() else "no such file",
            expected="a netCDF file",
            hint="Check the path.",
        )
    is_classic = _magic(path).startswith(_CLASSIC)
    if not is_classic and _engine() == "scipy":
        raise MissingDependencyError(
            f"{path} is a netCDF-4 file",
            got="neither netCDF4 nor h5netcdf is installed",
            hint="Install netCDF4 (pip install netCDF4).",
        )
    # SciPy's memory map could not be closed while a value of it is in use.
    chosen = {"engine": "scipy", "mmap": False} if is_classic else {"engine": _engine()}
    try:
        with xr.open_dataset(path, **chosen) as stored:
            return from_netcdf_safe(stored.load())
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} cannot be opened as netCDF",
            got=error.args[0] if error.args else error,
            expected="a whole netCDF file",
            hint="Check the path, or write the file again.",
        ) from error


def is_netcdf(path: Path) -> bool:
    """Whether the file at ``path`` begins as netCDF-3 or netCDF-4 (HDF5) files do."""
    return _magic(path).startswith((*_CLASSIC, _HDF5))


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _engine() -> Engine:
    """The package that writes: SciPy is always installed."""
    if find_spec("netCDF4") is not None:
        return "netcdf4"
    return "h5netcdf" if find_spec("h5netcdf") is not None else "scipy"


def _netcdf_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value if _is_plain(value) else json.dumps(value) for key, value in attrs.items()}


def _is_plain(value: object) -> bool:
    """Text, a number, or a list of numbers that no netCDF format changes."""
    if isinstance(value, list):
        return bool(value) and all(not isinstance(v, str) and _is_plain(v) for v in value)
    if isinstance(value, int):
        return not isinstance(value, bool) and -_INT32 <= value <= _INT32
    return isinstance(value, str | float)


def _join(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    # Part by part: real + 1j * imag turns an infinite part into NaN.
    whole = np.empty(real.shape, np.result_type(real.dtype.newbyteorder("="), np.complex64))
    whole.real, whole.imag = real, imag
    return whole
