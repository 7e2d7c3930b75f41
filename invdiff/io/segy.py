"""Reading SEG-Y: the traces of a file and their headers, grouped by shot."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import (
    DataWarning,
    DTypeError,
    InputError,
    MissingDependencyError,
    NonFiniteError,
)

__all__ = ["DEAD", "Traces", "load_segyio", "read_traces"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOOT = 0.3048  # m
DEAD = 2
"""Trace identification of a dead trace."""

_PRESSURE = (0, 1, DEAD, 11)  # unknown, seismic, dead, pressure
_HEADER_BYTES, _FORMAT_AT = 3600, 3224


@dataclass(frozen=True, eq=False)
class Traces:
    """Arrays of a line of shots, in m and s; depths downwards from the datum.

    Args:
        pressure: ``(n_shots, n_receivers, n_samples)``; NaN where nothing was recorded.
        record: field record number of each shot, ``(n_shots,)``.
        source: ``(n_shots, 2)``, positions ``(z, x)``.
        receiver: ``(n_shots, n_receivers, 2)``.
        interval: between samples, microseconds.
        delay: time of the first sample, milliseconds.
        y: of all positions, m.
        n_dead: traces that the file calls dead.
        n_missing: traces that the file lacks, where shots have unequal numbers of receivers.
    """

    pressure: NDArray[np.floating[Any]]
    record: Ints
    source: Floats
    receiver: Floats
    interval: int
    delay: int = 0
    y: float = 0.0
    n_dead: int = 0
    n_missing: int = 0


@dataclass(frozen=True, eq=False)
class _Headers:
    """Columns of the trace headers, read when asked for, and the binary header."""

    path: Path
    file: Any
    names: ModuleType
    cache: dict[str, Ints] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Ints:
        if name not in self.cache:
            column = self.file.attributes(getattr(self.names.TraceField, name))[:]
            self.cache[name] = np.asarray(column, np.int64)
        return self.cache[name]

    def binary(self, name: str) -> int:
        return int(self.file.bin[getattr(self.names.BinField, name)])

    def common(self, name: str, what: str) -> int:
        """The value that all traces share."""
        values = np.unique(self[name])
        if len(values) > 1:
            raise InputError(
                f"traces of {self.path.name} differ in their {what}",
                got=f"{name} {_some(values)}",
                expected="one value",
                hint="Bring them to one, or split the file.",
            )
        return int(values[0])

    def lengths(self, name: str, scalar: str) -> Floats:
        """Scaled lengths, m."""
        scale = self[scalar]
        divisor, factor = np.where(scale < 0, -scale, 1), np.where(scale > 0, scale, 1)
        # Divided by the integer, so that 92437 with scalar -1000 is 92.437 and nothing else.
        values = self[name] * factor / divisor
        return values * _FOOT if self.binary("MeasurementSystem") == 2 else values


def read_traces(path: Path, *, elevation_is_depth: bool = False) -> Traces:
    """Traces of a SEG-Y file, in its order: shots as they appear, receivers as they lie in each.

    Args:
        path: a file of revision 0 or 1, of either byte order.
        elevation_is_depth: elevations count downwards.

    Raises:
        InputError, DTypeError, NonFiniteError: see :func:`invdiff.io.read_segy`.
        MissingDependencyError: segyio is not installed.

    Warns:
        DataWarning: traces that are dead, or missing from a shot.
    """
    segyio = load_segyio()
    with _opened(path, segyio) as file:
        if file.dtype.kind != "f":
            raise DTypeError(
                f"samples of {path.name} are not floating-point numbers",
                got=f"format {int(file.format)}, {file.dtype}",
                expected="IBM or IEEE floats (formats 1, 5)",
                hint="Convert the file, minding its trace weighting factors.",
            )
        headers = _Headers(path, file, segyio)
        _check_traces(headers)
        y = _line(headers)
        # By the standard elevations count upwards, and the source lies its depth below its own.
        down = 1 if elevation_is_depth else -1
        source_z = headers.lengths("SourceDepth", "ElevationScalar") + down * headers.lengths(
            "SourceSurfaceElevation", "ElevationScalar"
        )
        receiver_z = down * headers.lengths("ReceiverGroupElevation", "ElevationScalar")
        source_x, receiver_x = (
            headers.lengths(name, "SourceGroupScalar") for name in ("SourceX", "GroupX")
        )
        source = np.stack([source_z, source_x], axis=-1) + 0.0  # no negative zeros
        receiver = np.stack([receiver_z, receiver_x], axis=-1) + 0.0
        order, record = _by_shot(headers["FieldRecord"], receiver)
        first = np.array([row[row >= 0][0] for row in order])
        is_missing = order < 0
        _check_one_source(headers, record, np.where(is_missing, first[:, None], order), source)
        samples, is_dead = _samples(headers), headers["TraceIdentificationCode"] == DEAD
        samples[is_dead] = np.nan
        pressure = np.where(is_missing[..., None], np.nan, samples[order]).astype(samples.dtype)
        traces = Traces(
            pressure,
            record,
            source[first],
            _positions(order, receiver),
            _interval(headers),
            _delay(headers),
            y,
            int(is_dead.sum()),
            int(is_missing.sum()),
        )
    _warn_of_dead(path.name, traces)
    return traces


def load_segyio() -> ModuleType:
    """The library segyio.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import segyio
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "SEG-Y files need segyio", hint="Install it with pip install 'invdiff[seismic]'."
        ) from error
    module: ModuleType = segyio
    return module


