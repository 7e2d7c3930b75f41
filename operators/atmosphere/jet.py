"""Initial states of the shallow-water equations: a jet in balance that a bump makes unstable."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.operators.atmosphere.shallow_water import ShallowWater
from invdiff.operators.inputs import describe

__all__ = ["galewsky_jet"]

_SOUTH, _NORTH = math.pi / 7, math.pi / 2 - math.pi / 7
_FASTEST, _MEAN_HEIGHT = 80.0, 1e4  # m/s, m
_BUMP_HEIGHT, _BUMP_LATITUDE = 120.0, math.pi / 4
_BUMP_LENGTH, _BUMP_WIDTH = 1 / 3, 1 / 15


def galewsky_jet(model: ShallowWater, *, is_perturbed: bool = True) -> Tensor:
    r"""The barotropically unstable jet of Galewsky et al., with its height in gradient balance.

    ::

        u(lat) = u_max exp(4 / (s - n)^2) exp(1 / ((lat - s) (lat - n))),    s < lat < n
        g h(lat) = g h_0 - integral of a u (f + u tan(lat) / a) dlat
        h' = 120 m cos(lat) exp(-(3 lon)^2) exp(-(15 (pi / 4 - lat))^2)

    with ``u_max = 80`` m/s, ``s = pi / 7``, ``n = pi / 2 - s``, angles in radians, and ``h_0`` such
    that the mean height is 10 km. The integral is a trapezoidal sum of 20001 points. The bump
    ``h'`` sets off waves that roll the jet up in five to six days; without it the jet is a steady
    state: over a day at T42, without hyperdiffusion, to 0.3 m of height. The paper's figures take
    T85 or more.

    Args:
        model: gives the grid and the constants.
        is_perturbed: whether the height has the bump.

    Returns:
        One state ``(3, lat, lon)`` in the model's dtype.

    Raises:
        InputError: something else than a `ShallowWater`.

    References:
        Galewsky, Scott and Polvani (2004), Tellus A 56, 429.

    Examples:
        >>> from invdiff.operators.atmosphere import ShallowWater, galewsky_jet
        >>> model = ShallowWater()
        >>> state = galewsky_jet(model)
        >>> state.shape
        torch.Size([3, 32, 64])
        >>> round(float(state[0].max()))  # m/s, at the nearest latitude
        72
    """
    if not isinstance(model, ShallowWater):
        raise InputError(
            "the jet needs a shallow-water model", got=describe(model), expected="a ShallowWater"
        )
    harmonics = model.harmonics
    lat = np.radians(harmonics.latitudes)
    fine = np.linspace(-math.pi / 2, math.pi / 2, 20001)
    u = _wind(fine)
    slope = model.radius * u * (2 * model.rotation * np.sin(fine) + u * np.tan(fine) / model.radius)
    steps = 0.5 * (slope[1:] + slope[:-1]) * np.diff(fine) / model.gravity
    balanced = np.interp(lat, fine, -np.concatenate([[0.0], np.cumsum(steps)]))
    balanced += _MEAN_HEIGHT - balanced @ harmonics.weights
    height = np.repeat(balanced[:, None], harmonics.shape[1], axis=1)
    if is_perturbed:
        lon = (np.radians(harmonics.longitudes) + math.pi) % (2 * math.pi) - math.pi
        across = np.cos(lat) * np.exp(-(((_BUMP_LATITUDE - lat) / _BUMP_WIDTH) ** 2))
        height += _BUMP_HEIGHT * across[:, None] * np.exp(-((lon / _BUMP_LENGTH) ** 2))
    zonal = np.repeat(_wind(lat)[:, None], harmonics.shape[1], axis=1)
    state = np.stack([zonal, np.zeros_like(zonal), height])
    return torch.from_numpy(state).to(model.dtype)


def _wind(lat: np.ndarray) -> np.ndarray:
    """The zonal wind, m/s, zero outside of the jet."""
    inside = (lat > _SOUTH) & (lat < _NORTH)
    product = np.where(inside, (lat - _SOUTH) * (lat - _NORTH), -1.0)
    wind = _FASTEST * np.exp(4 / (_SOUTH - _NORTH) ** 2 + 1 / product)
    return np.where(inside, wind, 0.0)
