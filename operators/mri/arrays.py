"""Arrays of a scan from a Dataset or any mapping, by duck typing and without xarray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.kspace import native

__all__ = ["attributes", "coordinates", "n_zero_before", "scan_arrays"]

Array = np.ndarray[Any, np.dtype[Any]]

_DIMS = {
    "kspace": ("coil", "kz", "ky", "kx"),
    "mask": ("kz", "ky", "kx"),
    "sensitivity": ("coil", "z", "y", "x"),
    "noise_std": ("coil",),
}


def scan_arrays(
    arrays: Mapping[str, Any], noise_std: object = None
) -> tuple[Array, Array, Array | None, Array | None]:
    """``kspace``, ``mask``, ``sensitivity`` and ``noise_std`` as NumPy arrays, not yet checked.

    Args:
        arrays: a Dataset, or a mapping of tensors (on any device), NumPy arrays or DataArrays.
        noise_std: by default the attribute ``noise_std`` of kspace, then ``arrays["noise_std"]``.

    Raises:
        InputError: not a mapping, or one without kspace or mask.
        ShapeError: named dims other than those of a scan.
        DTypeError: what NumPy cannot read as one array.
    """
    if not isinstance(arrays, Mapping) or not {"kspace", "mask"} <= set(arrays):
        raise InputError(
            "arrays of the scan are missing",
            got=sorted(map(str, arrays)) if isinstance(arrays, Mapping) else type(arrays).__name__,
            expected="a Dataset or a mapping with 'kspace' and 'mask'",
            hint="Read the file with invdiff.read_kspace, or give mask = (kspace != 0).any(0).",
        )
    if noise_std is None:
        noise_std = attributes(arrays["kspace"]).get("noise_std", arrays.get("noise_std"))
    maps = arrays.get("sensitivity")
    return (
        _values("kspace", arrays["kspace"]),
        _values("mask", arrays["mask"]),
        None if maps is None else _values("sensitivity", maps),
        None if noise_std is None else _values("noise_std", noise_std),
    )


def attributes(array: object) -> Mapping[str, Any]:
    """Attributes of a Dataset or DataArray; other objects have none."""
    attrs: Mapping[str, Any] = getattr(array, "attrs", {})
    return attrs


def n_zero_before(arrays: object) -> int:
    """How many samples the reader of a Dataset took out of its mask."""
    stored = attributes(arrays).get("n_zero_in_mask")
    return stored if isinstance(stored, int) and stored > 0 else 0


def coordinates(
    arrays: Mapping[str, Any], dims: tuple[str, ...], shape: tuple[int, ...]
) -> dict[str, Array]:
    """Numeric coordinates of the image, from the Dataset or from the maps in a mapping."""
    found: dict[str, Array] = {}
    for source in (arrays, arrays.get("sensitivity")):
        labels = getattr(source, "coords", {})
        for dim, n in zip(dims, shape, strict=True):
            if dim in labels and dim not in found:
                values = native(np.asarray(labels[dim]))
                if values.shape == (n,) and values.dtype.kind in "iuf":
                    found[dim] = values
    return found


def _values(name: str, array: Any) -> Array:
    """Values of an array; those with named dims are put in the order of a scan."""
    if isinstance(array, Tensor):
        array = array.detach().cpu().resolve_conj().resolve_neg()
    if hasattr(array, "dims"):
        return _ordered(name, array)
    try:
        return np.asarray(array)
    except (TypeError, ValueError) as error:
        raise DTypeError(
            f"{name} cannot be read as an array of numbers",
            got=error,
            expected="a tensor, a NumPy array or a DataArray",
            hint="Give rows of equal length and one dtype.",
        ) from error


def _ordered(name: str, array: Any) -> Array:
    present = [dim for dim in _DIMS[name] if dim in array.dims]
    if set(array.dims) != set(present):
        raise ShapeError(
            f"{name} has other dims than a scan",
            got=dict(zip(array.dims, array.shape, strict=True)),
            expected=_DIMS[name],
            hint="Rename, select or drop its dims.",
        )
    values = np.asarray(array.transpose(*present))
    if name == "mask" and present:  # lines along one axis are the same along the others
        axes = _DIMS[name][_DIMS[name].index(present[0]) :]
        values = values.reshape([array.sizes[dim] if dim in present else 1 for dim in axes])
    return values
