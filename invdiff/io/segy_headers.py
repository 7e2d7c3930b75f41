"""Headers of SEG-Y files: opened in the right byte order, read by name, and checked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DataWarning, DTypeError, InputError, MissingDependencyError

__all__ = ["DEAD", "Headers", "check_traces", "delay_of", "interval_of", "load_segyio", "opened"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOOT = 0.3048  # m
DEAD = 2
"""Trace identification of a dead trace."""

_PRESSURE = (0, 1, DEAD, 11)  # unknown, seismic, dead, pressure
_HEADER_BYTES, _FORMAT_AT = 3600, 3224
_TRACE_HEADER_BYTES, _TEXT_BYTES = 240, 3200
_READ = (1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 16)  # sample formats: floats and integers of whole words
_OTHERS = {4: "fixed point with gain", 7: "integers of 24 bits", 15: "unsigned ones of 24 bits"}
_SCALARS = (0, 1, 10, 100, 1000, 10000)  # of the standard, and 0 for unsaid
_DEGREES, _FULL_TURN = 3, 360  # of CoordinateUnits, and what no angle exceeds


@dataclass(frozen=True, eq=False)
class Headers:
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
        """A value of the binary header."""
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
        """Scaled lengths, m.

        Raises:
            InputError: a scalar that the standard does not have.
        """
        scale = self[scalar]
        other = ~np.isin(np.abs(scale), _SCALARS) & (self[name] != 0)
        if other.any():
            raise InputError(
                f"{scalar} of {self.path.name} is not one of the standard",
                got=_some(np.unique(scale[other])),
                expected="1, 10, 100, 1000 or 10000, negative to divide by it",
                hint=f"Correct the headers: how long {name} is cannot be told.",
            )
        divisor, factor = np.where(scale < 0, -scale, 1), np.where(scale > 0, scale, 1)
        # Divided by the integer, so that 92437 with scalar -1000 is 92.437 and nothing else.
        values = self[name] * factor / divisor
        return values * _FOOT if self.binary("MeasurementSystem") == 2 else values


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


def opened(path: Path, segyio: ModuleType) -> Any:
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
    _check_format(path, int.from_bytes(code, "little" if is_little else "big"))
    try:
        return segyio.open(path, ignore_geometry=True, endian="little" if is_little else "big")
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} cannot be read as SEG-Y",
            got=error,
            expected="a file whose traces are of equal length",
            hint="Was it copied to the end? Some programs write headers that segyio refuses.",
        ) from error


def _check_format(path: Path, code: int) -> None:
    """Refuse sample formats that segyio would take for IBM floats."""
    if code in _OTHERS:
        raise DTypeError(
            f"samples of {path.name} are in a format that is not read",
            got=f"format {code}, {_OTHERS[code]}",
            expected=f"formats {', '.join(map(str, _READ))}",
            hint="Convert the file to IEEE floats (format 5).",
        )
    if code not in _READ:
        raise InputError(
            f"{path} cannot be read as SEG-Y",
            got=f"sample format {code} in its binary header",
            expected=f"one of {', '.join(map(str, _READ))}",
            hint="Is it SEG-Y? If it is, write the format into bytes 3225-3226.",
        )


def check_traces(headers: Headers) -> None:
    """Raise unless all traces are pressure, and their positions lengths.

    Raises:
        InputError: other traces, positions that are angles, unknown units, two numbers of samples.

    Warns:
        DataWarning: positions called degrees that no angle reaches; a number of samples in the
            trace headers that the size of the file contradicts.
    """
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
    _check_lengths(headers)
    if headers.binary("MeasurementSystem") not in (0, 1, 2):
        raise InputError(
            f"{name} measures in unknown units",
            got=f"MeasurementSystem {headers.binary('MeasurementSystem')}",
            expected="1 (m) or 2 (feet), or 0 (not specified, taken as m)",
        )
    _check_n_samples(headers)


def _check_n_samples(headers: Headers) -> None:
    """Refuse two numbers of samples, unless the size of the file says which is meant."""
    said, name = headers.common("TRACE_SAMPLE_COUNT", "number of samples"), headers.path.name
    n_samples = len(headers.file.samples)
    if said in (0, n_samples):
        return
    n_before = _HEADER_BYTES + _TEXT_BYTES * headers.file.ext_headers
    n_bytes, width = headers.path.stat().st_size - n_before, headers.file.dtype.itemsize
    if n_bytes % (_TRACE_HEADER_BYTES + width * said) == 0:
        raise InputError(
            f"the number of samples is given twice in {name}",
            got=f"{said} by its traces, {n_samples} by its binary header",
            expected="the same",
            hint="Correct the headers.",
        )
    warnings.warn(
        f"Traces of {name} are said to have {said} samples; by its binary header and its size they"
        f" have {n_samples}, which are read.",
        DataWarning,
        stacklevel=6,
    )


def _check_lengths(headers: Headers) -> None:
    """Refuse positions that are angles, unless no angle is that large."""
    unit, name = headers.common("CoordinateUnits", "units of positions"), headers.path.name
    if unit in (0, 1):
        return
    places = [headers.lengths(k, "SourceGroupScalar") for k in ("SourceX", "GroupX")]
    largest = max(float(np.abs(values).max()) for values in places)
    if unit != _DEGREES or largest <= _FULL_TURN:
        raise InputError(
            f"positions of {name} are angles",
            got=f"CoordinateUnits {unit}",
            expected="1, lengths",
            hint="Project them onto a plane first.",
        )
    warnings.warn(
        f"Positions of {name} are said to be degrees, but reach {largest:g}: they are read as"
        " lengths.",
        DataWarning,
        stacklevel=6,
    )


def interval_of(headers: Headers) -> int:
    """Sample interval of traces and binary header, microseconds.

    Raises:
        InputError: traces that differ, none, or two that contradict each other.
    """
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


def delay_of(headers: Headers) -> int:
    """Recording delay, milliseconds.

    Raises:
        InputError: traces that differ, or a delay that is scaled.
    """
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
