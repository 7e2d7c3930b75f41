"""The two acoustic wave equations in the terms of Devito."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["RHO_0", "ConstantDensity", "Equation", "VariableDensity"]

RHO_0 = 1000.0  # kg/m^3


class Equation(ABC):
    """A second-order wave equation ``inertia u_tt + d u_t - space(u) = f``.

    Its space part is symmetric, so that the discrete adjoint runs the same stencil backwards in
    time, and the derivatives of a misfit ``J`` with respect to the medium, ``imaging`` summed over
    time with the wave field ``u`` and the adjoint one ``w`` driven by the residual, are exact.
    """

    parameters: ClassVar[tuple[str, ...]]
    """Names of the fields that make the medium; the first is the inertia."""

    @abstractmethod
    def medium(self, grid: Any, order: int) -> dict[str, Any]:
        """Devito functions of the medium, by name."""

    @abstractmethod
    def space(self, u: Any, medium: dict[str, Any], name: str) -> tuple[list[Any], Any]:
        """Equations of intermediate fields (named after ``name``), and ``space(u)``."""

    @abstractmethod
    def imaging(self, u: Any, w: Any) -> dict[str, Any]:
        """What each time step adds to the gradient of each parameter."""


@dataclass(frozen=True)
class ConstantDensity(Equation):
    """``m u_tt - lap u + d u_t = f`` with ``m = 1 / v^2`` and ``dJ/dm = -sum_t u w_tt``."""

    parameters: ClassVar[tuple[str, ...]] = ("m",)

    def medium(self, grid: Any, order: int) -> dict[str, Any]:
        """The function ``m`` at the grid points."""
        from devito import Function

        return {"m": Function(name="m", grid=grid, space_order=order)}

    def space(self, u: Any, medium: dict[str, Any], name: str) -> tuple[list[Any], Any]:
        """The Laplacian ``lap u``; no intermediate fields."""
        return [], u.laplace

    def imaging(self, u: Any, w: Any) -> dict[str, Any]:
        """The term ``-u w_tt`` of the gradient by ``m``."""
        return {"m": -u * w.dt2}


@dataclass(frozen=True)
class VariableDensity(Equation):
    """``c u_tt - div(b grad u) + d u_t = f`` with ``c = RHO_0 / (rho v^2)``, ``b = RHO_0 / rho``.

    ``b`` lives half-way between the grid points; ``dJ/db = -sum_t grad u . grad w``.
    """

    parameters: ClassVar[tuple[str, ...]] = ("c", "bz", "bx")

    def medium(self, grid: Any, order: int) -> dict[str, Any]:
        """``c`` at the grid points, ``b`` half a cell further in ``z`` and in ``x``."""
        from devito import Function

        z, x = grid.dimensions
        return {
            "c": Function(name="c", grid=grid, space_order=order),
            "bz": Function(name="bz", grid=grid, space_order=order, staggered=z),
            "bx": Function(name="bx", grid=grid, space_order=order, staggered=x),
        }

    def space(self, u: Any, medium: dict[str, Any], name: str) -> tuple[list[Any], Any]:
        """``div(flux)`` with ``flux = b grad u`` kept half-way between the points."""
        from devito import Eq, Function

        z, x = u.grid.dimensions
        order = u.space_order
        flux_z = Function(name=f"{name}z", grid=u.grid, space_order=order, staggered=z)
        flux_x = Function(name=f"{name}x", grid=u.grid, space_order=order, staggered=x)
        slope_z, slope_x = _slopes(u)
        equations = [Eq(flux_z, medium["bz"] * slope_z), Eq(flux_x, medium["bx"] * slope_x)]
        return equations, flux_z.dz(x0=z) + flux_x.dx(x0=x)

    def imaging(self, u: Any, w: Any) -> dict[str, Any]:
        """``-u w_tt`` and ``-grad u . grad w`` by component."""
        (u_z, u_x), (w_z, w_x) = _slopes(u), _slopes(w)
        return {"c": -u * w.dt2, "bz": -u_z * w_z, "bx": -u_x * w_x}


def _slopes(u: Any) -> tuple[Any, Any]:
    """Derivatives half-way between the grid points."""
    z, x = u.grid.dimensions
    return u.dz(x0=z + z.spacing / 2), u.dx(x0=x + x.spacing / 2)
