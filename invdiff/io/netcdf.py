"""Complex variables for netCDF, which has no complex type."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.errors import InputError

__all__ = ["from_netcdf_safe", "to_netcdf_safe"]

_PART = "complex_part"


def to_netcdf_safe(dataset: xr.Dataset) -> xr.Dataset:
    """Split each complex variable ``v`` into ``v_real`` and ``v_imag``.

    Raises:
        InputError: the dataset has a variable of such a name already.
    """
    parts: dict[str, xr.DataArray] = {}
    split = [str(name) for name, array in dataset.data_vars.items() if array.dtype.kind == "c"]
    for name in split:
        array = dataset[name]
        for part, values in (("real", array.real), ("imag", array.imag)):
            if f"{name}_{part}" in dataset.variables:
                raise InputError(
                    f"cannot split complex variable {name!r}",
                    got=f"another variable {name}_{part}",
                    hint="Rename one of them.",
                )
            parts[f"{name}_{part}"] = values.assign_attrs({**array.attrs, _PART: part})
    return dataset.drop_vars(split).assign(parts)


def from_netcdf_safe(dataset: xr.Dataset) -> xr.Dataset:
    """Inverse of :func:`to_netcdf_safe`: join ``v_real`` and ``v_imag`` into complex ``v``.

    Raises:
        InputError: one part without the other.
    """
    joined: dict[str, xr.DataArray] = {}
    parts = [str(name) for name, array in dataset.data_vars.items() if _PART in array.attrs]
    for name in sorted({part.rpartition("_")[0] for part in parts}):
        pair = [f"{name}_real", f"{name}_imag"]
        if not set(pair) <= set(parts):
            raise InputError(
                f"complex variable {name!r} is not whole",
                got=sorted(set(pair) & set(parts)),
                expected=pair,
            )
        real, imag = (dataset[part] for part in pair)
        attrs = {key: value for key, value in real.attrs.items() if key != _PART}
        joined[name] = real.copy(data=_join(real.values, imag.transpose(*real.dims).values))
        joined[name].attrs = attrs
    return dataset.drop_vars(parts).assign(joined)


def _join(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    # Part by part: real + 1j * imag turns an infinite part into NaN.
    whole = np.empty(real.shape, np.result_type(real.dtype.newbyteorder("="), np.complex64))
    whole.real, whole.imag = real, imag
    return whole
