r"""Parallel line integrals of a 2-D field: tomography, ray-theoretical travel times.

For angle ``theta`` and offset ``s``, both about the centre of the field::

    y(theta, s) = integral of x(s cos(theta) - l sin(theta), s sin(theta) + l cos(theta)) dl

with ``x`` bilinear between the grid points and zero outside, sampled along the line (Natterer, The
Mathematics of Computerized Tomography, 1986). Linear; a sparse matrix, so the adjoint is exact; a
product costs about ``4 max(shape)`` multiplications a line. Hand-written, since torch has no
forward-mode derivative of sparse products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid
from invdiff.operators.base import HandWritten

__all__ = ["LineIntegrals"]

_STEP = 0.5  # grid points between samples along a line


class LineIntegrals(HandWritten):
    """Integrals along ``n_offsets`` parallel lines at each angle, in units of grid points.

    Args:
        domain: 2-D grid of the fields, real or complex; its axes are rows (y) and columns (x).
        angles: of the lines' normals against the last axis, in radians.
        n_offsets: lines at each angle, evenly spaced over ``max(domain.shape)``.

    Raises:
        ShapeError: a domain that is not 2-D.
        InputError: no angles, angles that are not finite, or no lines.
    """

    def __init__(self, domain: Grid, angles: Sequence[float], n_offsets: int) -> None:
        if domain.ndim != 2:
            raise ShapeError("line integrals need a plane", got=domain.dims, expected="two axes")
        if len(angles) == 0 or not np.isfinite(angles).all() or n_offsets < 1:
            raise InputError(
                "no lines",
                got=f"angles={list(angles)}, n_offsets={n_offsets}",
                expected="one or more finite angles and n_offsets >= 1",
            )
        angle = np.asarray(angles, float)
        spacing = max(domain.shape) / n_offsets
        offset = (np.arange(n_offsets) - (n_offsets - 1) / 2) * spacing
        data = Grid(
            ("angle", "offset"),
            (len(angle), n_offsets),
            domain.dtype,
            coords={"angle": angle, "offset": offset},
        )
        super().__init__(domain, data)
        self.matrix = _rays(domain, angle, offset)
        self._transposed = self.matrix.mT.coalesce()

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.sparse.mm(self.matrix, x.flatten(1).mT).mT
        return y.reshape(-1, *self.range.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = torch.sparse.mm(self._transposed, y.flatten(1).mT).mT
        return x.reshape(-1, *self.domain.shape)


def _rays(domain: Grid, angle: np.ndarray, offset: np.ndarray) -> Tensor:
    """Sparse ``(n_lines, domain.size)``: bilinear weights of the samples times their spacing."""
    n_y, n_x = domain.shape
    reach = math.ceil(math.hypot(n_y + 1, n_x + 1) / 2 / _STEP)
    along = np.arange(-reach, reach + 1) * _STEP
    s, c = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    x = offset[:, None] * c - along * s + (n_x - 1) / 2
    y = offset[:, None] * s + along * c + (n_y - 1) / 2
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    u, v = x - left, y - top
    line = np.broadcast_to(np.arange(angle.size * offset.size).reshape(s.size, -1, 1), x.shape)
    rows, columns, weights = [], [], []
    for i, j, weight in (
        (top, left, (1 - v) * (1 - u)),
        (top, left + 1, (1 - v) * u),
        (top + 1, left, v * (1 - u)),
        (top + 1, left + 1, v * u),
    ):
        inside = (i >= 0) & (i < n_y) & (j >= 0) & (j < n_x)
        rows.append(line[inside])
        columns.append((i * n_x + j)[inside])
        weights.append(_STEP * weight[inside])
    indices = torch.from_numpy(np.stack([np.concatenate(rows), np.concatenate(columns)]))
    values = torch.from_numpy(np.concatenate(weights)).to(domain.dtype)
    shape = (angle.size * offset.size, domain.size)
    # Said, because torch warns where it is left to a default.
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()
