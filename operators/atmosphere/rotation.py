"""The rotating sphere: the Earth's constants, Coriolis parameter, and scales by degree."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from invdiff.operators.atmosphere.sphere import SphericalHarmonics

__all__ = ["EARTH_RADIUS", "EARTH_ROTATION", "GRAVITY", "Scales", "half_decay", "scales"]

# As in the test cases of Williamson et al. (1992), J. Comput. Phys. 102, 211.
EARTH_RADIUS = 6.37122e6
"""Mean radius of the Earth, m."""
EARTH_ROTATION = 7.292e-5
"""Rotation of the Earth, 1/s."""
GRAVITY = 9.80616
"""Acceleration of gravity, m/s^2."""


class Scales(NamedTuple):
    """Real factors of fields and of coefficients."""

    sine: Tensor
    """Of the latitudes, ``(lat, 1)``."""
    laplacian: Tensor
    """``-l (l + 1)`` of each degree, ``(T + 1, 1)``."""
    inverse: Tensor
    """``-1 / (l (l + 1))``, zero for the mean, ``(T + 1, 1)``."""


def scales(harmonics: SphericalHarmonics, *, like: Tensor) -> Scales:
    """The factors in the precision and on the device of ``like``, made once for each."""
    return _scales(harmonics, like.dtype.to_real(), like.device)


def half_decay(
    harmonics: SphericalHarmonics, damping_time: float, dt: float, *, like: Tensor
) -> Tensor:
    """Decay by hyperdiffusion in half a time step, real ``(T + 1, 1)``.

    Args:
        harmonics: give the degrees.
        damping_time: of the largest degree, s, from where the rate falls as ``(l (l + 1))^4``.
        dt: time step, s.
        like: tensor that gives precision and device.
    """
    eigenvalues = scales(harmonics, like=like).laplacian
    rate = (eigenvalues / eigenvalues[-1]) ** 4 / damping_time
    return torch.exp(-0.5 * dt * rate)


@lru_cache(maxsize=32)
def _scales(harmonics: SphericalHarmonics, dtype: torch.dtype, device: torch.device) -> Scales:
    laplacian = harmonics.laplacian
    inverse = 1 / np.where(laplacian == 0, -math.inf, laplacian)
    arrays = (np.sin(np.radians(harmonics.latitudes))[:, None], laplacian, inverse)
    # Kept beyond this call, which may be inside an inference mode whose tensors have no gradients.
    with torch.inference_mode(False):
        return Scales(*(torch.from_numpy(array).to(device, dtype) for array in arrays))
