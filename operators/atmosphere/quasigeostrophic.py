"""Baroclinic turbulence in two layers: quasi-geostrophic flow with a vertical shear."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.grid import Grid
from invdiff.operators.atmosphere.inputs import as_damping_time, as_rate
from invdiff.operators.atmosphere.integrators import OSCILLATION_LIMIT, check_dt, rk4
from invdiff.operators.atmosphere.periodic import (
    Waves,
    advection,
    square,
    to_field,
    to_waves,
    velocity,
    waves,
)

__all__ = ["TwoLayerQG"]


@dataclass(frozen=True)
class TwoLayerQG:
    r"""Two layers of quasi-geostrophic flow on a beta plane, about a mean zonal wind in each.

    The anomalies of potential vorticity ``q_i``, upper layer first, follow::

        dq_i/dt + J(psi_i, q_i) + U_i dq_i/dx + (beta + G_i) dpsi_i/dx = -d_i2 r lap psi_2 - D q_i
        q_1 = lap psi_1 + F_1 (psi_2 - psi_1),    G_1 =  F_1 (U_1 - U_2)
        q_2 = lap psi_2 + F_2 (psi_1 - psi_2),    G_2 = -F_2 (U_1 - U_2)
        F_1 = 1 / (R^2 (1 + delta)),   F_2 = delta F_1

    with ``J(a, b) = a_x b_y - a_y b_x``, velocities ``(-psi_y, psi_x)``, the deformation radius
    ``R`` and the ratio of depths ``delta = H_1 / H_2``, in a doubly periodic square. Equal layers
    are unstable where ``|U_1 - U_2| > 2 beta R^2``. By default the fastest wave, of 6000 km, grows
    by a factor of e in four days, and after some twenty days there is the turbulence of a storm
    track, with eddies of 26 m/s above and 11 m/s below (standard deviation). ``D`` is
    hyperdiffusion, ``(k / k_max)^8 / damping_time``; only the lower layer feels the drag ``r``.

    Scheme: pseudo-spectral, truncated to a third of ``n`` waves, Runge-Kutta of order four with
    hyperdiffusion by an integrating factor. Without shear, drag and hyperdiffusion energy and total
    enstrophy change by the error of the time steps alone. Cost: 20 FFTs of both layers a step.

    The time step is limited by ``2.83 / (sqrt(2) k_max max_velocity + beta length / 2 pi)``.

    Args:
        n: points along each side.
        dt: time step, s.
        length: of a side, m.
        beta: gradient of the Coriolis parameter, 1/(m s).
        radius: ``R``, m.
        depth_ratio: ``delta``.
        winds: mean winds ``(U_1, U_2)``, m/s.
        drag: ``r``, 1/s.
        damping_time: of the smallest waves, s; infinite for no hyperdiffusion.
        max_velocity: largest speed, mean wind included, that the time step must be stable for, m/s.
        dtype: of the states.

    Raises:
        InputError: parameters out of range, or an unstable time step.

    References:
        Phillips (1954), Tellus 6, 273; Vallis (2017), Atmospheric and Oceanic Fluid Dynamics, 9.6;
        the notation is that of pyqg's ``QGModel``.

    Examples:
        >>> import torch
        >>> from invdiff.operators.atmosphere import TwoLayerQG
        >>> model = TwoLayerQG(32)
        >>> model.grid.dims, model.grid.shape
        (('layer', 'y', 'x'), (2, 32, 32))
        >>> at_rest = torch.zeros(1, 2, 32, 32)
        >>> bool((model.step(at_rest) == 0).all())
        True
    """

    n: int = 64
    dt: float = 900.0
    length: float = 1.2e7
    beta: float = 1.6e-11
    radius: float = 7e5
    depth_ratio: float = 1.0
    winds: tuple[float, float] = (22.0, 0.0)
    drag: float = 5e-6
    damping_time: float = 7200.0
    max_velocity: float = 150.0
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", as_integer("n", self.n, least=8))
        for name in ("dt", "length", "radius", "depth_ratio", "max_velocity"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        for name in ("beta", "drag"):
            object.__setattr__(self, name, as_rate(name, getattr(self, name)))
        object.__setattr__(self, "damping_time", as_damping_time(self.damping_time))
        upper, lower = (as_number("a mean wind", u, above=-math.inf) for u in self.winds)
        object.__setattr__(self, "winds", (upper, lower))
        advected = math.sqrt(2) * self._largest_wave * self.max_velocity
        fastest = advected + self.beta * self.length / (2 * math.pi)
        because = f"advection at a speed of {self.max_velocity:g} m/s"
        check_dt(self.dt, OSCILLATION_LIMIT / fastest, because=because)

    @property
    def grid(self) -> Grid:
        """Grid of the states: potential vorticity, 1/s, on ``("layer", "y", "x")``."""
        plane = square(self.n, self.length, dtype=self.dtype, units="s-1")
        coords = {"layer": np.array([1, 2]), **plane.coords}
        return Grid(("layer", *plane.dims), (2, *plane.shape), self.dtype, coords, plane.units)

    @property
    def coupling(self) -> tuple[float, float]:
        """``(F_1, F_2)``, 1/m^2."""
        upper = 1 / (self.radius**2 * (1 + self.depth_ratio))
        return upper, self.depth_ratio * upper

    @property
    def _largest_wave(self) -> float:
        """The largest kept wavenumber along an axis, 1/m."""
        return 2 * math.pi / self.length * ((self.n - 1) // 3)

    def step(self, state: Tensor) -> Tensor:
        """Potential vorticity ``(batch, 2, n, n)`` one time step later."""
        self.grid.check(state, name="potential vorticity")
        k = self._waves(state)
        shear = self.winds[0] - self.winds[1]
        f_1, f_2 = self.coupling
        gradients = (self.beta + f_1 * shear, self.beta - f_2 * shear)
        wind, gradient, drag = (
            state.new_tensor(pair)[:, None, None]
            for pair in (self.winds, gradients, (0.0, self.drag))
        )

        def tendency(q: Tensor) -> Tensor:
            psi = self._stream(q, k)
            mean_flow = 1j * k.k_x * (wind * q + gradient * psi)
            return advection(psi, q, k) - mean_flow + drag * k.squared * psi

        rate = (k.squared / self._largest_wave**2) ** 4 / self.damping_time
        q = k.kept * to_waves(state)
        return to_field(rk4(tendency, q, self.dt, half_decay=torch.exp(-0.5 * self.dt * rate)))

    def stream(self, state: Tensor) -> Tensor:
        """Stream functions ``psi_i``, m^2/s, ``(batch, 2, n, n)``, of potential vorticity."""
        self.grid.check(state, name="potential vorticity")
        return to_field(self._stream(to_waves(state), self._waves(state)))

    def velocity(self, state: Tensor) -> Tensor:
        """Velocity anomalies ``(u, v)``, m/s, ``(batch, 2, layer, n, n)``."""
        self.grid.check(state, name="potential vorticity")
        k = self._waves(state)
        return velocity(self._stream(to_waves(state), k), k).movedim(0, 1)

    def _stream(self, q: Tensor, k: Waves) -> Tensor:
        """Coefficients of ``psi_i``: the inverse of a 2 x 2 matrix at each wave but the mean."""
        f_1, f_2 = self.coupling
        q_1, q_2 = q.unbind(-3)
        factor = -k.inverse / (k.squared + f_1 + f_2)
        psi_1 = factor * ((k.squared + f_2) * q_1 + f_1 * q_2)
        psi_2 = factor * ((k.squared + f_1) * q_2 + f_2 * q_1)
        return torch.stack([psi_1, psi_2], -3)

    def _waves(self, state: Tensor) -> Waves:
        return waves(self.n, self.length, dtype=state.dtype, device=state.device)
