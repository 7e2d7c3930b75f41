"""Results as Zarr stores that are either complete or not there."""

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

__all__ = ["check_output", "open_result", "write_result"]

_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")


def check_output(path: str | Path, *, overwrite: bool = False) -> None:
    """Raise unless ``write_result`` could write to ``path``: ask before a long run.

    Raises:
        OutputExistsError: something is there and ``overwrite`` is False, or it is not a Zarr store,
            which is never replaced.
        InputError: the folder that should hold it is missing or not writable.
    """
    path = Path(path).resolve()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write into {path.parent}",
            got="no such folder" if not path.parent.exists() else "not a writable folder",
            hint="Make it first, or choose another one.",
        )
    if not path.exists():
        return
    if not overwrite:
        raise OutputExistsError(
            f"output {path} exists",
            got="a folder" if path.is_dir() else "a file",
            expected="a path that is free",
            hint="Choose another path, or ask to overwrite it (--overwrite, overwrite=True).",
        )
    if not any((path / name).is_file() for name in _ZARR_FILES):
        raise OutputExistsError(
            f"output {path} exists and is not a Zarr store",
            got="a folder" if path.is_dir() else "a file",
            expected="a Zarr store, or a path that is free",
            hint="Only Zarr stores are overwritten; remove it yourself or choose another path.",
        )


def write_result(dataset: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a Dataset as a Zarr v3 store, all or nothing.

    It is written to a hidden sibling folder ``.NAME.partial-*`` and renamed when complete, so that
    a failure leaves what was there before. Encodings of the files it was read from are dropped.

    Raises:
        OutputExistsError: ``path`` exists; see :func:`check_output`.
        InputError: an attribute that JSON cannot hold, or a folder that cannot be written to.
    """
    path = Path(path).resolve()
    check_output(path, overwrite=overwrite)
    storable = _storable(dataset)
    with TemporaryDirectory(prefix=f".{path.name}.partial-", dir=path.parent) as folder:
        # Inside, since the temporary folder itself is closed to all but its owner.
        complete = Path(folder) / path.name
        storable.to_zarr(complete, mode="w-", zarr_format=3, consolidated=False)
        # It may have appeared, or become something else, in the meantime.
        check_output(path, overwrite=overwrite)
        previous = path.parent / Path(folder).name.replace(".partial-", ".replaced-")
        _publish(complete, path, previous)


def open_result(path: str | Path) -> xr.Dataset:
    """Open a Zarr store as a Dataset; values are read when they are used.

    Raises:
        InputError: no Zarr store of labelled variables there.
    """
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


def _publish(complete: Path, path: Path, previous: Path) -> None:
    """Rename ``complete`` to ``path``; what was there is ``previous`` until that is done."""
    if not path.exists():
        complete.rename(path)
        return
    path.rename(previous)
    try:
        complete.rename(path)
    except BaseException:
        previous.rename(path)
        raise
    shutil.rmtree(previous)


def _storable(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with plain attributes, without encodings, with strings of variable length."""
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
