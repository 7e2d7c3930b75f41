"""Starting models of an inversion from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from invdiff.errors import InputError
from invdiff.io.result import open_result

__all__ = ["read_velocity"]

_UNITS = {
    "z": ("m", "meter", "metre", "meters", "metres"),
    "velocity": ("m s-1", "m/s", "m s^-1", "m s**-1", "meter/second"),
}
_UNITS["x"] = _UNITS["z"]


def read_velocity(path: str | Path) -> xr.DataArray:
    """Read a velocity model ``(z, x)``, such as the start of an inversion, in single precision.

    The file is a Zarr store or netCDF with a variable ``velocity`` of dims ``z`` (depth, downwards)
    and ``x`` (distance along the line), in any order, in m/s, and with their coordinates ``z`` and
    ``x``, evenly spaced, in m, of the same origin as the positions of the survey. Attributes
    ``units``, where there are any, must say so. Another name is taken if no other variable has
    these dims.

    Args:
        path: of the store or file.

    Returns:
        The model, float32.

    Raises:
        InputError: no such file, no model or several, no coordinates, units other than m and m/s.

    A store of arrays ``v``, ``z`` and ``x`` is made by
    ``xr.Dataset({"velocity": (("z", "x"), v)}, {"z": z, "x": x}).to_zarr("smooth.zarr")``.
    """
    dataset, name = open_result(path), Path(path).name
    models = [str(key) for key, v in dataset.data_vars.items() if {*v.dims} == {"z", "x"}]
    chosen = "velocity" if "velocity" in models else models[0] if len(models) == 1 else None
    if chosen is None:
        raise InputError(
            f"{name} does not hold a single velocity model",
            got={str(key): v.dims for key, v in dataset.data_vars.items()},
            expected="a variable 'velocity' (z, x), or one variable of these dims",
            hint="Choose one: ds['mean'].to_dataset(name='velocity').to_zarr(...).",
        )
    model = dataset[chosen]
    missing = [dim for dim in ("z", "x") if dim not in model.coords]
    if missing:
        raise InputError(
            f"the velocity model of {name} has no depth and distance",
            got=f"no coordinate {missing}",
            expected="coordinates 'z' and 'x' in m",
            hint="Assign them, such as ds.assign_coords(z=10.0 * np.arange(nz)).",
        )
    for what, units in _UNITS.items():
        found = (model if what == "velocity" else model[what]).attrs.get("units", units[0])
        if found not in units:
            raise InputError(
                f"{what} of {name} is not in SI units",
                got=f"units {found!r}",
                expected=repr(units[0]),
                hint="Convert the values, and then the attribute.",
            )
    return model.transpose("z", "x").astype(np.float32).load()
