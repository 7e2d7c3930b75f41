"""Positions of sources and receivers: what is no line is refused, a crooked line is projected."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DataWarning, InputError

__all__ = ["Line", "check_places", "on_best_line"]

Floats = NDArray[np.float64]

_CROOKED = 0.05  # of the length of the line: how far off it a station may lie
_TURNED = 2.0  # degrees: how much one station may turn the line


class Line(NamedTuple):
    """Distances along a straight line.

    Attributes:
        source: Of the sources, ``(n,)``, m.
        receiver: Of the receivers, ``(n,)``, m.
        notes: ``line_y`` of a line along x; of another one its ``line_azimuth``, degrees from the
            x axis towards y, and ``off_line_max``, ``off_line_rms`` and ``offset_error``, m.
    """

    source: Floats
    receiver: Floats
    notes: dict[str, float]


def on_best_line(source: Floats, receiver: Floats, name: str) -> Line:
    r"""Project the stations of a line onto the straight line next to them.

    The line minimises the sum of the squared distances from all stations, each counted once (total
    least squares): it passes through their mean in the direction of the first right singular vector
    of what is left. Distances along it start at the x of the first station, so that those of a line
    that wobbles about the x axis stay close to x. A line exactly along x is left as it is.

    A station that lies :math:`w` off the line has its offsets :math:`h` wrong by up to
    :math:`w^2 / 2h` relative to a station on the line; the largest error over all traces is
    reported. Stations more than 5 % of the line's length off it are refused: that is another
    geometry, of two or three dimensions, and no line. So is a single station without which the line
    has another direction, such as one whose coordinates are missing: it would turn all others.

    Args:
        source: Positions ``(x, y)`` of the source of each trace, ``(n, 2)``, m.
        receiver: Positions of the receiver of each trace, ``(n, 2)``, m.
        name: Of the file, for messages.

    Raises:
        InputError: Stations too far off any line, or one that turns it.

    Warns:
        DataWarning: Positions were projected, with the errors that makes.
    """
    stations = np.unique(np.concatenate([source, receiver]), axis=0)
    if np.ptp(stations[:, 1]) == 0:
        return Line(source[:, 0], receiver[:, 0], {"line_y": float(stations[0, 1])})
    centre = stations.mean(0)
    direction = _direction(stations)
    direction *= np.sign(direction[np.abs(direction).argmax()])  # towards growing x, or y
    along, off = _turned(stations - centre, direction)
    length, worst = float(np.ptp(along)), float(np.abs(off).max())
    rms = float(np.sqrt(np.mean(off**2)))
    _check_straight(name, length, worst)
    _check_leverage(name, stations, direction)
    first = stations[along.argmin(), 0] - along.min()
    ends = [_turned(places - centre, direction)[0] + first for places in (source, receiver)]
    offset = np.linalg.norm(source - receiver, axis=1)
    error = float(np.abs(np.abs(ends[0] - ends[1]) - offset).max())
    azimuth = float(np.degrees(np.arctan2(direction[1], direction[0])))
    notes = {
        "line_azimuth": azimuth, "off_line_max": worst, "off_line_rms": rms, "offset_error": error
    }  # fmt: skip
    warnings.warn(
        f"{name} is not a line along x: its positions were projected onto the best straight line,"
        f" {azimuth:.3g} degrees from x, and distances along it start at the x of the first"
        f" station. Stations lie up to {worst:.3g} m off it (rms {rms:.3g} m), and offsets change"
        f" by up to {error:.3g} m.",
        DataWarning,
        stacklevel=5,
    )
    return Line(ends[0], ends[1], notes)


def check_places(source: Floats, receiver: Floats, name: str) -> None:
    """Refuse positions that no line of shots has.

    Args:
        source: Positions ``(z, x)`` or ``(z, x, y)`` of the source of each trace, ``(shot,
            receiver, k)``, m.
        receiver: Positions of the receiver of each trace, of the same shape, m.
        name: Of the file, for messages.

    Raises:
        InputError: All positions are the same; each source is at its receiver, or as much above it
            as the others; or the receivers of each shot are all at one place.
    """
    everything = np.concatenate([source, receiver]).reshape(-1, source.shape[-1])
    if (everything == everything[0]).all():
        raise InputError(
            f"all sources and receivers of {name} are at the same place",
            got=f"{everything[0].tolist()} for {everything.shape[0] // 2} traces",
            expected="a source, and receivers at distances from it",
            hint="Its headers hold no geometry: write positions into them, or give them to"
            " invdiff.io.survey_dataset.",
        )
    apart = receiver - source
    if (apart == apart[0, 0]).all() and not apart[..., 1:].any():
        raise InputError(
            f"each source of {name} is at its receiver",
            got=f"{everything.shape[0] // 2} traces of zero offset",
            expected="shots with receivers at distances from their source",
            hint="It looks like a stacked section: give the shots before stacking.",
        )
    if receiver.shape[1] > 1 and (receiver == receiver[:, :1]).all():
        raise InputError(
            f"the receivers of each shot of {name} are all at the same place",
            got=f"{receiver.shape[1]} receivers at {receiver[0, 0].tolist()}",
            expected="receivers at different places",
            hint="Receiver coordinates (GroupX, bytes 81-84) are missing from its headers.",
        )


def _direction(stations: Floats) -> Floats:
    """Direction of the line of total least squares."""
    direction: Floats = np.linalg.svd(stations - stations.mean(0), full_matrices=False)[2][0]
    return direction


def _check_leverage(name: str, stations: Floats, direction: Floats) -> None:
    """Refuse a line that one station turns."""
    if len(stations) < 4:
        return
    far = np.linalg.norm(stations - np.median(stations, axis=0), axis=1).argmax()
    without = _direction(np.delete(stations, far, axis=0))
    turned = float(np.degrees(np.arccos(min(1.0, abs(float(without @ direction))))))
    if turned > _TURNED:
        raise InputError(
            f"one station turns the line of {name}",
            got=f"{stations[far].tolist()}, without which the line has a direction that is"
            f" {turned:.3g} degrees different",
            expected=f"at most {_TURNED:g} degrees",
            hint="Its coordinates may be missing or wrong: correct its headers, or leave out its"
            " traces.",
        )


def _turned(places: Floats, direction: Floats) -> tuple[Floats, Floats]:
    """Distances along a direction, and across it; a station gives the same bits in any trace."""
    (x, y), (d_x, d_y) = places.T, direction
    return x * d_x + y * d_y, y * d_x - x * d_y


def _check_straight(name: str, length: float, worst: float) -> None:
    if worst > _CROOKED * length:
        raise InputError(
            f"{name} is not a line",
            got=f"positions up to {worst:.3g} m off the best line, which is {length:.3g} m long",
            expected=f"at most {_CROOKED:.0%} of its length",
            hint="Divide a crooked line or a three-dimensional survey into straight lines; look"
            " for positions that are wrong or missing (zero).",
        )
