"""What satellites pass over: masks of swaths along ground tracks, as functions of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.operators.atmosphere.latlon import horizontal
from invdiff.operators.atmosphere.rotation import EARTH_RADIUS, EARTH_ROTATION
from invdiff.operators.inputs import describe

__all__ = ["swath"]


def swath(
    grid: Grid,
    times: Sequence[float],
    width: float,
    *,
    start: float = 0.0,
    inclination: float = 98.7,
    period: float = 6070.0,
    node: float = 0.0,
) -> Tensor:
    """What a satellite in a circular orbit passes over between observation times: a mask for each.

    The point below it is ``(cos a, sin a cos i, sin a sin i)`` on the unit sphere, ``a = 2 pi t /
    period``, turned back by the rotation of the Earth. A grid point counts for the time ``t_k`` if
    the track came within half the width of it between ``t_(k-1)`` and ``t_k``. The default orbit is
    that of polar weather satellites at a height of 820 km.

    Args:
        grid: of the fields, with the dims ``lat`` and ``lon`` last and coordinates in degrees.
        times: of the observations, s, ascending, such as ``rollout.range.coords["time"]``.
        width: of the swath, m.
        start: from where the first interval counts, s, before the first time.
        inclination: of the orbit against the equator, degrees; over 90 is against the rotation.
        period: of the orbit, s.
        node: longitude at which the satellite crosses the equator northwards at ``t = 0``, degrees.

    Returns:
        Booleans ``(len(times), lat, lon)``, for a `Mask` on trajectories.

    Raises:
        InputError: times that do not ascend from the start, or numbers out of range.
        ShapeError: a grid without latitudes and longitudes.

    Examples:
        >>> from invdiff.operators.atmosphere import SphericalHarmonics, swath
        >>> grid = SphericalHarmonics(32).grid()
        >>> seen = swath(grid, [3600.0, 7200.0], 2e6)
        >>> seen.shape, bool(0.1 < seen.double().mean() < 0.3)
        (torch.Size([2, 32, 64]), True)
    """
    if not isinstance(grid, Grid):
        raise InputError("the grid of a swath is not a Grid", got=describe(grid), expected="a Grid")
    lat, lon = (np.radians(c) for c in horizontal(grid, "swath"))
    edges = np.concatenate([[start], np.asarray(times, np.float64).reshape(-1)])
    if len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise InputError(
            "times do not ascend from the start",
            got=np.array2string(edges, threshold=6),
            expected="one or more times, each later than the one before",
        )
    width, period = as_number("width", width), as_number("period", period)
    turn = as_number("inclination", inclination, above=-math.inf) * math.pi / 180
    points = np.stack(
        [
            np.cos(lat)[:, None] * np.cos(lon),
            np.cos(lat)[:, None] * np.sin(lon),
            np.broadcast_to(np.sin(lat)[:, None], (len(lat), len(lon))),
        ]
    ).reshape(3, -1)
    # With a tenth of the width between samples the swath's edge is right to half a percent.
    n_per_second = 10 * 2 * math.pi * EARTH_RADIUS / period / width
    seen = []
    for first, last in itertools.pairwise(edges):
        t = np.linspace(first, last, 2 + math.ceil(n_per_second * (last - first)))
        angle, turned = 2 * np.pi * t / period, np.radians(node) - EARTH_ROTATION * t
        x, y = np.cos(angle), np.sin(angle) * math.cos(turn)
        east = x * np.cos(turned) - y * np.sin(turned)
        north = x * np.sin(turned) + y * np.cos(turned)
        track = np.stack([east, north, np.sin(angle) * math.sin(turn)])
        nearest = (track.T @ points).max(0)
        seen.append(nearest >= math.cos(min(width / 2 / EARTH_RADIUS, math.pi)))
    return torch.from_numpy(np.stack(seen)).reshape(-1, len(lat), len(lon))
