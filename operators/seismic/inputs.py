"""Checks of what enters the wave solvers: grids, bounds, velocities, densities and weights."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.grid import Grid
from invdiff.operators.seismic.survey import Survey

__all__ = [
    "check_below_surface",
    "check_bounds",
    "check_density",
    "check_domain",
    "check_velocity",
    "check_weights",
]


def check_domain(domain: Grid) -> None:
    """Refuse grids that are not evenly spaced, or of a dtype that no solver computes in."""
    if domain.dtype not in (torch.float32, torch.float64):
        raise DTypeError(
            "waves cannot be computed in this dtype",
            got=domain.dtype,
            expected="torch.float32 or torch.float64",
        )
    for dim in ("z", "x"):
        steps = np.diff(np.asarray(domain.coords[dim], np.float64))
        if not (len(steps) and steps.min() > 0 and np.allclose(steps, steps[0], rtol=1e-4)):
            raise InputError(
                f"the grid is not evenly spaced in {dim}",
                got=f"steps of {steps.min():g} to {steps.max():g} m" if len(steps) else "one point",
                expected="equal positive steps",
                hint="Interpolate the model onto an even grid.",
            )


def check_bounds(bounds: tuple[float, float]) -> None:
    """Refuse velocity bounds that are not a range in m/s."""
    low, high = bounds
    if not 0 < low < high < math.inf:
        raise InputError(
            "velocity bounds are not a range", got=bounds, expected="0 < low < high, finite"
        )
    if high < 20:
        raise InputError(
            "velocity bounds look like km/s",
            got=bounds,
            expected="m/s",
            hint="Multiply them by 1000.",
        )


def check_below_surface(survey: Survey, surface: float) -> None:
    """Refuse sources and receivers on a free surface at depth ``surface``."""
    for name, positions in (("source", survey.sources), ("receiver", survey.receivers)):
        if (positions[..., 0] <= surface).any():
            raise InputError(
                f"a {name} lies on the free surface, where the pressure is zero",
                got=f"z = {positions[..., 0].min():g} m",
                expected=f"z > {surface:g} m",
                hint="Put it a cell deeper, or make the surface absorbing.",
            )


def check_velocity(x: Tensor, bounds: tuple[float, float]) -> None:
    """Refuse velocities that are not finite, or out of bounds."""
    _check_finite(x, "velocity")
    low, high = (float(end) for end in x.detach().aminmax())
    if low < bounds[0] or high > bounds[1]:
        looks_like_km = 0 < high < 20
        raise InputError(
            "velocity is out of bounds",
            got=f"{low:g} to {high:g}",
            expected=f"{bounds[0]:g} to {bounds[1]:g} m/s",
            hint="It looks like km/s: multiply it by 1000."
            if looks_like_km
            else "Clamp it, or build the operator with wider bounds; a higher upper bound"
            " shortens the time step.",
        )


def check_density(density: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse densities of another shape, or that are not positive in kg/m^3."""
    if tuple(density.shape) != shape:
        raise ShapeError(
            "density does not fit the models", got=tuple(density.shape), expected=shape
        )
    _check_finite(density, "density")
    low, high = (float(end) for end in density.detach().aminmax())
    if low <= 0 or high < 20:
        raise InputError(
            "not a density in kg/m^3",
            got=f"{low:g} to {high:g}",
            expected="> 0, about 1000 to 3000",
            hint="It looks like g/cm^3: multiply it by 1000."
            if low > 0
            else "Fill what is missing; water has 1000, and a vacuum is a free surface.",
        )


def check_weights(weights: NDArray[np.float64], n_shots: int) -> None:
    """Refuse weights that do not encode ``n_shots`` shots."""
    if not np.isfinite(weights).all():
        raise NonFiniteError(
            "weights hold NaN or Inf",
            got=f"{int((~np.isfinite(weights)).sum())} of {weights.size}",
            expected="finite weights",
        )
    is_matrix = weights.ndim == 2 and weights.shape[1] == n_shots and len(weights) > 0
    if not is_matrix or not weights.any(axis=1).all():
        raise ShapeError(
            "weights do not encode the shots",
            got=f"shape {weights.shape}",
            expected=f"(n_encoded, {n_shots}), without rows of zeros",
        )


def _check_finite(field: Tensor, name: str) -> None:
    if not torch.isfinite(field).all():
        raise NonFiniteError(
            f"{name} holds NaN or Inf",
            got=f"{int((~torch.isfinite(field)).sum())} of {field.numel()} cells",
            expected="finite values",
            hint="Fill them; if an update made them, shorten its step.",
        )
