"""The traces of a SEG-Y file and their headers, grouped by shot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import (
    DTypeError,
    InputError,
    MissingDependencyError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)

__all__ = ["Traces", "read_traces", "write_traces"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOOT = 0.3048  # m
_LIVE = (0, 1, 11)  # trace identification: unknown, seismic, pressure
_SCALARS = (1, 10, 100, 1000, 10000)  # those of the standard
_INT16, _INT32 = 2**15 - 1, 2**31 - 1
_TITLE = "SEG-Y BY INVDIFF: 2-D LINE, SOURCE Z = DEPTH - ELEVATION, RECEIVER Z = -ELEVATION"


@dataclass(frozen=True, eq=False)
class Traces:
    """Arrays of a line of shots, in m and s; depths downwards from the datum.

    Args:
        pressure: ``(n_shots, n_receivers, n_samples)``.
        record: field record number of each shot, ``(n_shots,)``.
        source: ``(n_shots, 2)``, positions ``(z, x)``.
        receiver: ``(n_shots, n_receivers, 2)``.
        interval: between samples, microseconds.
        delay: time of the first sample, milliseconds.
        y: of all positions, m.
    """

    pressure: NDArray[np.floating[Any]]
    record: Ints
    source: Floats
    receiver: Floats
    interval: int
    delay: int = 0
    y: float = 0.0


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
        path: a big-endian file of revision 0 or 1.
        elevation_is_depth: elevations count downwards.

    Raises:
        InputError, ShapeError, DTypeError, NonFiniteError: see :func:`invdiff.io.read_segy`.
        MissingDependencyError: segyio is not installed.
    """
    segyio = _segyio()
    if not path.is_file():
        raise InputError(f"SEG-Y file {path} does not exist", hint="Check the path.")
    try:
        file = segyio.open(path, ignore_geometry=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as SEG-Y",
            got=error,
            expected="a big-endian file whose traces are of equal length",
        ) from error
    with file:
        if file.dtype.kind != "f":
            raise DTypeError(
                f"samples of {path.name} are no floating-point numbers",
                got=f"format {int(file.format)}, {file.dtype}",
                expected="IBM or IEEE floats (formats 1, 5)",
                hint="Convert the file, minding its trace weighting factors.",
            )
        headers = _Headers(path, file, segyio)
        _check_traces(headers)
        order, record = _by_shot(headers)
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
        source = np.stack([source_z, source_x], axis=-1)[order] + 0.0  # no negative zeros
        receiver = np.stack([receiver_z, receiver_x], axis=-1)[order] + 0.0
        _check_one_source(headers, record, source)
        return Traces(
            _samples(headers)[order],
            record,
            source[:, 0],
            receiver,
            _interval(headers),
            _delay(headers),
            y,
        )


def write_traces(traces: Traces, path: Path, *, overwrite: bool = False) -> None:
    """Write IEEE floats (format 5) of SEG-Y revision 1, all or nothing.

    Raises:
        InputError, DTypeError, OutputExistsError: see :func:`invdiff.io.write_segy`.
        MissingDependencyError: segyio is not installed.
    """
    segyio = _segyio()
    _check_writable(traces, path, overwrite)
    n_shots, n_receivers, n_samples = traces.pressure.shape
    fixed, headers = _to_headers(traces)
    spec = segyio.spec()
    spec.format, spec.tracecount = 5, n_shots * n_receivers
    spec.samples = np.arange(n_samples) * traces.interval / 1e3
    binary, trace = segyio.BinField, segyio.TraceField
    with TemporaryDirectory(prefix=f".{path.name}.partial-", dir=path.parent) as folder:
        complete = Path(folder) / path.name
        with segyio.create(complete, spec) as file:
            file.text[0] = segyio.tools.create_text_header({1: _TITLE[:76]})
            file.bin.update(
                {
                    binary.Traces: n_receivers if n_receivers <= _INT16 else 0,  # 0: unsaid
                    binary.Interval: traces.interval,
                    binary.Samples: n_samples,
                    binary.MeasurementSystem: 1,
                    binary.SEGYRevision: 1,
                    binary.TraceFlag: 1,
                }
            )
            for i, samples in enumerate(traces.pressure.reshape(-1, n_samples)):
                columns = {name: int(column[i]) for name, column in headers.items()}
                file.header[i] = {
                    getattr(trace, name): value for name, value in {**fixed, **columns}.items()
                }
                file.trace[i] = samples
        os.replace(complete, path)


