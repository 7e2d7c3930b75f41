"""Reading SEG-Y: the traces of one or several files, grouped by shot, on a straight line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DataWarning, InputError
from invdiff.io.line import check_places, on_best_line
from invdiff.io.segy_headers import (
    DEAD,
    Headers,
    check_traces,
    delay_of,
    interval_of,
    load_segyio,
    opened,
)
from invdiff.io.segy_samples import samples_of
from invdiff.io.segy_shots import by_shot, check_no_shot_twice, places_of, shot_numbers

__all__ = ["Traces", "read_traces"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Traces:
    """Arrays of a line of shots, in m and s; depths downwards from the datum.

    Args:
        pressure: ``(n_shots, n_receivers, n_samples)``; NaN where nothing was recorded.
        record: number of each shot, ``(n_shots,)``.
        source: ``(n_shots, 2)``, positions ``(z, x)``.
        receiver: ``(n_shots, n_receivers, 2)``.
        interval: between samples, microseconds.
        delay: time of the first sample, milliseconds.
        y: of all positions, m.
        notes: what was found and done, as attributes of a Dataset.
    """

    pressure: NDArray[np.floating[Any]]
    record: Ints
    source: Floats
    receiver: Floats
    interval: int
    delay: int = 0
    y: float = 0.0
    notes: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Table:
    """Traces in the order of a file, and columns of their headers; positions are ``(z, x, y)``."""

    samples: NDArray[np.floating[Any]]
    record: Ints
    energy: Ints
    source: Floats
    receiver: Floats
    is_dead: NDArray[np.bool_]
    interval: int
    delay: int


def read_traces(paths: Sequence[Path], *, elevation_is_depth: bool = False) -> Traces:
    """Traces of SEG-Y files, in their order: shots as they appear, receivers as they lie in each.

    Args:
        paths: files of revision 0 or 1, of either byte order, sampled alike.
        elevation_is_depth: elevations count downwards.

    Raises:
        InputError, DTypeError, NonFiniteError: see :func:`invdiff.io.read_segy`.
        MissingDependencyError: segyio is not installed.

    Warns:
        DataWarning: traces that are dead, or missing from a shot; positions off a line along x.
    """
    names = [path.name for path in paths]
    tables = [_table(path, elevation_is_depth=elevation_is_depth) for path in paths]
    _check_alike(tables, names)
    whole = _joined(tables)
    file = np.repeat(np.arange(len(tables)), [len(table.record) for table in tables])
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files"
    n_dead = int(whole.is_dead.sum())
    whole, file = _without_empty(whole, file)
    header, number = shot_numbers(whole.record, whole.energy, whole.source)
    order, record = by_shot(number, whole.receiver)
    check_no_shot_twice(order, file, whole.receiver, names=names)
    first = np.array([row[row >= 0][0] for row in order])
    is_missing = order < 0
    shot_of = np.where(is_missing, first[:, None], order)
    check_places(whole.source[shot_of], whole.receiver[shot_of], name)
    _check_set(whole, name)
    line = on_best_line(whole.source[:, 1:], whole.receiver[:, 1:], name)
    source = np.stack([whole.source[:, 0], line.source], axis=-1)
    receiver = np.stack([whole.receiver[:, 0], line.receiver], axis=-1)
    counts = {"dead_traces": n_dead, "missing_traces": int(is_missing.sum())}
    _warn_of_dead(name, **counts)
    samples = whole.samples
    return Traces(
        np.where(is_missing[..., None], np.nan, samples[order]).astype(samples.dtype),
        record,
        source[first],
        places_of(order, receiver),
        whole.interval,
        whole.delay,
        line.notes.get("line_y", 0.0),
        {**line.notes, "shots_by": header, **{key: n for key, n in counts.items() if n}},
    )


def _without_empty(table: _Table, file: Ints) -> tuple[_Table, Ints]:
    """The traces, and their files, without dead ones whose headers hold no positions."""
    positions = np.concatenate([table.source, table.receiver], axis=1)
    is_empty = table.is_dead & ~positions.any(axis=1)
    if not is_empty.any() or is_empty.all():
        return table, file
    kept: dict[str, Any] = {
        name: values[~is_empty]
        for name, values in vars(table).items()
        if isinstance(values, np.ndarray)
    }
    return replace(table, **kept), file[~is_empty]


def _table(path: Path, *, elevation_is_depth: bool) -> _Table:
    """The traces of one file."""
    segyio = load_segyio()
    with opened(path, segyio) as file:
        headers = Headers(path, file, segyio)
        check_traces(headers)
        # By the standard elevations count upwards, and the source lies its depth below its own.
        down = 1 if elevation_is_depth else -1
        source_z = headers.lengths("SourceDepth", "ElevationScalar") + down * headers.lengths(
            "SourceSurfaceElevation", "ElevationScalar"
        )
        receiver_z = down * headers.lengths("ReceiverGroupElevation", "ElevationScalar")
        source_x, source_y, receiver_x, receiver_y = (
            headers.lengths(name, "SourceGroupScalar")
            for name in ("SourceX", "SourceY", "GroupX", "GroupY")
        )
        return _Table(
            samples_of(headers),
            headers["FieldRecord"],
            headers["EnergySourcePoint"],
            np.stack([source_z, source_x, source_y], axis=-1) + 0.0,  # no negative zeros
            np.stack([receiver_z, receiver_x, receiver_y], axis=-1) + 0.0,
            headers["TraceIdentificationCode"] == DEAD,
            interval_of(headers),
            delay_of(headers),
        )


def _check_alike(tables: Sequence[_Table], names: Sequence[str]) -> None:
    """Refuse files that are sampled differently."""
    for table, name in zip(tables, names, strict=True):
        for what, unit, one, other in (
            ("intervals", "us", table.interval, tables[0].interval),
            ("recording delays", "ms", table.delay, tables[0].delay),
            ("lengths", "samples", table.samples.shape[1], tables[0].samples.shape[1]),
        ):
            if one != other:
                raise InputError(
                    f"files of one line have different {what}",
                    got=f"{one} {unit} in {name}, {other} {unit} in {names[0]}",
                    expected="the same in all files",
                    hint="Resample or cut them to one time axis.",
                )


def _joined(tables: Sequence[_Table]) -> _Table:
    """All traces, one file after the other."""
    if len(tables) == 1:
        return tables[0]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in ("samples", "record", "energy", "source", "receiver", "is_dead")
    }
    return replace(tables[0], **joined)


def _check_set(table: _Table, name: str) -> None:
    """Refuse receivers without coordinates, beside sources that have some."""
    is_unset = not table.receiver[:, 1:].any()
    if is_unset and len(np.unique(table.source[:, 1:], axis=0)) > 1:
        raise InputError(
            f"the receivers of {name} have no positions",
            got=f"GroupX and GroupY are zero in all of its {len(table.record)} traces",
            expected="receivers at distances from their sources",
            hint="A stacked section looks like this: give the shots before stacking.",
        )


def _warn_of_dead(name: str, *, dead_traces: int, missing_traces: int) -> None:
    parts = []
    if dead_traces:
        parts.append(f"{dead_traces} traces of {name} are dead by their headers")
    if missing_traces:
        parts.append(
            f"shots of {name} have unequal numbers of receivers, and {missing_traces} traces are"
            " missing"
        )
    if parts:
        warnings.warn(f"{'; '.join(parts)}: they are read as NaN.", DataWarning, stacklevel=4)