def _opened(path: Path, segyio: ModuleType) -> Any:
    """The file, of the byte order that makes sense of its sample format."""
    if not path.is_file():
        raise InputError(
            f"SEG-Y file {path} does not exist",
            got="a folder" if path.is_dir() else "no such file",
            expected="a file",
            hint="Check the path; Zarr stores are folders, read by read_survey.",
        )
    n_bytes = path.stat().st_size
    if n_bytes <= _HEADER_BYTES:
        raise InputError(
            f"{path.name} holds no traces",
            got=f"{n_bytes} bytes",
            expected=f"file headers of {_HEADER_BYTES} bytes, and traces",
            hint="Was it copied or written to the end?",
        )
    with path.open("rb") as raw:
        raw.seek(_FORMAT_AT)
        code = raw.read(2)
    is_little = int.from_bytes(code, "big") > 255 and 0 < int.from_bytes(code, "little") < 256
    try:
        return segyio.open(path, ignore_geometry=True, endian="little" if is_little else "big")
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} cannot be read as SEG-Y",
            got=error,
            expected="a file whose traces are of equal length",
            hint="Was it copied to the end? Some programs write headers that segyio refuses.",
        ) from error


def _samples(headers: _Headers) -> NDArray[np.floating[Any]]:
    """All traces, NaN at their ends where the file has them; dead traces are not looked at."""
    samples: NDArray[np.floating[Any]] = headers.file.trace.raw[:]
    is_number = ~np.isnan(samples)
    length = is_number.sum(-1, keepdims=True)
    is_padded = (is_number == (np.arange(samples.shape[-1]) < length)).all(-1)
    is_usable = is_padded & ~np.isinf(samples).any(-1)
    is_usable |= headers["TraceIdentificationCode"] == DEAD
    if not is_usable.all():
        raise NonFiniteError(
            f"traces of {headers.path.name} hold Inf, or numbers after a NaN",
            got=f"{int((~is_usable).sum())} of {len(samples)} traces, the first number"
            f" {int(is_usable.argmin()) + 1}",
            expected="finite values; NaN at the end of a trace only, or in all of it",
            hint="Repair them, or check that the format in the binary header is the true one.",
        )
    return samples


def _warn_of_dead(name: str, traces: Traces) -> None:
    parts = []
    if traces.n_dead:
        parts.append(f"{traces.n_dead} traces of {name} are dead by their headers")
    if traces.n_missing:
        parts.append(
            f"shots of {name} have unequal numbers of receivers, and {traces.n_missing} traces are"
            " missing"
        )
    if parts:
        warnings.warn(f"{'; '.join(parts)}: they are read as NaN.", DataWarning, stacklevel=4)


def _check_traces(headers: _Headers) -> None:
    """Raise unless all traces are pressure, and their positions lengths."""
    name = headers.path.name
    kind = headers["TraceIdentificationCode"]
    other = ~np.isin(kind, _PRESSURE)
    if other.any():
        raise InputError(
            f"{int(other.sum())} of {len(kind)} traces of {name} are not pressure",
            got=f"trace identification {_some(np.unique(kind[other]))}",
            expected=f"{_PRESSURE}",
            hint="Take auxiliary traces and those of other components out of the file.",
        )
    if headers.common("CoordinateUnits", "units of positions") not in (0, 1):
        raise InputError(
            f"positions of {name} are angles",
            got=f"CoordinateUnits {headers['CoordinateUnits'][0]}",
            expected="1, lengths",
            hint="Project them onto a plane first.",
        )
    if headers.binary("MeasurementSystem") not in (0, 1, 2):
        raise InputError(
            f"{name} measures in unknown units",
            got=f"MeasurementSystem {headers.binary('MeasurementSystem')}",
            expected="1 (m) or 2 (feet), or 0 (unsaid: m)",
        )
    n_samples = headers.common("TRACE_SAMPLE_COUNT", "number of samples")
    if n_samples not in (0, len(headers.file.samples)):
        raise InputError(
            f"the number of samples is given twice in {name}",
            got=f"{n_samples} by its traces, {len(headers.file.samples)} by its binary header",
            expected="the same",
            hint="Correct the headers.",
        )


