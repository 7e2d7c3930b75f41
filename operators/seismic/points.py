"""Sources and receivers as grid points: bilinear between them, each point once per shot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Points"]

_ON_GRID = 1e-4  # cells: positions in files are rounded to a mm


@dataclass(frozen=True, eq=False)
class Points:
    """Positions and the grid points around them.

    Args:
        cells: ``(shot, point, 2)``, rows and columns of the grid.
        is_used: ``(shot, point)``; others are there to make shots of equal length.
        index: ``(shot, position, corner)`` into the points.
        weight: of the same shape, double precision.
    """

    cells: Tensor
    is_used: Tensor
    index: Tensor
    weight: Tensor

    @classmethod
    def between(
        cls, positions: NDArray[Any], shape: tuple[int, int], *, first_row: int = 0
    ) -> Points:
        """Points around positions.

        Args:
            positions: ``(shot, position, 2)``, in cells from the first grid point.
            shape: of the grid.
            first_row: rows above it hold no field: points in them count nothing.
        """
        nearest = np.round(positions)
        positions = np.where(np.abs(positions - nearest) < _ON_GRID, nearest, positions)
        low = np.minimum(np.floor(positions), np.array(shape) - 1)
        part = positions - low
        corners, weights = [], []
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = np.abs(1 - row - part[..., 0]) * np.abs(1 - column - part[..., 1])
            if weight.any():
                corners.append(np.minimum(low + np.array([row, column]), np.array(shape) - 1))
                weights.append(weight)
        weight = np.stack(weights, axis=-1)
        corner = np.stack(corners, axis=-2).astype(np.int64)
        number = corner[..., 0] * shape[1] + corner[..., 1]  # (shot, position, corner)
        weight = np.where(corner[..., 0] < first_row, 0.0, weight)

        each = [np.unique(shot, return_inverse=True) for shot in number]
        n_points = max(len(points) for points, _ in each)
        cells = np.zeros((len(each), n_points, 2), np.int64)
        is_used = np.zeros((len(each), n_points), np.bool_)
        index = np.zeros(number.shape, np.int64)
        for shot, (points, inverse) in enumerate(each):
            cells[shot, : len(points)] = np.stack(np.divmod(points, shape[1]), axis=-1)
            is_used[shot, : len(points)] = points // shape[1] >= first_row
            index[shot] = inverse.reshape(number.shape[1:])
        return cls(*(torch.from_numpy(a) for a in (cells, is_used, index, weight)))

    def of(self, shots: Tensor, device: torch.device) -> Points:
        """Those of some shots."""
        parts = (self.cells, self.is_used, self.index, self.weight)
        return Points(*(x[shots].to(device) for x in parts))

    def gather(self, traces: Tensor) -> Tensor:
        """Traces ``(shot, point, time)`` of the points to those of the positions."""
        shots = torch.arange(len(traces), device=traces.device)[:, None]
        weight = self.weight.to(traces.dtype)
        gathered = torch.zeros_like(traces[shots, self.index[..., 0]])
        for c in range(self.index.shape[-1]):
            gathered = gathered + traces[shots, self.index[..., c]] * weight[..., c, None]
        return gathered

    def spread(self, traces: Tensor) -> Tensor:
        """The transpose of `gather`."""
        n_shots, n_points = self.is_used.shape
        shots = torch.arange(n_shots, device=traces.device)[:, None]
        points = traces.new_zeros(n_shots, n_points, traces.shape[-1])
        for c in range(self.index.shape[-1]):
            amounts = traces * self.weight[..., c, None].to(traces.dtype)
            points = points.index_put((shots, self.index[..., c]), amounts, accumulate=True)
        return points
