"""Seismic lines as labelled Datasets, from and to Zarr and SEG-Y."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from invdiff.errors import InputError, NoiseLevelError, ShapeError
from invdiff.io.line import check_places
from invdiff.io.result import open_result, write_result
from invdiff.io.segy import Traces, read_traces
from invdiff.io.segy_writer import write_traces

__all__ = [
    "read_segy",
    "read_survey",
    "survey_arrays",
    "survey_dataset",
    "write_segy",
    "write_survey",
]

Array = NDArray[Any]

_SEGY = (".segy", ".sgy")
# Dims that each variable may have.
_DIMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "source_z": (("shot",),),
    "source_x": (("shot",),),
    "receiver_z": (("receiver",), ("shot", "receiver")),
    "receiver_x": (("receiver",), ("shot", "receiver")),
    "time": (("time",),),
    "wavelet": (("time",), ("shot", "time")),
    "pressure": (("shot", "receiver", "time"),),
}
_OPTIONAL = ("wavelet", "pressure")
_UNITS = {"time": "s", **{f"{end}_{axis}": "m" for end in ("source", "receiver") for axis in "zx"}}
_LONG_NAMES = {
    "source_z": "depth of the source",
    "source_x": "distance of the source along the line",
    "receiver_z": "depth of the receiver",
    "receiver_x": "distance of the receiver along the line",
    "time": "time after the source acts",
}


def survey_dataset(
    arrays: Mapping[str, ArrayLike],
    pressure: ArrayLike | None = None,
    *,
    noise_std: float | None = None,
    units: str = "1",
) -> xr.Dataset:
    """Label the arrays of a survey, as ``Survey.to_arrays`` gives them, and its traces.

    Args:
        arrays: ``source_z``, ``source_x`` ``(shot,)``, m; ``receiver_z``, ``receiver_x``
            ``(receiver,)`` or ``(shot, receiver)``, m; ``time`` ``(time,)``, s; ``wavelet``
            ``(time,)`` or ``(shot, time)``.
        pressure: ``(shot, receiver, time)``, numpy or a torch tensor on the CPU.
        noise_std: of pressure, in its units.
        units: of pressure.

    Returns:
        ``pressure`` and ``wavelet`` with all else as coordinates; see :func:`read_survey`.

    Raises:
        InputError: arrays missing, or of other names.
        ShapeError: arrays that do not fit together.
        NoiseLevelError: a noise_std that is not positive, or without pressure.
    """
    given = {name: _native(values) for name, values in arrays.items()}
    if pressure is not None:
        given["pressure"] = _native(pressure)
    unknown = sorted(set(given) - set(_DIMS))
    if unknown:
        raise InputError(
            "unknown arrays in a survey", got=unknown, expected=f"names among {list(_DIMS)}"
        )
    variables = {}
    for name, values in given.items():
        dims = next((dims for dims in _DIMS[name] if len(dims) == values.ndim), None)
        if dims is None:
            raise ShapeError(
                f"{name} has the wrong number of axes",
                got=f"shape {values.shape}",
                expected=" or ".join(map(str, _DIMS[name])),
            )
        variables[name] = (dims, values, _attrs(name))
    _check_sizes({name: (dims, values.shape) for name, (dims, values, _) in variables.items()})
    if pressure is not None:
        variables["pressure"][2]["units"] = units
    if noise_std is not None:
        _check_noise_std(noise_std, "pressure" in given)
        variables["pressure"][2]["noise_std"] = float(noise_std)
    dataset = xr.Dataset(variables, attrs={"Conventions": "CF-1.11"})
    dataset = dataset.set_coords([name for name in _UNITS if name in variables])
    _check_labels(dataset)
    return dataset


def survey_arrays(dataset: xr.Dataset) -> dict[str, Array]:
    """Plain arrays of a labelled line, axes in order, for ``Survey.from_arrays``.

    Takes what :func:`survey_dataset` names; other variables are left alone. Receiver coordinates
    of which only one depends on the shot are broadcast.

    Raises:
        InputError: variables missing, or units other than m and s.
        ShapeError: variables of other dims.
    """
    _check_labels(dataset)
    arrays = {}
    moving = any("shot" in dataset[name].dims for name in ("receiver_z", "receiver_x"))
    for name in _DIMS:
        if name not in dataset.variables:
            continue
        array = dataset[name]
        if moving and name in ("receiver_z", "receiver_x") and "shot" not in array.dims:
            array = array.expand_dims(shot=dataset.sizes["shot"])
        order = [dim for dim in ("shot", "receiver", "time") if dim in array.dims]
        arrays[name] = _native(array.transpose(*order).values)
    return arrays


def read_survey(path: str | Path | Sequence[str | Path]) -> xr.Dataset:
    """Read a seismic line from a Zarr store or, by :func:`read_segy`, from SEG-Y.

    Args:
        path: of the store or file, or of several SEG-Y files such as one for each shot.

    Returns:
        ``pressure (shot, receiver, time)`` with coordinates ``source_z``, ``source_x`` ``(shot)``,
        ``receiver_z``, ``receiver_x`` ``(receiver)`` or, if the spread moves, ``(shot, receiver)``,
        m, z downwards, and ``time``, s; ``wavelet`` ``(time)`` or ``(shot, time)`` if known.
        ``noise_std`` is an attribute of ``pressure`` if known.

    Raises:
        InputError: no such file, another format, variables missing, units other than m and s,
            positions that coincide.
        ShapeError: variables of other dims.
        NoiseLevelError: a noise_std that is not positive.
    """
    paths = _paths(path)
    if all(one.suffix.lower() in _SEGY for one in paths):
        return read_segy(paths)
    if len(paths) > 1 or paths[0].suffix.lower() != ".zarr":
        raise _unknown_suffix(*paths)
    dataset = open_result(paths[0])
    _check_labels(dataset)
    _check_places(dataset, paths[0].name)
    if "pressure" in dataset and "noise_std" in dataset["pressure"].attrs:
        _check_noise_std(dataset["pressure"].attrs["noise_std"], True)
    return dataset


def write_survey(dataset: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a seismic line as a Zarr store or, by :func:`write_segy`, as SEG-Y; all or nothing.

    Raises:
        InputError: another suffix, variables missing, units other than m and s.
        ShapeError: variables of other dims.
        OutputExistsError: ``path`` exists and ``overwrite`` is False.
    """
    path = Path(path)
    if path.suffix.lower() in _SEGY:
        write_segy(dataset, path, overwrite=overwrite)
        return
    if path.suffix.lower() != ".zarr":
        raise _unknown_suffix(path)
    _check_labels(dataset)
    write_result(dataset, path, overwrite=overwrite)