def _by_shot(records: Ints, receiver: Floats) -> tuple[Ints, Ints]:
    """Trace numbers ``(n_shots, n_receivers)``, -1 for a missing one, and the record of each shot.

    Where shots have unequal numbers of receivers, traces are put where the fullest shot has them if
    it holds all positions of the line; otherwise the shorter shots are filled up at their ends.
    """
    record, first, counts = np.unique(records, return_index=True, return_counts=True)
    groups = np.split(np.argsort(records, kind="stable"), np.cumsum(counts)[:-1])
    order = np.full((len(record), counts.max()), -1, np.int64)
    fullest = groups[int(counts.argmax())]
    station = {tuple(place): i for i, place in enumerate(receiver[fullest].tolist())}
    columns = [[station.get(tuple(place), -1) for place in receiver[g].tolist()] for g in groups]
    is_fixed = len(station) == len(fullest) and all(
        -1 not in where and len(set(where)) == len(where) for where in columns
    )
    for row, group, where in zip(order, groups, columns, strict=True):
        is_unequal = is_fixed and len(set(counts.tolist())) > 1
        row[where if is_unequal else np.arange(len(group))] = group
    appearance = np.argsort(first)
    return order[appearance], record[appearance]


def _positions(order: Ints, receiver: Floats) -> Floats:
    """``(n_shots, n_receivers, 2)``; a missing trace is where the fullest shot has its receiver.

    Unless that shot is not on the same positions: then where the last trace of its own shot is.
    """
    fullest = order[int((order >= 0).sum(1).argmax())]
    positions = receiver[order]
    is_fixed = ((positions == receiver[fullest]).all(-1) | (order < 0)).all()
    for row, numbers in zip(positions, order, strict=True):
        is_missing = numbers < 0
        last = numbers[~is_missing][-1]
        row[is_missing] = receiver[fullest][is_missing] if is_fixed else receiver[last]
    return positions


def _line(headers: _Headers) -> float:
    """The y of all positions."""
    y = np.concatenate(
        [headers.lengths(name, "SourceGroupScalar") for name in ("SourceY", "GroupY")]
    )
    if np.ptp(y) > 0:
        raise InputError(
            f"{headers.path.name} is not a line along x",
            got=f"y from {y.min():g} to {y.max():g} m",
            expected="a constant y",
            hint="Project sources and receivers onto the line, and write the distance as x.",
        )
    return float(y[0])


def _check_one_source(headers: _Headers, record: Ints, order: Ints, source: Floats) -> None:
    """Positions ``source (n_traces, 2)`` must not change within a shot."""
    moved = (np.ptp(source[order], axis=1) > 0).any(axis=-1)
    if moved.any():
        raise InputError(
            f"a field record of {headers.path.name} has several source positions",
            got=f"records {_some(record[moved])}",
            expected="one source each: shots are distinguished by FieldRecord",
            hint="Number the shots in FieldRecord (bytes 9-12).",
        )


def _interval(headers: _Headers) -> int:
    """Sample interval of traces and binary header, microseconds."""
    of_traces = headers.common("TRACE_SAMPLE_INTERVAL", "sample interval")
    said = {dt for dt in (of_traces, headers.binary("Interval")) if dt != 0}
    if len(said) != 1 or min(said) < 0:
        raise InputError(
            f"the sample interval of {headers.path.name} is not clear",
            got=f"{of_traces} us by its traces, {headers.binary('Interval')} us by its binary"
            " header",
            expected="one positive number",
            hint="Correct the headers.",
        )
    return said.pop()


def _delay(headers: _Headers) -> int:
    delay = headers.common("DelayRecordingTime", "recording delay")
    if delay and headers.common("ScalarTraceHeader", "time scalar") not in (0, 1):
        raise InputError(
            f"the recording delay of {headers.path.name} is scaled",
            got=f"time scalar {headers['ScalarTraceHeader'][0]}",
            expected="milliseconds",
            hint="Write the delay with time scalar 1.",
        )
    return delay


def _some(values: Ints) -> str:
    """The first few of them."""
    shown = ", ".join(map(str, values[:5].tolist()))
    return f"{shown}, ..." if len(values) > 5 else shown
