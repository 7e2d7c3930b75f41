"""The Devito operators of a wave equation, one of each for all shots and models; core API only."""

# No number but the grid's spacing is written into an expression, for each would be a new program:
# medium, sources, receivers, wave fields, time step and duration are arguments of ``apply``.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from invdiff.errors import UnsupportedError
from invdiff.operators.seismic.equations import ConstantDensity, Equation

__all__ = ["Kernels"]


@dataclass(frozen=True)
class Kernels:
    """What to build: equation, padded shape, spacing and orders.

    Args:
        equation: constant or variable density.
        shape: of the padded model ``(z, x)``.
        spacing: m.
        dtype: ``"float32"`` or ``"float64"``.
        space_order: of the finite differences, even.
        mirror: row of a free surface, 0 for none.
        snapshot: time steps between stored wave fields.
    """

    equation: Equation
    shape: tuple[int, int]
    spacing: tuple[float, float]
    dtype: str = "float32"
    space_order: int = 8
    mirror: int = 0
    snapshot: int = 1

    def grid(self) -> Any:
        """The grid of points as Devito's Grid."""
        from devito import Constant, Grid, SpaceDimension

        dtype = np.dtype(self.dtype).type
        dimensions = tuple(
            SpaceDimension(name=n, spacing=Constant(name=f"h_{n}", dtype=dtype)) for n in "zx"
        )
        extent = tuple(h * (n - 1) for h, n in zip(self.spacing, self.shape, strict=True))
        return Grid(shape=self.shape, extent=extent, dimensions=dimensions, dtype=dtype)

    def field(self, grid: Any, name: str) -> Any:
        """A wave field of three time levels."""
        from devito import TimeFunction

        return TimeFunction(name=name, grid=grid, time_order=2, space_order=self.space_order)

    def stored_field(self, grid: Any, n_times: int) -> Any:
        """The stored wave field ``u`` (all times) or ``stored`` (every ``snapshot``-th)."""
        from devito import ConditionalDimension, TimeFunction

        if self.snapshot == 1:
            return TimeFunction(
                name="u", grid=grid, time_order=2, space_order=self.space_order, save=n_times
            )
        every = ConditionalDimension("ts", parent=grid.time_dim, factor=self.snapshot)
        return TimeFunction(
            name="stored",
            grid=grid,
            time_order=2,
            space_order=self.space_order,
            save=-(-n_times // self.snapshot),
            time_dim=every,
        )

    def points(self, grid: Any, name: str, *, n_points: int, n_times: int) -> Any:
        """Sources or receivers, interpolated bilinearly."""
        from devito import SparseTimeFunction

        return SparseTimeFunction(name=name, grid=grid, npoint=n_points, nt=n_times)

    def damping(self, grid: Any) -> Any:
        """The function that holds the damping ``d`` of each point."""
        from devito import Function

        return Function(name="damp", grid=grid, space_order=0)

    def forward(self, *, is_stored: bool) -> Any:
        """Propagates sources ``src``, records ``rec``, may store the wave field."""
        from devito import Eq

        grid = self.grid()
        medium = self._medium(grid)
        stored = self.stored_field(grid, 4) if is_stored else None
        u = stored if is_stored and self.snapshot == 1 else self.field(grid, "u")
        equations = self._propagate(u, medium, "src") + self._record(u)
        if stored is not None and stored is not u:
            equations.append(Eq(stored, u))
        return self._operator(grid, equations, "Forward" + "Stored" * is_stored)

    def gradient(self) -> Any:
        """Propagates receivers ``rec`` backwards and correlates with the stored wave field."""
        from devito import Function, Inc

        grid = self.grid()
        medium = self._medium(grid)
        stored, w = self.stored_field(grid, 4), self.field(grid, "w")
        equations = self._propagate(w, medium, "rec", is_backward=True)
        for name, rate in self.equation.imaging(stored, w).items():
            total = Function(name=f"g_{name}", grid=grid, space_order=0)
            equations.append(Inc(total, rate))
        return self._operator(grid, equations, "Gradient")

    def born(self) -> Any:
        """Propagates ``u`` and the field it scatters at a change ``dm``; records the latter.

        Raises:
            UnsupportedError: another equation than the one of constant density.
        """
        from devito import Function

        if not isinstance(self.equation, ConstantDensity):
            raise UnsupportedError(
                "Born needs the constant-density equation", got=self.equation,
                hint="Differentiate Acoustic with a density by torch.",
            )  # fmt: skip
        grid = self.grid()
        medium = self._medium(grid)
        change = Function(name="dm", grid=grid, space_order=self.space_order)
        u, du = self.field(grid, "u"), self.field(grid, "du")
        equations = self._propagate(u, medium, "src")
        equations += self._step(du, medium, -change * u.dt2)
        equations += self._mirrored(du) + self._record(du)
        return self._operator(grid, equations, "Born")

    def _medium(self, grid: Any) -> dict[str, Any]:
        """Parameters of the equation, and ``damp``."""
        return {**self.equation.medium(grid, self.space_order), "damp": self.damping(grid)}

    def _propagate(
        self, u: Any, medium: dict[str, Any], points: str, *, is_backward: bool = False
    ) -> list[Any]:
        """One time step, then the injection of ``points``, then the free surface."""
        new = u.backward if is_backward else u.forward
        inertia = medium[self.equation.parameters[0]]
        dt = u.grid.stepping_dim.spacing
        source = self.points(u.grid, points, n_points=1, n_times=4)
        injected = source.inject(field=new, expr=source * dt**2 / inertia)
        step = self._step(u, medium, 0, is_backward=is_backward)
        return [*step, injected, *self._mirrored(u, is_backward=is_backward)]

    def _step(
        self, u: Any, medium: dict[str, Any], source: Any, *, is_backward: bool = False
    ) -> list[Any]:
        """The wave equation solved for the next level; the damping's difference is one-sided."""
        from devito import Eq, solve

        intermediate, space = self.equation.space(u, medium, name=f"flux_{u.name}_")
        inertia = medium[self.equation.parameters[0]]
        new, rate = (u.backward, u.dt.T) if is_backward else (u.forward, u.dt)
        balance = inertia * u.dt2 - space + medium["damp"] * rate - source
        return [*intermediate, Eq(new, solve(balance, new))]

    def _record(self, u: Any) -> list[Any]:
        receivers = self.points(u.grid, "rec", n_points=1, n_times=4)
        return [receivers.interpolate(expr=u)]

    def _mirrored(self, u: Any, *, is_backward: bool = False) -> list[Any]:
        """``u(-z) = -u(z)`` above the free surface."""
        from devito import Eq

        if not self.mirror:
            return []
        _, x = u.grid.dimensions
        time = u.indices[0]
        new = time - u.grid.stepping_dim.spacing if is_backward else time + time.spacing
        top = self.mirror
        rows = [Eq(u[new, top, x], 0)]
        return rows + [Eq(u[new, top - k, x], -u[new, top + k, x]) for k in range(1, top + 1)]

    def _operator(self, grid: Any, equations: list[Any], name: str) -> Any:
        from devito import Operator

        # C and not OpenMP, whatever the environment says: shots run in parallel, not rows.
        return Operator(equations, subs=grid.spacing_map, name=name, language="C")
