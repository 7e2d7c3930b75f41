"""Small acquisitions and models for the tests of the seismic operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.operators.seismic import Acoustic, Boundary, Devito, Survey, Threads, ricker

__all__ = ["BOUNDS", "acoustic", "domain", "line", "model"]

BOUNDS = (1500.0, 3500.0)
SPACING = 10.0


def domain(shape: tuple[int, int] = (24, 30), dtype: torch.dtype = torch.float64) -> Grid:
    """Cells of 10 m."""
    z, x = (np.arange(n) * SPACING for n in shape)
    return Grid(("z", "x"), shape, dtype, {"z": z, "x": x})


def line(n_shots: int = 2, *, n_samples: int = 200, width: float = 290.0) -> Survey:
    """Shots and eight receivers near the top, off the grid points; 15 Hz, 1 ms."""
    sources = [(20.0 + i, x) for i, x in enumerate(np.linspace(0.2, 0.8, n_shots) * width)]
    receivers = [(23.0, x) for x in np.linspace(0.05, 0.95, 8) * width]
    return Survey(np.array(sources), np.array(receivers), ricker(15.0, 1e-3, n_samples), 1e-3)


def model(
    shape: tuple[int, int] = (24, 30), *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random velocities of 2000 to 2600 m/s, ``(1, nz, nx)``."""
    random = np.random.default_rng(seed).random((1, *shape))
    return torch.from_numpy(2000 + 600 * random).to(dtype)


def acoustic(
    survey: Survey | None = None,
    grid: Grid | None = None,
    *,
    space_order: int = 8,
    snapshot: int | None = 1,
    substeps: int | None = None,
    n_threads: int = 1,
    n_absorbing: int = 12,
    is_free_surface: bool = False,
    density: Tensor | Callable[[Tensor], Tensor] | None = None,
) -> Acoustic:
    """A small operator."""
    return Acoustic(
        survey or line(),
        grid or domain(),
        bounds=BOUNDS,
        boundary=Boundary(n_absorbing, is_free_surface),
        density=density,
        engine=Devito(space_order, snapshot, substeps, Threads(n_threads)),
    )
