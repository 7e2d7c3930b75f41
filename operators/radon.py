"""Parallel line integrals of a 2-D field: tomography, travel times along straight rays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid
from invdiff.operators.base import HandWritten
from invdiff.operators.inputs import as_tensor, check_grid, describe

__all__ = ["LineIntegrals"]

_STEP = 0.5  # grid points between samples along a line


class LineIntegrals(HandWritten):
    """Integrals of a 2-D field along parallel lines: tomography, travel times along straight rays.

    For angle ``theta`` and offset ``s``, both about the centre of the field::

        y(theta, s) = integral of x(s cos(theta) - l sin(theta), s sin(theta) + l cos(theta)) dl

    with ``x`` bilinear between the grid points and zero outside, sampled at every half grid point
    of the line; lengths are in grid points. Rays are straight, of no width. It is a sparse matrix,
    so the adjoint is exact; a product costs about ``4 max(shape)`` multiplications per line.

    Args:
        domain: 2-D grid of the fields, real or complex; its axes are rows (y) and columns (x).
        angles: of the lines' normals against the last axis, in radians, ``(n_angles,)``.
        n_offsets: lines at each angle, evenly spaced over ``max(domain.shape)``.

    Raises:
        ShapeError: a domain that is not 2-D.
        InputError: no angles, angles that are not finite real numbers, or no lines.

    References:
        Natterer (1986), The Mathematics of Computerized Tomography.

    Examples:
        Vertical and horizontal lines through a field of ones see its height and its width:

        >>> import numpy as np
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import LineIntegrals
        >>> operator = LineIntegrals(Grid(("y", "x"), (8, 8)), [0.0, np.pi / 2], n_offsets=4)
        >>> y = operator(torch.ones(1, 8, 8))
        >>> y.shape, operator.range.dims
        (torch.Size([1, 2, 4]), ('angle', 'offset'))
        >>> y[0, :, 1]
        tensor([8., 8.])
    """

    def __init__(self, domain: Grid, angles: Sequence[float], n_offsets: int) -> None:
        check_grid(domain, type(self))
        if domain.ndim != 2:
            raise ShapeError("line integrals need a plane", got=domain.dims, expected="two axes")
        n_offsets = as_integer("n_offsets", n_offsets, least=1)
        angle = as_tensor(angles, "angles")
        if angle.is_complex() or angle.ndim != 1 or not len(angle) or not angle.isfinite().all():
            raise InputError(
                "angles are not a list of angles",
                got=describe(angles),
                expected="one or more finite real numbers, in radians",
            )
        normal = angle.double().numpy(force=True)
        spacing = max(domain.shape) / n_offsets
        offset = (np.arange(n_offsets) - (n_offsets - 1) / 2) * spacing
        data = Grid(
            ("angle", "offset"),
            (len(normal), n_offsets),
            domain.dtype,
            coords={"angle": normal, "offset": offset},
        )
        super().__init__(domain, data)
        # Hand-written, since torch has no forward-mode derivative of sparse products.
        self.matrix = _rays(domain, normal, offset)
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
    # Explicit, because torch warns where it is left to a default.
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()
