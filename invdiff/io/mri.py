"""MR k-space from a file, checked and labelled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from invdiff.errors import InputError
from invdiff.io.scan import Scan, read_hdf5, read_npz, read_zarr
from invdiff.kspace import Acquisition, check_acquisition, native

__all__ = ["read_kspace"]

Array = np.ndarray[Any, np.dtype[Any]]

_SUFFIXES = (".npz", ".zarr", ".h5", ".hdf5")


def read_kspace(path: str | Path, *, slice_index: int | None = None) -> xr.Dataset:
    """Read one slice or volume of Cartesian k-space; samples that were not acquired are zero.

    ============  ======================================================================
    suffix        contents
    ============  ======================================================================
    .npz          ``ksp`` or ``kspace`` ``(coil, [kz,] ky, kx)``; optional ``mask``,
                  ``sensitivity`` (or ``maps``, ``sens``), ``noise_std``
    .zarr         a Dataset with ``kspace``, optional ``mask``, ``sensitivity``,
                  ``noise_std``; its dims are matched by name
    .h5, .hdf5    fastMRI: ``kspace (slice, coil, ky, kx)``, or ``(slice, ky, kx)`` of a
                  single coil; optional ``mask`` of lines ``(kx)``; ``ismrmrd_header`` is
                  not read
    ============  ======================================================================

    The case of the suffix does not matter.

    Args:
        path: the file or store.
        slice_index: which slice of an HDF5 file, an integer from 0; it may be left out when there
            is only one.

    Returns:
        A Dataset of ``kspace (coil, [kz,] ky, kx)``, complex in the file's precision and units
        ("1" when it has none), ``mask ([kz,] ky, kx)`` bool and, if the file has it,
        ``sensitivity (coil, [z,] y, x)``, all in the byte order of the machine. Coordinates of a
        Zarr store are kept with their attributes, as are the attributes of the file. Added
        attributes: ``mask_source`` is "given" or, where the file has no mask, "nonzero samples"
        (of any coil); ``n_zero_in_mask`` counts samples of the given mask that are exactly zero in
        all coils, as zero padding is, and were taken out of it. If the file has ``noise_std``, it
        is an attribute of ``kspace``: a number, or a list of one number per coil.

    Raises:
        InputError: a file that does not exist or cannot be read, another format, missing or
            ambiguous keys, a slice that does not exist, a mask with values other than 0 and 1, no
            sample that is not zero, or samples that are not zero outside the mask.
        ShapeError: kspace, mask, sensitivity and noise_std that do not fit together.
        DTypeError: kspace or sensitivity that are not complex64 or complex128.
        NonFiniteError: NaN or Inf; the message gives the first index.
        NoiseLevelError: a noise_std that is not positive.

    Warns:
        DataWarning: samples that were taken out of the mask, or attributes that cannot be read.

    References:
        Zbontar et al. (2018), fastMRI: An open dataset and benchmarks for accelerated MRI,
        arXiv:1811.08839

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> kspace = np.ones((4, 8, 6), np.complex64)
        >>> kspace[:, :, 5] = 0  # a padded column
        >>> with TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/scan.npz", kspace=kspace, noise_std=0.1)
        ...     scan = read_kspace(f"{folder}/scan.npz")
        >>> dict(scan.sizes)
        {'coil': 4, 'ky': 8, 'kx': 6}
        >>> int(scan.mask.sum()), scan.attrs["mask_source"], scan.kspace.attrs["noise_std"]
        (40, 'nonzero samples', 0.1)
    """
    scan = _stored(path, slice_index)
    acquisition = check_acquisition(
        scan.kspace, mask=scan.mask, sensitivity=scan.sensitivity, noise_std=scan.noise_std
    )
    return _labelled(Path(path).name, scan, acquisition)


def _stored(path: str | Path, slice_index: int | None) -> Scan:
    """The arrays of a file by its suffix."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            "the path of the k-space file is not a path",
            got=type(path).__name__,
            expected="a string or a pathlib.Path",
        )
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{path} does not have the suffix of a k-space file",
            got=f"suffix {path.suffix!r}",
            expected=".npz, .zarr, .h5 or .hdf5",
            hint="Convert it to one of these formats, or rename it if it is one of them.",
        )
    if not path.exists():
        raise InputError(f"k-space file {path} does not exist", hint="Check the path.")
    if suffix in (".h5", ".hdf5"):
        return read_hdf5(path, slice_index)
    if slice_index is not None:
        raise InputError(
            f"{path.name} has no slices to choose from",
            got=f"slice_index={slice_index!r}",
            expected="no slice_index: .npz and .zarr hold one slice or volume",
            hint="Leave it out.",
        )
    return read_npz(path) if suffix == ".npz" else read_zarr(path)


def _labelled(source: str, scan: Scan, acquisition: Acquisition) -> xr.Dataset:
    axes = ("y", "x") if acquisition.mask.ndim == 2 else ("z", "y", "x")
    dims = tuple(f"k{axis}" for axis in axes)
    kspace_attrs: dict[str, object] = {"units": scan.units}
    if acquisition.noise_std is not None:  # where cartesian_problem() and reconstruct() look for it
        kspace_attrs["noise_std"] = acquisition.noise_std.tolist()
    variables: dict[str, tuple[tuple[str, ...], Array, dict[str, object]]] = {
        "kspace": (("coil", *dims), acquisition.kspace, kspace_attrs),
        "mask": (dims, acquisition.mask, {"units": "1"}),
    }
    if acquisition.sensitivity is not None:
        variables["sensitivity"] = (("coil", *axes), acquisition.sensitivity, {"units": "1"})
    # A scan that was read, stored and read again keeps what the first reading found.
    attrs = {
        **scan.attrs,
        "Conventions": "CF-1.11",
        "source": source,
        "mask_source": "nonzero samples"
        if scan.mask is None
        else scan.attrs.get("mask_source", "given"),
        "n_zero_in_mask": acquisition.n_zero_in_mask + _count(scan.attrs.get("n_zero_in_mask")),
    }
    attrs.pop("noise_std", None)
    coords = {
        dim: (dim, native(values), dict(coord_attrs))
        for dim, (values, coord_attrs) in scan.coords.items()
    }
    return xr.Dataset(variables, coords, attrs)


def _count(stored: object) -> int:
    return stored if isinstance(stored, int) and stored > 0 else 0