def read_segy(
    path: str | Path | Sequence[str | Path],
    *,
    wavelet: ArrayLike | None = None,
    elevation_is_depth: bool = False,
) -> xr.Dataset:
    """Read a 2-D line of shots from one or several SEG-Y files of revision 0 or 1.

    Shots are the field records, or the energy source points where a field record has several
    sources, or the positions of the sources where these have, too. Receivers are the traces of
    each, all in the order of the files. By the standard ``source_z = SourceDepth -
    SourceSurfaceElevation`` and ``receiver_z = -ReceiverGroupElevation``, scaled by
    ElevationScalar; x and y are scaled by SourceGroupScalar; feet become m if the binary header
    says so. Integer samples become floats that hold them, times ``2^-N`` with their trace weighting
    factor. A line that is not along x is projected onto the best straight line (see
    `invdiff.io.line.on_best_line`); ``x`` is then the distance along it.

    Traces that their headers call dead (trace identification 2) are NaN. So are those that shorter
    shots lack, which are put where the fullest shot has them if the spread is fixed, otherwise at
    the end of the shot. `invdiff.invert` leaves NaN and constant traces out of the misfit.

    Args:
        path: the file, of either byte order, or several of the same sampling.
        wavelet: ``(time,)`` or ``(shot, time)``, which SEG-Y does not hold.
        elevation_is_depth: the file writes depths, downwards, into the fields of elevations, as
            JUDI and other modelling codes do; signs are then not turned.

    Returns:
        A Dataset as :func:`read_survey` describes, without ``wavelet`` unless given. ``shot`` holds
        the numbers of the shots; ``time`` starts at the recording delay. Attributes: ``shots_by``,
        the header that tells the shots apart; ``line_y``, the y of a line along x, m, or
        ``line_azimuth`` (degrees), ``off_line_max``, ``off_line_rms`` and ``offset_error`` (m) of
        one that was projected; ``dead_traces`` and ``missing_traces`` count what was read as NaN,
        if anything was. A spread that is the same for all shots is ``(receiver)``.

    Raises:
        InputError: not a SEG-Y file, or one without traces; traces that are not pressure; positions
            that are missing, coincide, are angles, or lie more than 5 % of the line's length off
            it; a shot in two files; headers that contradict each other.
        ShapeError: a wavelet that does not fit.
        DTypeError: a sample format that is not read, or integers that no float holds.
        NonFiniteError: Inf, or NaN that is followed by numbers.
        MissingDependencyError: segyio is not installed.

    Warns:
        DataWarning: traces that are dead by their headers, or missing from a shot; positions that
            were projected, with the errors that makes.

    References:
        Norris & Faichney (2002), SEG Y rev 1 Data Exchange format, SEG
    """
    paths = _paths(path)
    traces = read_traces(paths, elevation_is_depth=elevation_is_depth)
    receiver = traces.receiver
    if (receiver == receiver[0]).all():
        receiver = receiver[0]
    # Divided, not multiplied by 1e-6: 2000 us are 0.002 s and nothing else.
    samples = np.arange(traces.pressure.shape[-1])
    arrays: dict[str, ArrayLike] = {
        "source_z": traces.source[:, 0],
        "source_x": traces.source[:, 1],
        "receiver_z": receiver[..., 0],
        "receiver_x": receiver[..., 1],
        "time": samples * (traces.interval / 1e6) + traces.delay / 1e3,
    }
    if wavelet is not None:
        arrays["wavelet"] = wavelet
    dataset = survey_dataset(arrays, traces.pressure)
    names = ", ".join(one.name for one in paths)
    return dataset.assign_coords(shot=("shot", traces.record)).assign_attrs(
        source=names, **traces.notes
    )


