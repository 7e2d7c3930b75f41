"""Results as Zarr stores or netCDF files that are either complete or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr

from invdiff.errors import InputError, OutputExistsError
from invdiff.io import netcdf

__all__ = ["check_folder", "check_output", "open_result", "write_result"]

_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
_NETCDF = (".nc", ".nc4")


def check_output(path: str | Path, *, overwrite: bool = False) -> None:
    """Check that :func:`write_result` could write to ``path``; call it before a long run.

    Args:
        path: Where the result is to be written.
        overwrite: Whether a result that exists there may be replaced. Only a result of the same
            format is replaced, never another file or folder.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is False, or it is not a result of the
            format that the suffix asks for.
        InputError: The suffix is that of another format, or the folder that should hold the result
            is missing or not writable.
        MissingDependencyError: ``path`` ends in ``.nc4``, and no package that writes netCDF-4 is
            installed.
    """
    is_netcdf = _is_netcdf(Path(path))
    if is_netcdf:
        netcdf.check_netcdf(Path(path))
    path = Path(path).resolve()
    _check_parent(path)
    _check_free(path, is_netcdf=is_netcdf, overwrite=overwrite)


def check_folder(path: str | Path) -> None:
    """Check that a folder can be made at ``path``; call it before a long run.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: The folder that should hold it is missing or not writable.
    """
    path = Path(path).resolve()
    _check_parent(path)
    if path.exists():
        raise _exists(path)


def write_result(dataset: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a Dataset as a Zarr store or a netCDF file, all or nothing.

    It is written next to ``path``, into a hidden folder ``.NAME.partial-*``, and renamed when it is
    complete, so that a failure leaves what was there before. Encodings of the files that the
    dataset was read from are dropped.

    Args:
        dataset: The Dataset; attributes are those that JSON can hold.
        path: Zarr v3 if it ends in ``.zarr`` or has no suffix, netCDF if it ends in ``.nc`` or
            ``.nc4`` (see :func:`invdiff.io.netcdf.write_netcdf`); capitals count as small letters.
        overwrite: Whether a result of the same format that exists there is replaced.

    Raises:
        OutputExistsError: ``path`` exists; see :func:`check_output`.
        InputError: Another suffix, a folder that cannot be written to, or names, indexes, values or
            attributes that the format cannot hold.
        MissingDependencyError: Values that need netCDF-4, and no package that writes it.
    """
    check_output(path, overwrite=overwrite)
    is_netcdf = _is_netcdf(Path(path))  # by the name that was given, which may be a link
    path = Path(path).resolve()
    storable = _storable(dataset)
    with TemporaryDirectory(prefix=f".{path.name}.partial-", dir=path.parent) as folder:
        # Inside, since the temporary folder itself is closed to all but its owner.
        complete = Path(folder) / path.name
        if is_netcdf:
            netcdf.write_netcdf(storable, complete)
        else:
            _write_zarr(storable, complete)
        # It may have appeared, or become something else, in the meantime.
        _check_free(path, is_netcdf=is_netcdf, overwrite=overwrite)
        previous = path.parent / Path(folder).name.replace(".partial-", ".replaced-")
        _publish(complete, path, previous)


def open_result(path: str | Path) -> xr.Dataset:
    """Open a Zarr store or a netCDF file (``.nc``, ``.nc4``) as a Dataset.

    Values of a Zarr store are read when they are used, those of a netCDF file at once.

    Args:
        path: The store or file, such as :func:`write_result` wrote it.

    Raises:
        InputError: There is neither a Zarr group of labelled variables nor a netCDF file.
        MissingDependencyError: A netCDF-4 file, and neither netCDF4 nor h5netcdf is installed.
    """
    if Path(path).suffix.lower() in _NETCDF and not Path(path).is_dir():
        return netcdf.read_netcdf(Path(path))
    try:
        dataset: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be opened as a Dataset",
            got=error.args[0] if error.args else error,
            expected="a Zarr group of arrays with named dims",
            hint="Check the path; xarray.Dataset.to_zarr writes such groups.",
        ) from error
    return dataset


