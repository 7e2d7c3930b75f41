"""The arrays of a k-space file as stored, for each format: read here, checked by read_kspace."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from invdiff.errors import InputError, MissingDependencyError, ShapeError
from invdiff.io.result import open_result

__all__ = ["Scan", "read_hdf5", "read_npz", "read_zarr"]

Array = np.ndarray[Any, np.dtype[Any]]

_KSPACE = ("kspace", "ksp")
_SENSITIVITY = ("sensitivity", "maps", "sens")


@dataclass(frozen=True, eq=False)
class Scan:
    """Arrays of one slice or volume, with the coil axis first and unchecked."""

    kspace: Array
    mask: Array | None = None
    sensitivity: Array | None = None
    noise_std: object = None
    units: str = "1"
    coords: Mapping[str, Array] = field(default_factory=dict)
    attrs: Mapping[str, object] = field(default_factory=dict)


def read_npz(path: Path) -> Scan:
    """Scan of an ``.npz`` file.

    Raises:
        InputError: not an .npz file, pickled objects, missing or ambiguous keys.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no zip archive")
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            sensitivity = _find(path, names, _SENSITIVITY)
            return Scan(
                archive[_required(path, names)],
                mask=archive["mask"] if "mask" in names else None,
                sensitivity=archive[sensitivity] if sensitivity else None,
                noise_std=archive["noise_std"] if "noise_std" in names else None,
            )
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as .npz", got=error, hint="Write it with numpy.savez."
        ) from error


def read_zarr(path: Path) -> Scan:
    """Scan of a Zarr store written from a Dataset; dims are matched by name.

    Raises:
        InputError: not a Dataset, missing or ambiguous keys.
        ShapeError: dims of other names.
    """
    with open_result(path) as dataset:
        names = [str(name) for name in dataset.variables]
        kspace = dataset[_required(path, names)]
        axes = ("z", "y", "x") if "kz" in kspace.dims else ("y", "x")
        dims = tuple(f"k{axis}" for axis in axes)
        sensitivity = _find(path, names, _SENSITIVITY)
        labelled = [dim for dim in ("coil", *dims, *axes) if dim in dataset.coords]
        attrs = {str(name): value for name, value in dataset.attrs.items()}
        noise_std = kspace.attrs.get("noise_std", attrs.get("noise_std"))
        return Scan(
            _ordered(kspace, ("coil", *dims)),
            mask=_ordered(dataset["mask"], dims, may_lack=dims) if "mask" in names else None,
            sensitivity=_ordered(dataset[sensitivity], ("coil", *axes)) if sensitivity else None,
            noise_std=dataset["noise_std"].values if "noise_std" in names else noise_std,
            units=str(kspace.attrs.get("units", "1")),
            coords={dim: dataset.coords[dim].values for dim in labelled},
            attrs=attrs,
        )


def read_hdf5(path: Path, slice_index: int | None) -> Scan:
    """Scan of one slice of a fastMRI HDF5 file; the other slices are not read.

    Raises:
        InputError: not HDF5, missing keys, a slice that is not given or does not exist.
        ShapeError: a kspace that is neither (slice, coil, ky, kx) nor (slice, ky, kx).
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "fastMRI files need h5py", hint="Install it with pip install 'invdiff[mri]'."
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5", got=error) from error
    with file:
        names = list(file)
        stored = file[_required(path, names)]
        if len(stored.shape) not in (3, 4):
            raise ShapeError(
                "kspace has the wrong number of axes",
                got=f"shape {stored.shape}",
                expected="(slice, coil, ky, kx), or (slice, ky, kx) of a single coil",
            )
        index = _slice(path, len(stored), slice_index)
        found = _find(path, names, _SENSITIVITY)
        if found and file[found].shape != stored.shape:
            raise ShapeError(
                "sensitivity does not fit kspace",
                got=f"shape {file[found].shape}",
                expected=f"{stored.shape}, that of kspace with all its slices",
            )
        coil = (None,) if len(stored.shape) == 3 else ()  # a single coil gets its axis
        attrs = {name: _plain(value) for name, value in file.attrs.items()}
        return Scan(
            stored[index][coil],
            mask=file["mask"][()] if "mask" in names else None,
            sensitivity=file[found][index][coil] if found else None,
            noise_std=file["noise_std"][()] if "noise_std" in names else attrs.get("noise_std"),
            attrs=attrs,
        )


def _slice(path: Path, n_slices: int, index: int | None) -> int:
    if index is None and n_slices == 1:
        return 0
    if index is None or index not in range(n_slices):
        raise InputError(
            f"{path.name} holds {n_slices} slices",
            got=f"slice_index={index}",
            expected=f"slice_index from 0 to {n_slices - 1}",
            hint=f"Choose one; {n_slices // 2} is the middle.",
        )
    return int(index)


def _find(path: Path, names: Collection[str], wanted: tuple[str, ...]) -> str | None:
    """The one of several names that the file uses, if any."""
    found = [name for name in wanted if name in names]
    if len(found) > 1:
        raise InputError(f"{path} is ambiguous", got=f"keys {found}", expected="one of them")
    return found[0] if found else None


def _required(path: Path, names: Collection[str]) -> str:
    name = _find(path, names, _KSPACE)
    if name is None:
        raise InputError(
            f"{path} holds no k-space",
            got=f"keys {sorted(names)}",
            expected="'kspace' (or 'ksp')",
            hint="Rename the array that holds the complex samples.",
        )
    return name


def _ordered(array: xr.DataArray, dims: tuple[str, ...], may_lack: tuple[str, ...] = ()) -> Array:
    """Values with axes in this order, of length 1 for the dims that it may lack."""
    lacking = [dim for dim in may_lack if dim not in array.dims]
    if {*array.dims, *lacking} != set(dims):
        raise ShapeError(
            f"{array.name} has other dims",
            got=dict(zip(array.dims, array.shape, strict=True)),
            expected=dims,
            hint="Rename, select or drop its dims.",
        )
    return np.asarray(array.expand_dims(lacking).transpose(*dims).values)


def _plain(value: object) -> object:
    """An HDF5 attribute as JSON can hold it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
