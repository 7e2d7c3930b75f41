"""The rotating sphere: the Earth's constants, Coriolis parameter, and scales by degree."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from invdiff.operators.atmosphere.sphere import SphericalHarmonics

__all__ = [
    "EARTH_RADIUS",
    "EARTH_ROTATION",
    "GRAVITY",
    "coriolis",
    "half_decay",
    "inverse_laplacian",
]

# As in the test cases of Williamson et al. (1992), J. Comput. Phys. 102, 211.
EARTH_RADIUS = 6.37122e6
"""Mean radius of the Earth, m."""
EARTH_ROTATION = 7.292e-5
"""Rotation of the Earth, 1/s."""
GRAVITY = 9.80616
"""Acceleration of gravity, m/s^2."""


def coriolis(harmonics: SphericalHarmonics, rotation: float, *, like: Tensor) -> Tensor:
    """Coriolis parameter ``2 Omega sin(lat)``, 1/s, ``(lat, 1)``, of the kind of ``like``."""
    sine = np.sin(np.radians(harmonics.latitudes))[:, None]
    return _as(2 * rotation * sine, like)


def inverse_laplacian(harmonics: SphericalHarmonics, *, like: Tensor) -> Tensor:
    """``-1 / (l (l + 1))`` of each degree, zero for the mean, ``(T + 1, 1)``, real."""
    eigenvalues = harmonics.laplacian
    safe = np.where(eigenvalues == 0, -np.inf, eigenvalues)
    return _as(1 / safe, like)


def half_decay(
    harmonics: SphericalHarmonics, damping_time: float, dt: float, *, like: Tensor
) -> Tensor | float:
    """Decay by hyperdiffusion in half a time step, ``(T + 1, 1)``, real; 1 without any.

    Args:
        harmonics: give the degrees.
        damping_time: of the largest degree, s, from where the rate falls as ``(l (l + 1))^4``.
        dt: time step, s.
        like: tensor that gives dtype and device.
    """
    if damping_time == math.inf:
        return 1.0
    eigenvalues = harmonics.laplacian
    rate = (eigenvalues / eigenvalues[-1]) ** 4 / damping_time
    return _as(np.exp(-0.5 * dt * rate), like)


def _as(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device, like.dtype.to_real())
