"""MR k-space from a file, checked and labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from invdiff.errors import DTypeError, InputError, NoiseLevelError, NonFiniteError, ShapeError
from invdiff.io.scan import Scan, read_hdf5, read_npz, read_zarr

__all__ = ["read_kspace"]

Array = np.ndarray[Any, np.dtype[Any]]

_HDF5 = (".h5", ".hdf5")


def read_kspace(path: str | Path, *, slice_index: int | None = None) -> xr.Dataset:
    """Read one slice or volume of Cartesian k-space, samples not acquired being zero.

    ========  ==========================================================================
    suffix    contents
    ========  ==========================================================================
    .npz      ``ksp`` or ``kspace`` ``(coil, [kz,] ky, kx)``; optional ``mask``,
              ``sensitivity`` (or ``maps``, ``sens``), ``noise_std``
    .zarr     a Dataset with ``kspace``, optional ``mask``, ``sensitivity``, ``noise_std``
    .h5       fastMRI: ``kspace (slice, coil, ky, kx)``, or ``(slice, ky, kx)`` of a single
              coil; optional ``mask`` of lines ``(kx)``; ``ismrmrd_header`` is not read
    ========  ==========================================================================

    Args:
        path: the file or store.
        slice_index: which slice of an HDF5 file; may be left out when there is but one.

    Returns:
        ``kspace (coil, [kz,] ky, kx)`` complex in the file's precision and units ("1" when it has
        none), ``mask ([kz,] ky, kx)`` bool and, if the file has it, ``sensitivity (coil, [z,] y,
        x)``. Attribute ``mask_source`` is "given" or, where the file has no mask, "nonzero samples"
        (of any coil); ``n_zero_in_mask`` counts samples of the mask that are zero in all coils,
        as zero padding is; other attributes of the file are kept. ``noise_std`` is an attribute of
        ``kspace`` if the file has it: a number, or a list of one for each coil.

    Raises:
        InputError: no such file, another format, missing or ambiguous keys, a slice that does not
            exist, a mask of other values than 0 and 1, nothing acquired, or samples that are
            not zero outside the mask.
        ShapeError: kspace, mask and sensitivity that do not fit together.
        DTypeError: kspace or sensitivity that are not complex64 or complex128.
        NonFiniteError: NaN or Inf.
        NoiseLevelError: a noise_std that is not positive.

    References:
        Zbontar et al. (2018), fastMRI: An open dataset and benchmarks for accelerated MRI,
        arXiv:1811.08839
    """
    path = Path(path)
    if path.suffix not in {".npz", ".zarr", *_HDF5}:
        raise InputError(
            f"k-space file {path} is of no known format",
            got=f"suffix {path.suffix!r}",
            expected=".npz, .zarr, .h5 or .hdf5",
        )
    if not path.exists():
        raise InputError(f"k-space file {path} does not exist", hint="Check the path.")
    if path.suffix in _HDF5:
        return _labelled(path, read_hdf5(path, slice_index))
    if slice_index is not None:
        raise InputError(
            f"{path.name} has no slices to choose from",
            got=f"slice_index={slice_index}",
            expected="None for .npz and .zarr, which hold one slice or volume",
            hint="Leave slice_index out.",
        )
    return _labelled(path, read_npz(path) if path.suffix == ".npz" else read_zarr(path))


def _labelled(path: Path, scan: Scan) -> xr.Dataset:
    kspace = _complex("kspace", scan.kspace)
    if kspace.ndim not in (3, 4):
        raise ShapeError(
            "kspace has the wrong number of axes",
            got=f"shape {kspace.shape}",
            expected="(coil, ky, kx) or (coil, kz, ky, kx)",
            hint="Give a single coil an axis of length 1.",
        )
    if kspace.size == 0:
        raise ShapeError("kspace is empty", got=f"shape {kspace.shape}", expected="lengths >= 1")
    axes = ("y", "x") if kspace.ndim == 3 else ("z", "y", "x")
    dims = tuple(f"k{axis}" for axis in axes)
    mask = _mask(kspace, scan.mask)
    variables: dict[str, tuple[tuple[str, ...], Array, dict[str, object]]] = {
        "kspace": (("coil", *dims), kspace, {"units": scan.units}),
        "mask": (dims, mask, {"units": "1"}),
    }
    if scan.sensitivity is not None:
        sensitivity = _complex("sensitivity", scan.sensitivity)
        if sensitivity.shape != kspace.shape:
            raise ShapeError(
                "sensitivity does not fit kspace",
                got=f"shape {sensitivity.shape}",
                expected=f"{kspace.shape}, that of kspace",
                hint="One map a coil, of the size of the image; or leave the maps out.",
            )
        variables["sensitivity"] = (("coil", *axes), sensitivity, {"units": "1"})
    # A mask derived once and stored with its k-space stays a derived one.
    given = scan.attrs.get("mask_source", "given")
    attrs = {
        **scan.attrs,
        "Conventions": "CF-1.11",
        "source": path.name,
        "mask_source": "nonzero samples" if scan.mask is None else given,
        "n_zero_in_mask": int((mask & (kspace == 0).all(axis=0)).sum()),
    }
    attrs.pop("noise_std", None)
    if scan.noise_std is not None:  # where reconstruct() looks for it
        variables["kspace"][2]["noise_std"] = _noise_std(scan.noise_std, len(kspace))
    return xr.Dataset(variables, {d: (d, c) for d, c in scan.coords.items()}, attrs)


def _complex(name: str, values: Array) -> Array:
    if values.dtype.kind != "c" or values.dtype.itemsize not in (8, 16):
        is_pairs = values.dtype.names is not None
        raise DTypeError(
            f"{name} is not complex",
            got=f"{values.dtype} of shape {values.shape}",
            expected="complex64 or complex128",
            hint=f"Store {name}['real'] + 1j * {name}['imag'] under the names of its two fields."
            if is_pairs
            else f"Join real and imaginary parts: {name}[..., 0] + 1j * {name}[..., 1].",
        )
    _check_finite(name, values)
    # Torch reads the byte order of the machine only; the values stay the same.
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _check_finite(name: str, values: Array) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
        raise NonFiniteError(
            f"{name} holds NaN or Inf",
            got=f"{int(bad.sum())} of {values.size} values, the first at index {first}",
            expected="finite values",
            hint="Repair them, or set them to zero and leave them out of the mask.",
        )


def _mask(kspace: Array, given: Array | None) -> Array:
    """Acquired samples, boolean ``kspace.shape[1:]``."""
    if given is None:
        mask = np.asarray((kspace != 0).any(axis=0))
    else:
        mask = _as_mask(given, kspace.shape[1:])
        n_outside = int(np.count_nonzero(kspace[:, ~mask]))
        if n_outside:
            raise InputError(
                "kspace is not zero outside the mask",
                got=f"{n_outside} nonzero samples there, over all coils",
                expected="0",
                hint="Multiply kspace by the mask to hold them out, or correct the mask.",
            )
    if not mask.any():
        raise InputError(
            "no sample was acquired",
            got="a mask or kspace of zeros only",
            expected="at least one sample",
            hint="Check that the file holds what was measured.",
        )
    return mask


def _as_mask(mask: Array, shape: tuple[int, ...]) -> Array:
    if mask.dtype.kind not in "biuf":
        raise DTypeError("the mask is not boolean", got=mask.dtype, expected="bool or 0 and 1")
    _check_finite("mask", mask)
    is_one = mask == 1
    if not (is_one | (mask == 0)).all():
        raise InputError(
            "the mask holds other values than 0 and 1",
            got=f"values from {mask.min()} to {mask.max()}",
            hint="Say which samples were acquired, such as weights > 0.",
        )
    try:
        return np.broadcast_to(is_one, shape).copy()
    except ValueError:
        raise ShapeError(
            "the mask does not fit kspace",
            got=f"shape {mask.shape}",
            expected=f"{shape}, or lines ({shape[-1]},)",
            hint="Crop, pad or transpose it as k-space was, or leave it out.",
        ) from None


def _noise_std(given: object, n_coils: int) -> float | list[float]:
    values = np.asarray(given)
    is_real = values.dtype.kind in "iuf"
    if not is_real or values.shape not in {(), (1,), (n_coils,)} or not (values > 0).all():
        raise NoiseLevelError(
            "noise_std of the file is not a noise level",
            got=repr(given),
            expected=f"one positive number, or one for each of {n_coils} coils",
            hint="Leave it out of the file to have it estimated.",
        )
    _check_finite("noise_std", values)
    return float(values.item()) if values.size == 1 else [float(std) for std in values]
