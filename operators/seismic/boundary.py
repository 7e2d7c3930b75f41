"""The edges of a model: absorbing layers and a free surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError

__all__ = ["Boundary"]


@dataclass(frozen=True)
class Boundary:
    r"""Absorbing layers around a model, or a free surface on top of it.

    The layers continue the model's edge outwards. Waves decay in them by a term ``d u_t`` of the
    wave equation (Sochacki et al. 1987, Geophysics 52(1); the profile of Devito's examples)::

        d(l) = 3 log(1/R) / (2 L v_ref) (s - sin(2 pi s) / (2 pi)),    s = l / L

    at distance ``l`` into a layer of thickness ``L``. ``d`` does not depend on the velocity, and
    adds no term to the gradient. Under a free surface, ghost rows above the model mirror the
    pressure with the opposite sign. Layers absorb less at grazing incidence than ``reflection``
    says; each adds its cells to the cost of a solve. Deepwave replaces them by its CPMLs.

    Args:
        n_absorbing: cells of the absorbing layers; one and a half wavelengths at the lowest
            frequency of interest is a good thickness.
        is_free_surface: whether the pressure vanishes at the top row of the model, instead of an
            absorbing layer above it.
        reflection: share of the amplitude that may come back at normal incidence, ``R``.

    Raises:
        InputError: a thickness that is not an integer >= 1, or a reflection that is not within 0
            and 1.

    >>> Boundary(40).shape((100, 200), n_ghost=4)
    (180, 280)
    >>> Boundary(40, is_free_surface=True).shape((100, 200), n_ghost=4)
    (144, 280)
    """

    n_absorbing: int = 40
    is_free_surface: bool = False
    reflection: float = 1e-3

    def __post_init__(self) -> None:
        n = as_integer("n_absorbing", self.n_absorbing)
        object.__setattr__(self, "n_absorbing", n)
        if n < 1 or not 0 < self.reflection < 1:
            raise InputError(
                "the absorbing layer is out of range",
                got=f"n_absorbing={n} cells and a reflection of {self.reflection:g}",
                expected="n_absorbing >= 1 and a reflection between 0 and 1",
            )

    def top(self, n_ghost: int) -> int:
        """Rows above the model: ghosts of a free surface, else the layer."""
        return n_ghost if self.is_free_surface else self.n_absorbing

    def shape(self, model: tuple[int, int], n_ghost: int) -> tuple[int, int]:
        """Shape of the padded model ``(z, x)``."""
        n = self.n_absorbing
        return model[0] + self.top(n_ghost) + n, model[1] + 2 * n

    def pad(self, x: Tensor, n_ghost: int) -> Tensor:
        """Fields ``(batch, nz, nx)`` with their edges repeated; torch knows the adjoint."""
        n = self.n_absorbing
        if self.is_free_surface:
            x = F.pad(x[:, None], (0, 0, n_ghost, 0), mode="reflect")[:, 0]
            return F.pad(x[:, None], (n, n, 0, n), mode="replicate")[:, 0]
        return F.pad(x[:, None], (n, n, n, n), mode="replicate")[:, 0]

    def damping(
        self, model: tuple[int, int], n_ghost: int, *, spacing: tuple[float, float], velocity: float
    ) -> NDArray[np.float64]:
        """``d`` over the padded model, s/m^2.

        Args:
            model: its shape before padding.
            n_ghost: ghost rows of a free surface.
            spacing: of the grid, m.
            velocity: ``v_ref``, for which ``reflection`` holds, m/s.
        """
        n_z, n_x = self.shape(model, n_ghost)
        n, top = self.n_absorbing, self.top(n_ghost)
        z, x = np.arange(n_z), np.arange(n_x)
        above = 0 * z if self.is_free_surface else top - z
        rows = np.maximum(above, z - (top + model[0] - 1)) / n
        columns = np.maximum(n - x, x - (n + model[1] - 1)) / n
        total = np.zeros((n_z, n_x))
        sides = zip((rows[:, None], columns[None, :]), spacing, strict=True)
        for depth, step in sides:
            s = np.clip(depth, 0, 1)
            strength = 1.5 * np.log(1 / self.reflection) / (n * step * velocity)
            total = total + strength * (s - np.sin(2 * np.pi * s) / (2 * np.pi))
        return total
