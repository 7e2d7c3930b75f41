"""The arrays of a k-space file as stored, for each format: read here, checked by read_kspace."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from invdiff.arguments import as_integer
from invdiff.errors import DataWarning, InputError, MissingDependencyError, ShapeError

__all__ = ["Scan", "read_hdf5", "read_npz", "read_zarr"]

Array = np.ndarray[Any, np.dtype[Any]]

_KSPACE = ("kspace", "ksp")
_SENSITIVITY = ("sensitivity", "maps", "sens")


@dataclass(frozen=True, eq=False)
class Scan:
    """Arrays of one slice or volume as stored, with the coil axis first, not yet checked.

    Args:
        kspace: samples ``(coil, [kz,] ky, kx)``.
        mask: acquired samples, if the file has them.
        sensitivity: maps ``(coil, [z,] y, x)``, if the file has them.
        noise_std: noise level or levels, if the file has them.
        units: of kspace.
        coords: values and attributes of the coordinates, by dim.
        attrs: attributes of the file, as JSON can hold them.
    """

    kspace: Array
    mask: Array | None = None
    sensitivity: Array | None = None
    noise_std: object = None
    units: str = "1"
    coords: Mapping[str, tuple[Array, Mapping[Any, object]]] = field(default_factory=dict)
    attrs: Mapping[str, object] = field(default_factory=dict)


def read_npz(path: Path) -> Scan:
    """Scan of an ``.npz`` file.

    Raises:
        InputError: not an .npz file, pickled objects, missing or ambiguous keys.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is not a zip archive, or it is truncated")
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            sensitivity = _find(path, names, _SENSITIVITY)
            return Scan(
                # A member that is not an array is handed over as its bytes.
                np.asarray(archive[_required(path, names)]),
                mask=np.asarray(archive["mask"]) if "mask" in names else None,
                sensitivity=np.asarray(archive[sensitivity]) if sensitivity else None,
                noise_std=archive["noise_std"] if "noise_std" in names else None,
            )
    except InputError:
        raise
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as .npz", got=error, hint="Write it with numpy.savez."
        ) from error


def read_zarr(path: Path) -> Scan:
    """Scan of a Zarr store written from a Dataset, format 2 or 3; dims are matched by name.

    A chunk that is not stored holds the fill value of its array.

    Raises:
        InputError: not a Dataset, damaged chunks, missing or ambiguous keys.
        ShapeError: dims with other names.
    """
    try:
        # xarray takes the fill value of format 2 for missing values: zeros would be read as NaN.
        with xr.open_zarr(path, chunks=None, consolidated=False, mask_and_scale=False) as dataset:
            return _scan_of(path, dataset)
    except InputError:
        raise
    except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a Dataset",
            got=error.args[0] if error.args else error,
            expected="a Zarr group of arrays with named dims",
            hint="Check the path; xarray.Dataset.to_zarr writes such groups.",
        ) from error


def _scan_of(path: Path, dataset: xr.Dataset) -> Scan:
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
        coords={dim: (dataset[dim].values, _described(dataset[dim].attrs)) for dim in labelled},
        attrs=attrs,
    )


def _described(attrs: Mapping[Any, object]) -> dict[Any, object]:
    """Attributes that are not about how the values are stored."""
    return {name: value for name, value in attrs.items() if name != "_FillValue"}


