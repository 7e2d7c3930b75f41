"""A shallow layer on the rotating sphere: balanced flow, Rossby waves and gravity waves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.grid import Grid
from invdiff.operators.atmosphere.inputs import as_damping_time, as_rate, check_harmonics
from invdiff.operators.atmosphere.integrators import OSCILLATION_LIMIT, check_dt, rk4
from invdiff.operators.atmosphere.rotation import (
    EARTH_RADIUS,
    EARTH_ROTATION,
    GRAVITY,
    half_decay,
    scales,
)
from invdiff.operators.atmosphere.sphere import SphericalHarmonics

__all__ = ["ShallowWater"]

_T21 = SphericalHarmonics(32)


@dataclass(frozen=True)
class ShallowWater:
    r"""The shallow-water equations on the rotating sphere, in vorticity and divergence.

    ::

        dz/dt = -div(eta v) - D z,        eta = z + f,   f = 2 Omega sin(lat)
        dd/dt = curl(eta v) - lap(g h + |v|^2 / 2) - D d
        dh/dt = -div(h v)

    for vorticity ``z = curl v``, divergence ``d = div v`` and depth ``h`` over a flat bottom: the
    core of a model of the atmosphere with one level, with its slow balanced flow and its fast
    gravity waves. States are winds and depths, which stations observe. ``D`` is hyperdiffusion,
    ``(l (l + 1) / T (T + 1))^4 / damping_time`` for degree ``l``; the depth has none, so that mass
    is conserved and a state of rest stays so.

    Scheme: spectral in spherical harmonics, Runge-Kutta of order four, explicit for gravity waves
    too, hyperdiffusion by an integrating factor. Products are free of aliases at the default
    truncation but for those of three fields. Mass is conserved to rounding; energy changes by the
    products of three fields and the time steps. What of a state lies beyond the truncation is
    dropped by the first step. Cost: about 60 transforms a step.

    The time step is limited by ``2.83 / ((max_velocity + sqrt(g max_depth)) T / a + 2 Omega)``,
    about: 55 minutes at T10, 29 at T21, 15 at T42.

    Args:
        harmonics: the transform: grid and truncation ``T``.
        dt: time step, s.
        damping_time: of the smallest scale, s; infinite for no hyperdiffusion.
        radius: ``a``, m.
        rotation: ``Omega``, 1/s.
        gravity: ``g``, m/s^2.
        max_velocity: largest wind that the time step must be stable for, m/s.
        max_depth: largest depth that the time step must be stable for, m.
        dtype: of the states.

    Raises:
        InputError: parameters out of range, or an unstable time step.

    References:
        Williamson et al. (1992), J. Comput. Phys. 102, 211; Hack and Jakob (1992), NCAR/TN-343.

    Examples:
        A state of rest stays at rest:

        >>> import torch
        >>> from invdiff.operators.atmosphere import ShallowWater, SphericalHarmonics
        >>> model = ShallowWater(SphericalHarmonics(16), dt=1800.0)
        >>> model.grid.coords["variable"].tolist()
        ['u', 'v', 'height']
        >>> rest = torch.zeros(1, 3, 16, 32)
        >>> rest[:, 2] = 1e4
        >>> torch.allclose(model.step(rest), rest, rtol=1e-6, atol=1e-3)
        True
    """

    harmonics: SphericalHarmonics = _T21
    dt: float = 900.0
    damping_time: float = 21600.0
    radius: float = EARTH_RADIUS
    rotation: float = EARTH_ROTATION
    gravity: float = GRAVITY
    max_velocity: float = 100.0
    max_depth: float = 1.1e4
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        check_harmonics(self.harmonics)
        for name in ("dt", "radius", "gravity", "max_velocity", "max_depth"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        object.__setattr__(self, "damping_time", as_damping_time(self.damping_time))
        object.__setattr__(self, "rotation", as_rate("rotation", self.rotation))
        degree = self.harmonics.degree
        waves = math.sqrt(degree * (degree + 1)) / self.radius
        speed = self.max_velocity + math.sqrt(self.gravity * self.max_depth)
        limit = OSCILLATION_LIMIT / (speed * waves + 2 * self.rotation)
        check_dt(self.dt, limit, because=f"gravity waves and winds add up to {speed:.0f} m/s")

    @property
    def grid(self) -> Grid:
        """Grid of the states: ``u``, ``v`` (m/s) and ``height`` (m) by latitude and longitude."""
        plane = self.harmonics.grid(self.dtype)
        coords = {"variable": np.array(["u", "v", "height"]), **plane.coords}
        dims, shape = ("variable", *plane.dims), (3, *plane.shape)
        return Grid(dims, shape, self.dtype, coords, "m s-1, m s-1, m")

    def step(self, state: Tensor) -> Tensor:
        """States ``(batch, 3, lat, lon)`` one time step later."""
        self.grid.check(state, name="state")
        f = 2 * self.rotation * scales(self.harmonics, like=state).sine
        decay = half_decay(self.harmonics, self.damping_time, self.dt, like=state)
        decay = torch.stack([decay, decay, torch.ones_like(decay)])
        x = rk4(lambda x: self._tendency(x, f), self._spectral(state), self.dt, half_decay=decay)
        u, v = self._wind(x)
        return torch.stack([u, v, self.harmonics.inverse(x[:, 2])], 1)

    def vorticity(self, state: Tensor) -> Tensor:
        """Relative vorticity, 1/s, ``(batch, lat, lon)``, of states ``(batch, 3, lat, lon)``."""
        self.grid.check(state, name="state")
        return self.harmonics.inverse(self._spectral(state)[:, 0])

    def _spectral(self, state: Tensor) -> Tensor:
        """Coefficients of vorticity, divergence and depth, ``(batch, 3, T + 1, T + 1)``."""
        u, v, height = state.unbind(1)
        rates = self.harmonics.divergence(torch.stack([v, u], 1), torch.stack([-u, v], 1))
        return torch.cat([rates / self.radius, self.harmonics.forward(height)[:, None]], 1)

    def _wind(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Wind of coefficients: of a stream function and of a potential."""
        potentials = self.radius * scales(self.harmonics, like=x).inverse * x[:, :2]
        east, north = self.harmonics.gradient(potentials)
        return east[:, 1] - north[:, 0], east[:, 0] + north[:, 1]

    def _tendency(self, x: Tensor, f: Tensor) -> Tensor:
        """Rates of change of the coefficients."""
        vorticity, height = self.harmonics.inverse(x[:, ::2]).unbind(1)
        u, v = self._wind(x)
        eta = vorticity + f
        # One call for all: curl(eta v) = div(eta v, -eta u), div(eta v) and div(h v).
        across, along, mass = self.harmonics.divergence(
            torch.stack([eta * v, eta * u, height * u], 1),
            torch.stack([-eta * u, eta * v, height * v], 1),
        ).unbind(1)
        head = self.gravity * x[:, 2] + self.harmonics.forward(0.5 * (u**2 + v**2))
        laplacian = scales(self.harmonics, like=f).laplacian / self.radius
        return torch.stack([-along, across - laplacian * head, -mass], 1) / self.radius
