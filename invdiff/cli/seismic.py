"""What ``invdiff invert`` reads: a line with its wavelet, and a starting model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from invdiff.errors import InputError
from invdiff.fwi import amplitude_weights, near_offset_mute
from invdiff.grid import Grid
from invdiff.io import open_result, read_segy, read_survey, survey_arrays
from invdiff.operators.seismic import Acoustic, Boundary, Devito, Survey, Threads, ricker

__all__ = ["acoustic", "peak_frequency", "read_line", "read_start", "traces", "weights"]

_UNITS = {"z": ("m",), "x": ("m",), "velocity": ("m s-1", "m/s", "m s^-1")}


def read_line(
    path: Path, frequency: float | None, *, elevation_is_depth: bool
) -> tuple[xr.Dataset, Survey]:
    """Traces ``pressure (shot, receiver, time)``, and the survey that recorded them.

    Args:
        path: Zarr store or SEG-Y file.
        frequency: of a Ricker wavelet for a file that has none, Hz.
        elevation_is_depth: of SEG-Y: elevations count downwards.

    Raises:
        InputError: no traces, no wavelet or two, and as :func:`invdiff.io.read_survey`.
        ShapeError: arrays that do not fit together.
    """
    line = read_segy(path, elevation_is_depth=True) if elevation_is_depth else read_survey(path)
    if "pressure" not in line:
        raise InputError(
            f"{path.name} holds no traces",
            got=sorted(map(str, line.variables)),
            expected="also 'pressure', (shot, receiver, time)",
        )
    line = line.transpose("shot", "receiver", "time", ...)
    arrays = survey_arrays(line)
    if frequency is not None:
        if "wavelet" in arrays:
            raise InputError(
                "the survey has a wavelet already",
                got=f"--ricker {frequency:g}, and 'wavelet' in {path.name}",
                expected="one of them",
                hint="Leave out --ricker.",
            )
        time = arrays["time"]
        dt = float(time[-1] - time[0]) / max(len(time) - 1, 1)
        arrays["wavelet"] = ricker(frequency, dt, len(time))
    elif "wavelet" not in arrays:
        raise InputError(
            "the survey has no wavelet",
            got=f"variables {sorted(arrays)} of {path.name}",
            expected="also 'wavelet', (time,) or (shot, time)",
            hint="Give --ricker FREQUENCY, or store an estimated wavelet in Zarr.",
        )
    return line, Survey.from_arrays(arrays)


def read_start(path: Path) -> xr.DataArray:
    """The starting model ``(z, x)`` of a Zarr store, m/s, float32: ``velocity``, or the only one.

    Raises:
        InputError: no store, no model or several, or units other than m and m/s.
    """
    dataset = open_result(path)
    models = [str(name) for name, v in dataset.data_vars.items() if {*v.dims} == {"z", "x"}]
    name = "velocity" if "velocity" in models else models[0] if len(models) == 1 else None
    if name is None:
        raise InputError(
            f"{path.name} holds no single starting model",
            got={str(key): v.dims for key, v in dataset.data_vars.items()},
            expected="a variable 'velocity' (z, x), or one variable of these dims",
            hint="Choose one: ds['mean'].to_dataset(name='velocity').to_zarr(...).",
        )
    model = dataset[name]
    missing = [dim for dim in ("z", "x") if dim not in model.coords]
    if missing:
        raise InputError(
            "the starting model has no depth and distance",
            got=f"no coordinate {missing}",
            expected="coordinates 'z' and 'x' in m",
            hint="Assign them, such as ds.assign_coords(z=10.0 * np.arange(nz)).",
        )
    for what, units in _UNITS.items():
        found = (model if what == "velocity" else model[what]).attrs.get("units", units[0])
        if found not in units:
            raise InputError(
                f"{what} of the starting model is not in SI units",
                got=f"units {found!r}",
                expected=repr(units[0]),
                hint="Convert the values, and then the attribute.",
            )
    return model.transpose("z", "x").astype(np.float32).load()


def acoustic(
    survey: Survey,
    start: xr.DataArray,
    *,
    bounds: tuple[float, float],
    boundary: Boundary,
    n_threads: int,
) -> Acoustic:
    """Waves of a survey on the grid of its starting model."""
    engine = Devito(workers=Threads(n_threads))
    domain = Grid.from_dataarray(start)
    return Acoustic(survey, domain, bounds=bounds, boundary=boundary, engine=engine)


def traces(line: xr.Dataset, operator: Acoustic) -> xr.DataArray:
    """On the operator's labels: times of a file may differ from them in the last bit."""
    pressure = line["pressure"]
    values = torch.from_numpy(np.array(pressure.values))
    return operator.range.to_dataarray(values, "pressure", attrs=pressure.attrs)


def weights(
    line: xr.Dataset, y: xr.DataArray, noise_std: float, *, mute: float, relative_error: float
) -> xr.DataArray:
    """Of the traces: without near offsets, and for errors of modelling."""
    by_amplitude = amplitude_weights(y, noise_std, relative=relative_error)
    return near_offset_mute(line, mute) * by_amplitude


def peak_frequency(survey: Survey) -> float:
    """Where the mean spectrum of the wavelets is highest, Hz."""
    spectrum = np.abs(np.fft.rfft(np.atleast_2d(survey.wavelet), axis=1)).mean(0)
    return float(np.fft.rfftfreq(survey.n_samples, survey.dt)[spectrum.argmax()])