def read_hdf5(path: Path, slice_index: int | None) -> Scan:
    """Scan of one slice of a fastMRI HDF5 file; the other slices are not read.

    Raises:
        InputError: not HDF5, damaged or missing parts, missing keys, a slice that is not given or
            does not exist.
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
        with h5py.File(path, "r") as file:
            return _slice_of(path, file, slice_index)
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as HDF5",
            got=error,
            hint="Check that it was copied completely; h5dump reads every part of it.",
        ) from error


def _slice_of(path: Path, file: Any, slice_index: int | None) -> Scan:
    names = list(file)
    stored = _dataset(path, file, _required(path, names))
    if len(stored.shape) not in (3, 4) or 0 in stored.shape:
        raise ShapeError(
            "kspace is empty" if 0 in stored.shape else "kspace has the wrong number of axes",
            got=f"shape {stored.shape}",
            expected="(slice, coil, ky, kx), or (slice, ky, kx) of a single coil",
            hint="Give a single slice or coil an axis of length 1.",
        )
    index = _slice_number(path, len(stored), slice_index)
    found = _find(path, names, _SENSITIVITY)
    maps = _dataset(path, file, found) if found else None
    if maps is not None and maps.shape != stored.shape:
        raise ShapeError(
            "sensitivity does not fit kspace",
            got=f"shape {maps.shape}",
            expected=f"{stored.shape}, the shape of kspace with all its slices",
            hint="Give one map per coil and slice, of the size of the image.",
        )
    coil = (None,) if len(stored.shape) == 3 else ()  # a single coil gets its axis
    attrs = _attributes(path, file)
    noise_std = attrs.get("noise_std")
    if "noise_std" in names:
        noise_std = _dataset(path, file, "noise_std")[()]
    return Scan(
        np.asarray(stored[index])[coil],
        mask=np.asarray(_dataset(path, file, "mask")[()]) if "mask" in names else None,
        sensitivity=None if maps is None else np.asarray(maps[index])[coil],
        noise_std=noise_std,
        attrs=attrs,
    )


def _dataset(path: Path, file: Any, name: str) -> Any:
    """A dataset of an HDF5 file that holds values."""
    import h5py

    stored = file.get(name)  # None for a link whose target is missing
    if not isinstance(stored, h5py.Dataset) or stored.shape is None:
        if stored is None:
            got = "a link to something that does not exist"
        else:
            got = "an empty dataset" if isinstance(stored, h5py.Dataset) else "a group"
        raise InputError(
            f"{name!r} of {path.name} does not hold an array",
            got=got,
            expected="a dataset",
            hint="Store the values under this name at the top of the file.",
        )
    missing = _missing_sources(path, stored) if stored.is_virtual else []
    if missing:  # HDF5 itself would return fill values in their place
        raise InputError(
            f"{name!r} of {path.name} is virtual and its parts are missing",
            got=f"no files {missing}",
            expected=f"files in {path.parent}",
            hint="Copy them there, or store the values in one file.",
        )
    return stored


def _missing_sources(path: Path, stored: Any) -> list[str]:
    names = {source.file_name for source in stored.virtual_sources()} - {"."}
    folders = (path.parent, Path())
    return sorted(n for n in names if not any((folder / n).exists() for folder in folders))


def _slice_number(path: Path, n_slices: int, index: int | None) -> int:
    number = None if index is None else as_integer("slice_index", index)
    if number is None and n_slices == 1:
        return 0
    if number is None or not 0 <= number < n_slices:
        raise InputError(
            f"{path.name} holds {n_slices} slices",
            got="no slice_index" if number is None else f"slice_index={number}",
            expected=f"slice_index from 0 to {n_slices - 1}",
            hint=f"Choose one; {n_slices // 2} is the middle.",
        )
    return number


def _find(path: Path, names: Collection[str], wanted: tuple[str, ...]) -> str | None:
    """The one of several names that the file uses, if any."""
    found = [name for name in wanted if name in names]
    if len(found) > 1:
        raise InputError(
            f"{path} is ambiguous",
            got=f"keys {found}",
            expected="one of them",
            hint="Remove or rename the others.",
        )
    return found[0] if found else None


def _required(path: Path, names: Collection[str]) -> str:
    name = _find(path, names, _KSPACE)
    if name is None:
        raise InputError(
            f"{path} does not hold k-space",
            got=f"keys {sorted(names)}",
            expected="'kspace' (or 'ksp')",
            hint="Rename the array that holds the complex samples. Raw ISMRMRD acquisitions have "
            "to be sorted onto the k-space grid first.",
        )
    return name


def _ordered(array: xr.DataArray, dims: tuple[str, ...], may_lack: tuple[str, ...] = ()) -> Array:
    """Values with axes in this order, of length 1 for the dims that it may lack."""
    packed = {"scale_factor", "add_offset"} & set(array.attrs)
    if packed:
        raise InputError(
            f"{array.name} is packed",
            got=f"attributes {sorted(packed)}",
            expected="values as measured",
            hint="Store it without scale_factor and add_offset.",
        )
    lacking = [dim for dim in may_lack if dim not in array.dims]
    if {*array.dims, *lacking} != set(dims):
        raise ShapeError(
            f"{array.name} has other dims",
            got=dict(zip(array.dims, array.shape, strict=True)),
            expected=dims,
            hint="Rename, select or drop its dims.",
        )
    return np.asarray(array.expand_dims(lacking).transpose(*dims).values)


def _attributes(path: Path, file: Any) -> dict[str, object]:
    """Attributes of an HDF5 file as JSON can hold them."""
    attrs, unreadable = {}, []
    for name in file.attrs:
        try:
            attrs[name] = _plain(file.attrs[name])
        except (OSError, KeyError, RuntimeError, TypeError, ValueError):  # a type numpy lacks
            unreadable.append(name)
    if unreadable:
        warnings.warn(
            f"attributes {unreadable} of {path.name} have types that cannot be read; "
            "they are left out.",
            DataWarning,
            stacklevel=6,
        )
    return attrs


def _plain(value: object) -> object:
    """An HDF5 attribute as JSON can hold it: numbers, text and lists of them; None if empty.

    Other values, such as references and complex numbers, become their text.
    """
    import h5py

    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):  # h5py escapes the bytes that are not UTF-8
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return value if isinstance(value, bool | int | float) else str(value)
