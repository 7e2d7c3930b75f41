"""Writing SEG-Y: traces and their headers, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DTypeError, InputError, OutputExistsError
from invdiff.io.segy import Traces
from invdiff.io.segy_headers import DEAD, load_segyio

__all__ = ["write_traces"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SCALARS = (1, 10, 100, 1000, 10000)  # those of the standard
_INT16, _INT32 = 2**15 - 1, 2**31 - 1
_TITLE = "SEG-Y BY INVDIFF: 2-D LINE, SOURCE Z = DEPTH - ELEVATION, RECEIVER Z = -ELEVATION"


def write_traces(traces: Traces, path: Path, *, overwrite: bool = False) -> None:
    """Write IEEE floats (format 5) of SEG-Y revision 1, all or nothing.

    Raises:
        InputError, DTypeError, OutputExistsError: see :func:`invdiff.io.write_segy`.
        MissingDependencyError: segyio is not installed.
    """
    segyio = load_segyio()
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
                is_dead = bool(np.isnan(samples).all())
                if is_dead:
                    columns["TraceIdentificationCode"] = DEAD
                file.header[i] = {
                    getattr(trace, name): value for name, value in {**fixed, **columns}.items()
                }
                file.trace[i] = np.where(is_dead, 0, samples).astype(np.float32)
        os.replace(complete, path)


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
            hint="Measure them from a nearer origin.",
        )
    scale = exact[0] if exact else fitting[-1]
    return scale, {
        name: np.rint(values * scale).astype(np.int64) for name, values in lengths.items()
    }


def _check_writable(traces: Traces, path: Path, overwrite: bool) -> None:
    if traces.pressure.dtype.newbyteorder("=") != np.float32:
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
        raise InputError(
            f"cannot write into {path.parent}", hint="Make the folder, or choose another one."
        )
    if path.exists() and (path.is_dir() or not overwrite):
        raise OutputExistsError(
            f"output {path} exists",
            got="a folder" if path.is_dir() else "a file",
            expected="a path that is free",
            hint="Choose another path, or ask to overwrite a file (overwrite=True).",
        )
