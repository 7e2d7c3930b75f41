"""The longest stable time step."""

from __future__ import annotations

import math

import numpy as np

from invdiff.errors import InputError

__all__ = ["longest_dt", "n_substeps"]

_SAFETY = 0.95  # room for the damping and for round-off


def longest_dt(
    spacing: tuple[float, float], velocity: float, *, space_order: int, is_staggered: bool = False
) -> float:
    """The longest stable time step, s.

    Second order in time is stable for ``dt <= 2 / (v sqrt(K_z + K_x))`` with ``K`` the largest
    eigenvalue of ``-d^2/dz^2`` on the grid, the stencil's response to the shortest wave (Lines,
    Slawinski & Bording 1999, Geophysics 64(3)). Five percent are kept for damping and rounding.

    Args:
        spacing: of the grid, m.
        velocity: the highest, m/s.
        space_order: of the finite differences.
        is_staggered: whether the Laplacian is a divergence of a gradient half-way between points.

    >>> round(longest_dt((10.0, 10.0), 4000.0, space_order=8), 6)
    0.001317
    """
    n = space_order // 2
    if is_staggered:
        odd = np.arange(1, space_order, 2) / 2  # distances of the points, in cells
        powers = odd[None, :] ** (2 * np.arange(n)[:, None] + 1)
        staggered = np.linalg.solve(powers, np.eye(n)[0] / 2)
        response = float((2 * np.abs(staggered).sum()) ** 2)
    else:
        k = range(1, n + 1)
        f = math.factorial
        weights = [2 * f(n) ** 2 / (j**2 * f(n - j) * f(n + j)) for j in k]
        # At the shortest wave neighbours have opposite signs: only odd distances count, twice.
        response = 4 * sum(w for j, w in zip(k, weights, strict=True) if j % 2)
    return float(_SAFETY * 2 / (velocity * math.sqrt(sum(response / h**2 for h in spacing))))


def n_substeps(
    dt: float,
    spacing: tuple[float, float],
    velocity: float,
    *,
    space_order: int,
    is_staggered: bool = False,
    asked: int | None = None,
) -> int:
    """Time steps of the solver per sample of the data, the fewest that are stable.

    Raises:
        InputError: ``asked`` is less than stability needs.
    """
    limit = longest_dt(spacing, velocity, space_order=space_order, is_staggered=is_staggered)
    needed = math.ceil(dt / limit)
    if asked is not None and asked < needed:
        raise InputError(
            "the time step violates the CFL condition",
            got=f"dt = {dt / asked:g} s at {velocity:g} m/s on cells of {min(spacing):g} m",
            expected=f"at most {limit:g} s",
            hint=f"Set substeps={needed} or leave it out, lower the upper velocity bound, or use"
            " larger cells.",
        )
    return asked or needed