def _segyio() -> ModuleType:
    try:
        import segyio
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "SEG-Y files need segyio", hint="Install it with pip install 'invdiff[seismic]'."
        ) from error
    module: ModuleType = segyio
    return module


def _samples(headers: _Headers) -> NDArray[np.floating[Any]]:
    samples: NDArray[np.floating[Any]] = headers.file.trace.raw[:]
    finite = np.isfinite(samples).all(axis=-1)
    if not finite.all():
        raise NonFiniteError(
            f"traces of {headers.path.name} hold NaN or Inf",
            got=f"{int((~finite).sum())} of {len(samples)} traces, the first number"
            f" {int(finite.argmin()) + 1}",
            expected="finite values",
            hint="Repair them, or check that the format in the binary header is the true one.",
        )
    return samples


def _check_traces(headers: _Headers) -> None:
    """Raise unless all traces are live, and their positions lengths."""
    name = headers.path.name
    kind = headers["TraceIdentificationCode"]
    other = ~np.isin(kind, _LIVE)
    if other.any():
        raise InputError(
            f"{int(other.sum())} of {len(kind)} traces of {name} are not live pressure",
            got=f"trace identification {_some(np.unique(kind[other]))}",
            expected=f"{_LIVE}",
            hint="Take dead, auxiliary and other components' traces out of the file.",
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
            f"the number of samples is said twice in {name}",
            got=f"{n_samples} by its traces, {len(headers.file.samples)} by its binary header",
            expected="the same",
            hint="Mend the headers.",
        )


def _by_shot(headers: _Headers) -> tuple[Ints, Ints]:
    """Trace numbers ``(n_shots, n_receivers)``, and the field record of each shot."""
    record, first, counts = np.unique(headers["FieldRecord"], return_index=True, return_counts=True)
    if len(set(counts.tolist())) > 1:
        raise ShapeError(
            f"shots of {headers.path.name} have unequal numbers of receivers",
            got=f"{counts.min()} to {counts.max()} traces in {len(counts)} field records",
            expected="the same number in each",
            hint="Split the file by field record, or add traces so that all have the same.",
        )
    by_record = np.argsort(headers["FieldRecord"], kind="stable").reshape(len(record), -1)
    appearance = np.argsort(first)
    return by_record[appearance], record[appearance]


def _line(headers: _Headers) -> float:
    """The y of all positions."""
    y = np.concatenate(
        [headers.lengths(name, "SourceGroupScalar") for name in ("SourceY", "GroupY")]
    )
    if np.ptp(y) > 0:
        raise InputError(
            f"{headers.path.name} is no line along x",
            got=f"y from {y.min():g} to {y.max():g} m",
            expected="a constant y",
            hint="Project sources and receivers onto the line, and write the distance as x.",
        )
    return float(y[0])


