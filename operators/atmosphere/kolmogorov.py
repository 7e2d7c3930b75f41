"""Two-dimensional turbulence that a sinusoidal force drives: Kolmogorov flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.operators.atmosphere.inputs import as_rate
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

__all__ = ["KolmogorovFlow"]


@dataclass(frozen=True)
class KolmogorovFlow:
    r"""Incompressible flow in a periodic square, driven by a force that is a sine of ``y``.

    The vorticity ``w = dv/dx - du/dy`` of the velocity ``(u, v)`` follows::

        dw/dt + u dw/dx + v dw/dy = nu lap w - mu w - A k cos(k y),   0 <= x, y < 2 pi

    in units without dimension: the force ``A sin(k y)`` acts on ``u``, the drag ``-mu (u, v)`` on
    both components. The defaults are the flow of score-based data assimilation, at a Reynolds
    number ``1 / nu`` of 1000.

    Scheme: pseudo-spectral, truncated to a third of ``n`` waves, so that products have no aliases;
    Runge-Kutta of order four, with viscosity and drag by an integrating factor. Without forcing,
    viscosity and drag, energy and enstrophy change by the error of the time steps alone. Waves of
    the state beyond the truncation are dropped by the first step. Cost: 20 FFTs a step.

    The time step is limited by ``2 / (k_max max_velocity)``, with ``k_max = (n - 1) // 3``.

    Args:
        n: points along each side.
        dt: time step.
        viscosity: ``nu``.
        drag: ``mu``.
        amplitude: ``A``.
        wavenumber: ``k``, of the force.
        max_velocity: largest speed that the time step must be stable for.
        dtype: of the states.

    Raises:
        InputError: parameters out of range, a force of more waves than the grid resolves, or an
            unstable time step.

    References:
        Kochkov et al. (2021), PNAS 118, e2101784118 (``drag=0.1``, ``wavenumber=4``); Rozet and
        Louppe (2023), arXiv 2306.10574; Canuto et al. (2006), Spectral Methods.

    Examples:
        The laminar flow ``u = A sin(k y) / (mu + nu k^2)`` is steady:

        >>> import torch
        >>> from invdiff.operators.atmosphere import KolmogorovFlow
        >>> model = KolmogorovFlow(32, dt=0.01, viscosity=0.1, drag=0.4)
        >>> y = torch.from_numpy(model.grid.coords["y"]).float()[:, None]
        >>> laminar = (-4 * torch.cos(4 * y) / (0.4 + 1.6)).expand(1, 32, 32)
        >>> torch.allclose(model.step(laminar), laminar, atol=1e-5)
        True
    """

    n: int = 64
    dt: float = 0.01
    viscosity: float = 1e-3
    drag: float = 0.1
    amplitude: float = 1.0
    wavenumber: int = 4
    max_velocity: float = 5.0
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", as_integer("n", self.n, least=8))
        for name in ("viscosity", "drag", "amplitude"):
            object.__setattr__(self, name, as_rate(name, getattr(self, name)))
        for name in ("dt", "max_velocity"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        largest = (self.n - 1) // 3
        k = as_integer("wavenumber", self.wavenumber, least=1)
        if k > largest:
            raise InputError(
                "the force has more waves than the grid resolves", got=k, expected=f"<= {largest}",
                hint=f"Use n={3 * k + 1} or more.",
            )  # fmt: skip
        object.__setattr__(self, "wavenumber", k)
        # |u| + |v| is at most sqrt(2) of the speed.
        limit = OSCILLATION_LIMIT / (math.sqrt(2) * largest * self.max_velocity)
        check_dt(self.dt, limit, because=f"advection at a speed of {self.max_velocity:g}")

    @property
    def grid(self) -> Grid:
        """Grid of the states: vorticity on ``("y", "x")``, coordinates from 0 to 2 pi."""
        return square(self.n, 2 * math.pi, dtype=self.dtype, units="1")

    def step(self, state: Tensor) -> Tensor:
        """Vorticity ``(batch, n, n)`` one time step later."""
        self.grid.check(state, name="vorticity")
        k = self._waves(state)
        force = _force(self, dtype=state.dtype, device=state.device)

        def tendency(w: Tensor) -> Tensor:
            return advection(-k.inverse * w, w, k) + force

        half_decay = torch.exp(-0.5 * self.dt * (self.viscosity * k.squared + self.drag))
        w = rk4(tendency, k.kept * to_waves(state), self.dt, half_decay=half_decay)
        return to_field(w)

    def velocity(self, state: Tensor) -> Tensor:
        """Velocity ``(u, v)``, ``(batch, 2, n, n)``, of vorticity ``(batch, n, n)``."""
        self.grid.check(state, name="vorticity")
        k = self._waves(state)
        return velocity(-k.inverse * to_waves(state), k).movedim(0, 1)

    def _waves(self, state: Tensor) -> Waves:
        return waves(self.n, 2 * math.pi, dtype=state.dtype, device=state.device)


@lru_cache(maxsize=16)
def _force(model: KolmogorovFlow, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Coefficients of ``-A k cos(k y)``."""
    n, k = model.n, model.wavenumber
    with torch.inference_mode(False):
        force = torch.zeros(n, n // 2 + 1, dtype=dtype.to_complex(), device=device)
        force[[k, -k], 0] = -0.5 * model.amplitude * k * n**2
    return force