def write_segy(dataset: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a 2-D line of shots to SEG-Y revision 1, IEEE floats, as :func:`read_segy` reads it.

    Field records are the numbers of ``shot`` if it has any, or 1, 2, ...; positions are exact to a
    micrometre where they are multiples of 0.1 mm, otherwise rounded to less than a millimetre.
    Traces of NaN alone are written as zeros whose headers call them dead. Of the attributes only
    ``line_y`` is written.

    Args:
        dataset: ``pressure`` float32 with the coordinates of :func:`read_survey`.
        path: of the file.
        overwrite: replace an existing file.

    Raises:
        InputError: variables missing, or others that SEG-Y cannot hold; times that are not
            uniform or not whole microseconds; positions beyond its integers.
        ShapeError: variables of other dims.
        DTypeError: pressure that is not float32.
        OutputExistsError: ``path`` exists and ``overwrite`` is False.
        MissingDependencyError: segyio is not installed.
    """
    arrays = survey_arrays(dataset)
    others = sorted(str(name) for name in dataset.data_vars if name not in {*_UNITS, "pressure"})
    if "pressure" not in arrays or others:
        raise InputError(
            "SEG-Y holds pressure and positions only",
            got=f"variables {sorted(map(str, dataset.data_vars))}",
            expected="pressure alone",
            hint=f"Write them elsewhere and leave them out: ds.drop_vars({others}); or write Zarr."
            if others
            else "Add the traces as 'pressure', or write Zarr.",
        )
    interval, delay = _microseconds(arrays["time"])
    pressure = arrays["pressure"]
    receiver = np.stack([arrays["receiver_z"], arrays["receiver_x"]], axis=-1)
    traces = Traces(
        pressure,
        _records(dataset),
        np.stack([arrays["source_z"], arrays["source_x"]], axis=-1),
        np.broadcast_to(receiver, (*pressure.shape[:2], 2)),
        interval,
        delay,
        float(dataset.attrs.get("line_y", 0.0)),
    )
    write_traces(traces, Path(path), overwrite=overwrite)


def _native(values: ArrayLike) -> Array:
    """An array of this machine's byte order."""
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _attrs(name: str) -> dict[str, Any]:
    long_name = {"long_name": _LONG_NAMES[name]} if name in _LONG_NAMES else {}
    return {"units": _UNITS.get(name, "1"), **long_name}


def _check_sizes(variables: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]) -> None:
    """Raise unless each dim has one length."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, (dims, shape) in variables.items():
        for dim, size in zip(dims, shape, strict=True):
            known, other = sizes.setdefault(dim, (size, name))
            if size != known:
                raise ShapeError(
                    f"{name} does not fit {other}",
                    got=f"{size} along {dim!r}",
                    expected=known,
                    hint="Data and wavelet share one time axis: resample them to the same dt."
                    if dim == "time"
                    else "",
                )


def _check_labels(dataset: xr.Dataset) -> None:
    """Raise unless the variables of a survey are there, with their dims and units."""
    missing = [name for name in _DIMS if name not in dataset.variables and name not in _OPTIONAL]
    if missing:
        raise InputError(
            "variables of a seismic line are missing",
            got=sorted(map(str, dataset.variables)),
            expected=f"also {missing}",
            hint="Assign them, such as ds.assign_coords(source_x=('shot', x)).",
        )
    for name, choices in _DIMS.items():
        if name not in dataset.variables:
            continue
        array = dataset[name]
        if set(array.dims) not in [set(dims) for dims in choices]:
            raise ShapeError(
                f"{name} has other dims",
                got=dict(zip(array.dims, array.shape, strict=True)),
                expected=" or ".join(map(str, choices)),
                hint="Rename, select or broadcast its dims; keep a single shot as an axis of"
                " length 1.",
            )
        units = array.attrs.get("units")
        if name in _UNITS and units not in (None, _UNITS[name]):
            raise InputError(
                f"{name} is not in SI units",
                got=f"units {units!r}",
                expected=repr(_UNITS[name]),
                hint="Convert the values, and then the attribute.",
            )


def _check_noise_std(noise_std: object, has_pressure: bool) -> None:
    is_number = isinstance(noise_std, int | float | np.number)
    if not has_pressure or not is_number or not 0 < float(np.asarray(noise_std)) < np.inf:
        raise NoiseLevelError(
            "noise_std is not a noise level of the traces",
            got=repr(noise_std) if has_pressure else "no pressure",
            expected="one positive number, in the units of pressure",
            hint="Leave it out if it is not known.",
        )


def _check_places(dataset: xr.Dataset, name: str) -> None:
    arrays = survey_arrays(dataset)
    n_shots, n_receivers = (dataset.sizes[dim] for dim in ("shot", "receiver"))
    if n_shots and n_receivers:  # a survey refuses empty ones
        source, receiver = (
            np.stack([arrays[f"{end}_{dim}"] for dim in "zx"], -1) for end in ("source", "receiver")
        )
        shape = (n_shots, n_receivers, 2)
        check_places(
            np.broadcast_to(source[:, None], shape), np.broadcast_to(receiver, shape), name
        )


def _paths(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """One or more paths, each once."""
    paths = [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]
    resolved = [one.resolve() for one in paths]
    twice = [one.name for i, one in enumerate(paths) if resolved[i] in resolved[:i]]
    if twice or not paths:
        raise InputError(
            "a file of the line is given twice" if twice else "no files are given",
            got=twice[0] if twice else "an empty list",
            expected="one or more files, each once",
        )
    return paths


def _unknown_suffix(*paths: Path) -> InputError:
    others = [path for path in paths if path.suffix.lower() not in _SEGY]
    return InputError(
        f"the format of survey {others[0]} is not known"
        if len(paths) == 1
        else "only SEG-Y files can be joined to a line",
        got=f"suffix {others[0].suffix!r}",
        expected=".zarr, .segy or .sgy" if len(paths) == 1 else ".segy or .sgy",
    )


def _microseconds(time: Array) -> tuple[int, int]:
    """Interval in microseconds, and delay in milliseconds, of a uniform time axis in s."""
    if len(time) < 2:
        raise ShapeError("time is not an axis", got=f"{len(time)} samples", expected="2 or more")
    interval = round(float(time[-1] - time[0]) / (len(time) - 1) * 1e6)
    delay = round(float(time[0]) * 1e3)
    # To a thousandth of a sample, or what float64 resolves.
    exact = delay / 1e3 + np.arange(len(time)) * (interval / 1e6)
    if not np.abs(time - exact).max() <= 1e-3 * interval / 1e6:
        raise InputError(
            "this time axis cannot be written to SEG-Y",
            got=f"{time[0]:g} to {time[-1]:g} s in steps of {np.diff(time).min():g} to"
            f" {np.diff(time).max():g} s",
            expected="uniform steps of whole microseconds from whole milliseconds",
            hint="Resample it, or write Zarr.",
        )
    return interval, delay


def _records(dataset: xr.Dataset) -> NDArray[np.int64]:
    """Field record numbers, one for each shot."""
    n_shots = dataset.sizes["shot"]
    if "shot" not in dataset.coords:
        return np.arange(1, n_shots + 1)
    record = dataset["shot"].values
    is_number = record.dtype.kind in "iu" and np.abs(record).max() < 2**31
    if not is_number or len(np.unique(record)) < n_shots:
        raise InputError(
            "labels of the shots are not field record numbers",
            got=f"{record[:5].tolist()} ...",
            expected="integers of 32 bits, each once",
            hint="Give others, or ds.drop_vars('shot') to have them numbered.",
        )
    return record.astype(np.int64)