def _check_one_source(headers: _Headers, record: Ints, source: Floats) -> None:
    """``source (n_shots, n_receivers, 2)`` must not change within a shot."""
    moved = (np.ptp(source, axis=1) > 0).any(axis=-1)
    if moved.any():
        raise InputError(
            f"a field record of {headers.path.name} has several source positions",
            got=f"records {_some(record[moved])}",
            expected="one source each: shots are told apart by FieldRecord",
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
            hint="Mend the headers.",
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


def _to_headers(traces: Traces) -> tuple[Mapping[str, int], Mapping[str, Ints]]:
    """Trace header values that are the same for all traces, and columns of the others."""
    n_shots, n_receivers, n_samples = traces.pressure.shape
    source = np.repeat(traces.source, n_receivers, axis=0)
    receiver = traces.receiver.reshape(-1, 2)
    lengths = {
        # A source above the datum has an elevation rather than a negative depth.
        "SourceDepth": np.maximum(source[:, 0], 0),
        "SourceSurfaceElevation": np.maximum(-source[:, 0], 0),
        "ReceiverGroupElevation": -receiver[:, 0],
    }
    y = np.full(len(source), traces.y)
    positions = {"SourceX": source[:, 1], "GroupX": receiver[:, 1], "SourceY": y, "GroupY": y}
    depth_scale, depths = _scaled("depths", lengths)
    position_scale, distances = _scaled("positions", positions)
    fixed = {
        "TraceIdentificationCode": 1,
        "CoordinateUnits": 1,
        "ElevationScalar": -depth_scale,
        "SourceGroupScalar": -position_scale,
        "TRACE_SAMPLE_COUNT": n_samples,
        "TRACE_SAMPLE_INTERVAL": traces.interval,
        "DelayRecordingTime": traces.delay,
    }
    number = np.arange(1, len(source) + 1)
    columns = {
        "TRACE_SEQUENCE_LINE": number,
        "TRACE_SEQUENCE_FILE": number,
        "FieldRecord": np.repeat(traces.record, n_receivers),
        "TraceNumber": np.tile(np.arange(1, n_receivers + 1), n_shots),
        **depths,
        **distances,
    }
    return fixed, columns


def _scaled(what: str, lengths: Mapping[str, Floats]) -> tuple[int, dict[str, Ints]]:
    """Integers in units of ``1 / scale`` m, of the smallest scale that loses nothing."""
    everything = np.concatenate(list(lengths.values()))
    largest = float(np.abs(everything).max())
    fitting = [scale for scale in _SCALARS if largest * scale <= _INT32]
    lost = [float(np.abs(np.rint(everything * s) / s - everything).max()) for s in fitting]
    exact = [scale for scale, error in zip(fitting, lost, strict=True) if error <= 1e-6]
    if not exact and (not fitting or lost[-1] > 5e-4):
        raise InputError(
            f"{what} cannot be written to SEG-Y to the millimetre",
            got=f"lengths up to {largest:g} m",
            expected=f"at most {_INT32 / 1000:g} m",
            hint="Count them from a nearer origin.",
        )
    scale = exact[0] if exact else fitting[-1]
    return scale, {
        name: np.rint(values * scale).astype(np.int64) for name, values in lengths.items()
    }


def _check_writable(traces: Traces, path: Path, overwrite: bool) -> None:
    if traces.pressure.dtype != np.float32:
        raise DTypeError(
            "SEG-Y holds numbers in single precision",
            got=traces.pressure.dtype,
            expected="float32",
            hint="Convert pressure with .astype('float32').",
        )
    n_samples = traces.pressure.shape[-1]
    if not 0 < traces.interval <= _INT16 or n_samples > _INT16:
        raise InputError(
            "this time axis does not fit into the headers of SEG-Y",
            got=f"{n_samples} samples every {traces.interval} us",
            expected=f"at most {_INT16} each",
            hint="Resample or cut it, or write Zarr.",
        )
    if abs(traces.delay) > _INT16:
        raise InputError("the recording delay is too long for SEG-Y", got=f"{traces.delay} ms")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write into {path.parent}", hint="Make it, or choose another one.")
    if path.exists() and (path.is_dir() or not overwrite):
        raise OutputExistsError(
            f"output {path} exists",
            got="a folder" if path.is_dir() else "a file",
            expected="a path that is free",
            hint="Choose another path, or ask to overwrite a file (overwrite=True).",
        )


def _some(values: Ints) -> str:
    """The first few of them."""
    shown = ", ".join(map(str, values[:5].tolist()))
    return f"{shown}, ..." if len(values) > 5 else shown