def _is_netcdf(path: Path) -> bool:
    """Whether the suffix asks for netCDF rather than Zarr."""
    suffix = path.suffix.lower()
    if suffix in ("", ".zarr", *_NETCDF):
        return suffix in _NETCDF
    raise InputError(
        "a result is written as Zarr or netCDF",
        got=f"{path.name!r}, with the suffix {path.suffix!r}",
        expected="a path that ends in .zarr or .nc, or has no suffix (Zarr)",
        hint=f"Name it, for instance, {path.name}.zarr.",
    )


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write into {path.parent}",
            got="no such folder" if not path.parent.exists() else "not a writable folder",
            hint="Make it first, or choose another one.",
        )


def _check_free(path: Path, *, is_netcdf: bool, overwrite: bool) -> None:
    """Raise unless ``path`` is free, or a result of this format that may be overwritten."""
    if not path.exists():
        return
    if not overwrite:
        raise _exists(path)
    if is_netcdf:
        is_result = path.is_file() and netcdf.is_netcdf(path)
    else:
        is_result = any((path / name).is_file() for name in _ZARR_FILES)
    if not is_result:
        kind = "netCDF file" if is_netcdf else "Zarr store"
        raise OutputExistsError(
            f"output {path} exists and is not a {kind}",
            got="a folder" if path.is_dir() else "a file",
            expected=f"a {kind}, or a path that is free",
            hint=f"Only a {kind} is overwritten here; remove it yourself or choose another path.",
        )


def _exists(path: Path) -> OutputExistsError:
    return OutputExistsError(
        f"output {path} exists",
        got="a folder" if path.is_dir() else "a file",
        expected="a path that is free",
        hint="Choose another path, or ask to overwrite it (--overwrite, overwrite=True).",
    )


def _write_zarr(dataset: xr.Dataset, path: Path) -> None:
    try:
        dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)
    except (ValueError, TypeError) as error:
        raise InputError(
            "the dataset cannot be written as Zarr",
            got=error,
            expected="variables of numbers, booleans, times or text",
        ) from error


def _publish(complete: Path, path: Path, previous: Path) -> None:
    """Rename ``complete`` to ``path``; what was there is ``previous`` until that is done."""
    if not path.is_dir():
        complete.replace(path)  # in one step, also where a file is replaced
        return
    path.rename(previous)
    try:
        complete.rename(path)
    except BaseException:
        previous.rename(path)
        raise
    shutil.rmtree(previous)


def _storable(dataset: xr.Dataset) -> xr.Dataset:
    """A copy of the Dataset with JSON attributes, no encodings, strings of variable length."""
    names = [str(name) for name in (*dataset.variables, *dataset.dims) if "/" in str(name)]
    if names:  # Zarr and netCDF would take them for groups
        raise InputError("names with a slash cannot be stored", got=names, hint="Rename them.")
    levels = [str(name) for name, index in dataset.indexes.items() if index.nlevels > 1]
    if levels:
        raise InputError(
            "coordinates of several levels cannot be stored",
            got=levels,
            hint=f"Split them by dataset.reset_index({levels[0]!r}).",
        )
    storable = dataset.drop_encoding()
    storable.attrs = _json_attrs("the dataset", dataset.attrs)
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "U":  # Zarr v3 specifies strings of variable length only
            storable[name] = storable[name].astype(object)
        storable[name].attrs = _json_attrs(f"variable {name!r}", variable.attrs)
    return storable


def _json_attrs(owner: str, attrs: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in attrs.items():
        try:
            plain[name] = json.loads(json.dumps(value, default=_from_numpy, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"attribute {name!r} of {owner} cannot be stored",
                got=repr(value),
                expected="what JSON can hold: text, finite numbers, booleans, None, lists, dicts",
                hint="Convert it, such as str(value), or make it a variable.",
            ) from error
    return plain


def _from_numpy(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
