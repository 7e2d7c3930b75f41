"""The chaotic models of Lorenz: three variables of convection, and a ring of sites."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.grid import Grid
from invdiff.operators.atmosphere.integrators import check_dt, rk4

__all__ = ["Lorenz63", "Lorenz96"]


@dataclass(frozen=True)
class Lorenz63:
    """Convection in three variables, chaotic at the default parameters.

    ::

        dx/dt = sigma (y - x),   dy/dt = x (rho - z) - y,   dz/dt = x y - beta z

    in units of its own, by the Runge-Kutta scheme of order four. Its volume contracts at the rate
    ``sigma + 1 + beta`` everywhere, and its largest Lyapunov exponent is 0.906.

    The time step is limited by ``2 / lambda`` with the fastest decay ``lambda`` at the origin,
    0.0876 by default: from 0.12 on the scheme ends in points that are no attractor.

    Args:
        dt: time step.
        sigma: Prandtl number, positive.
        rho: Rayleigh number over its critical value, positive.
        beta: aspect of the rolls, positive.
        dtype: of the states.

    Raises:
        InputError: parameters that are not positive, or an unstable time step.

    References:
        Lorenz (1963), J. Atmos. Sci. 20, 130.

    Examples:
        The non-trivial fixed points are at ``x = y = +-sqrt(beta (rho - 1)), z = rho - 1``:

        >>> import torch
        >>> from invdiff.operators.atmosphere import Lorenz63
        >>> model = Lorenz63(dt=0.025)
        >>> fixed = torch.tensor([[72**0.5, 72**0.5, 27.0]])
        >>> model.step(fixed)
        tensor([[ 8.4853,  8.4853, 27.0000]])
    """

    dt: float = 0.01
    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for name in ("dt", "sigma", "rho", "beta"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        middle, product = self.sigma + 1, 4 * self.sigma * self.rho
        fastest = (middle + math.sqrt((self.sigma - 1) ** 2 + product)) / 2
        check_dt(self.dt, 2 / max(fastest, self.beta), because="the decay at the origin is fast")

    @property
    def grid(self) -> Grid:
        """Grid of the states: dim ``("component",)`` of x, y and z."""
        return Grid(("component",), (3,), self.dtype, {"component": np.array(["x", "y", "z"])})

    def step(self, state: Tensor) -> Tensor:
        """States ``(batch, 3)`` one time step later."""
        self.grid.check(state, name="state")
        return rk4(self.tendency, state, self.dt)

    def tendency(self, state: Tensor) -> Tensor:
        """Right-hand side of the equations, ``(batch, 3)``."""
        x, y, z = state.unbind(-1)
        rates = (self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z)
        return torch.stack(rates, -1)


@dataclass(frozen=True)
class Lorenz96:
    """A ring of sites with advection, damping and forcing: the standard test of assimilation.

    ::

        dx_i/dt = (x_(i+1) - x_(i-2)) x_(i-1) - x_i + F

    in units of its own (0.05 are read as six hours), by the Runge-Kutta scheme of order four.
    Advection conserves ``sum x_i^2``. With 40 sites and ``F = 8`` it is chaotic, errors double in
    0.42 units of time, and the states have mean 2.3 and standard deviation 3.6.

    The time step is limited by ``0.5 / |F|``: from about ``0.8 / |F|`` runs diverge.

    Args:
        n_sites: sites of the ring, at least four.
        dt: time step.
        forcing: ``F``.
        dtype: of the states.

    Raises:
        InputError: too few sites, or an unstable time step.

    References:
        Lorenz (1996), Predictability: a problem partly solved, ECMWF Seminar, 1-18; Lorenz and
        Emanuel (1998), J. Atmos. Sci. 55, 399.

    Examples:
        >>> import torch
        >>> from invdiff.operators.atmosphere import Lorenz96
        >>> model = Lorenz96(40)
        >>> model.step(torch.full((2, 40), 8.0)).unique()  # an unstable steady state
        tensor([8.])
    """

    n_sites: int = 40
    dt: float = 0.05
    forcing: float = 8.0
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_sites", as_integer("n_sites", self.n_sites, least=4))
        object.__setattr__(self, "dt", as_number("dt", self.dt))
        object.__setattr__(self, "forcing", as_number("forcing", self.forcing, above=-math.inf))
        limit = 0.5 / max(abs(self.forcing), 1.0)
        check_dt(self.dt, limit, because="the forcing makes advection fast")

    @property
    def grid(self) -> Grid:
        """Grid of the states: dim ``("site",)``."""
        return Grid(("site",), (self.n_sites,), self.dtype, {"site": np.arange(self.n_sites)})

    def step(self, state: Tensor) -> Tensor:
        """States ``(batch, n_sites)`` one time step later."""
        self.grid.check(state, name="state")
        return rk4(self.tendency, state, self.dt)

    def tendency(self, state: Tensor) -> Tensor:
        """Right-hand side of the equations, ``(batch, n_sites)``."""
        ahead, behind, two_behind = (state.roll(shift, -1) for shift in (-1, 1, 2))
        return (ahead - two_behind) * behind - state + self.forcing
