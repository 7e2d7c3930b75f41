"""Flow without divergence on the rotating sphere: the barotropic vorticity equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.grid import Grid
from invdiff.operators.atmosphere.inputs import as_damping_time, as_rate, check_harmonics
from invdiff.operators.atmosphere.integrators import OSCILLATION_LIMIT, check_dt, rk4
from invdiff.operators.atmosphere.rotation import (
    EARTH_RADIUS,
    EARTH_ROTATION,
    half_decay,
    scales,
)
from invdiff.operators.atmosphere.sphere import SphericalHarmonics

__all__ = ["BarotropicVorticity"]

_T21 = SphericalHarmonics(32)


@dataclass(frozen=True)
class BarotropicVorticity:
    r"""Vorticity of a flow without divergence on the rotating sphere: one level of the atmosphere.

    ::

        dz/dt = -div((z + f) (u, v)) - D z,   lap psi = z,   f = 2 Omega sin(lat)
        u = -(1/a) dpsi/dlat,   v = 1/(a cos(lat)) dpsi/dlon

    The first model to forecast the weather with; its planetary waves, jets and eddies are those of
    500 hPa. ``D`` is hyperdiffusion, ``(l (l + 1) / T (T + 1))^4 / damping_time`` for degree ``l``.

    Scheme: spectral in spherical harmonics, with products on the grid that have no aliases at the
    default truncation; Runge-Kutta of order four, hyperdiffusion by an integrating factor. Without
    hyperdiffusion energy and enstrophy change by the error of the time steps alone. What of a state
    lies beyond the truncation is dropped by the first step. Cost: 20 transforms a step.

    The time step is limited by ``2.83 / (max_velocity T / a + Omega)``, about.

    Args:
        harmonics: the transform: grid and truncation ``T``.
        dt: time step, s.
        damping_time: of the smallest scale, s; infinite for no hyperdiffusion.
        radius: ``a``, m.
        rotation: ``Omega``, 1/s.
        max_velocity: largest wind that the time step must be stable for, m/s.
        dtype: of the states.

    Raises:
        InputError: parameters out of range, or an unstable time step.

    References:
        Charney, Fjortoft and von Neumann (1950), Tellus 2, 237; Durran (2010), Numerical Methods
        for Fluid Dynamics, 6.4.

    Examples:
        A zonal flow, the same at all longitudes, is steady:

        >>> import numpy as np
        >>> import torch
        >>> from invdiff.operators.atmosphere import BarotropicVorticity, SphericalHarmonics
        >>> model = BarotropicVorticity(SphericalHarmonics(16), damping_time=float("inf"))
        >>> lat = torch.from_numpy(np.radians(model.grid.coords["lat"])).float()[:, None]
        >>> solid = (1e-5 * torch.sin(lat)).expand(1, 16, 32)
        >>> torch.allclose(model.step(solid), solid, atol=1e-10)
        True
    """

    harmonics: SphericalHarmonics = _T21
    dt: float = 1800.0
    damping_time: float = 21600.0
    radius: float = EARTH_RADIUS
    rotation: float = EARTH_ROTATION
    max_velocity: float = 150.0
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        check_harmonics(self.harmonics)
        for name in ("dt", "radius", "max_velocity"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        object.__setattr__(self, "damping_time", as_damping_time(self.damping_time))
        object.__setattr__(self, "rotation", as_rate("rotation", self.rotation))
        degree = self.harmonics.degree
        waves = math.sqrt(degree * (degree + 1)) / self.radius
        limit = OSCILLATION_LIMIT / (self.max_velocity * waves + self.rotation)
        check_dt(self.dt, limit, because=f"advection at {self.max_velocity:g} m/s")

    @property
    def grid(self) -> Grid:
        """Grid of the states: relative vorticity, 1/s, on ``("lat", "lon")``."""
        return self.harmonics.grid(self.dtype, "s-1")

    def step(self, state: Tensor) -> Tensor:
        """Relative vorticity ``(batch, lat, lon)`` one time step later."""
        self.grid.check(state, name="vorticity")
        f = 2 * self.rotation * scales(self.harmonics, like=state).sine
        decay = half_decay(self.harmonics, self.damping_time, self.dt, like=state)

        def tendency(z: Tensor) -> Tensor:
            absolute = self.harmonics.inverse(z) + f
            u, v = self._velocity(z)
            return -self.harmonics.divergence(u * absolute, v * absolute) / self.radius

        z = rk4(tendency, self.harmonics.forward(state), self.dt, half_decay=decay)
        return self.harmonics.inverse(z)

    def velocity(self, state: Tensor) -> Tensor:
        """Wind ``(u, v)``, m/s, ``(batch, 2, lat, lon)``, of vorticity ``(batch, lat, lon)``."""
        self.grid.check(state, name="vorticity")
        return torch.stack(self._velocity(self.harmonics.forward(state)), 1)

    def _velocity(self, z: Tensor) -> tuple[Tensor, Tensor]:
        psi = self.radius * scales(self.harmonics, like=z).inverse * z
        east, north = self.harmonics.gradient(psi)
        return -north, east
