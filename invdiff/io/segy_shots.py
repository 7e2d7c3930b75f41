"""Which traces of SEG-Y files make a shot, and the order of the traces in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import InputError

__all__ = ["by_shot", "check_no_shot_twice", "places_of", "shot_numbers"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def shot_numbers(record: Ints, energy: Ints, source: Floats) -> tuple[str, Ints]:
    """The header that tells the sources apart, and the number of the shot of each trace.

    The field record if each has one source; otherwise the energy source point; otherwise the
    position of the source, numbered from 1 as they appear.

    Args:
        record: FieldRecord of each trace, ``(n_traces,)``.
        energy: EnergySourcePoint of each trace.
        source: Position of the source of each trace, ``(n_traces, k)``.
    """
    _, first, place = np.unique(source, axis=0, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[place.ravel()] + 1
    for name, numbers in (("FieldRecord", record), ("EnergySourcePoint", energy)):
        pairs = np.unique(np.stack([numbers, place]), axis=1)
        if pairs.shape[1] == len(np.unique(numbers)):
            return name, numbers
    return "source position", place


def by_shot(records: Ints, receiver: Floats) -> tuple[Ints, Ints]:
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


def places_of(order: Ints, receiver: Floats) -> Floats:
    """``(n_shots, n_receivers, 2)``; a missing trace is where the fullest shot has its receiver.

    If shots do not share their stations it is at the last trace of its own shot.
    """
    fullest = order[int((order >= 0).sum(1).argmax())]
    positions = receiver[order]
    is_fixed = ((positions == receiver[fullest]).all(-1) | (order < 0)).all()
    for row, numbers in zip(positions, order, strict=True):
        is_missing = numbers < 0
        last = numbers[~is_missing][-1]
        row[is_missing] = receiver[fullest][is_missing] if is_fixed else receiver[last]
    return positions


def check_no_shot_twice(order: Ints, file: Ints, receiver: Floats, *, names: list[str]) -> None:
    """Refuse a shot of which two files hold the same receivers.

    Args:
        order: Trace numbers ``(n_shots, n_receivers)``, -1 for a missing one.
        file: Number of the file of each trace.
        receiver: Position of the receiver of each trace, ``(n_traces, k)``.
        names: Of the files.

    Raises:
        InputError: There is one.
    """
    for numbers in order:
        traces = numbers[numbers >= 0]
        files = np.unique(file[traces])
        places = [{tuple(p) for p in receiver[traces[file[traces] == f]].tolist()} for f in files]
        if sum(map(len, places)) > len(set().union(*places)):
            raise InputError(
                "two files hold the same shot",
                got=", ".join(names[f] for f in files[:5]),
                expected="each shot once",
                hint="Leave one of them out, or number the shots in FieldRecord (bytes 9-12).",
            )
