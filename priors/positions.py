"""Position channels: where the pixels of a patch lie in the whole image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invdiff.arguments import as_number

__all__ = ["Centred", "Depth", "Positions"]


class Positions(Protocol):
    """Channels that give the place of each pixel of an image: an input of a patch network."""

    @property
    def unit(self) -> float:
        """Number of pixels in one unit of the channels."""

    @property
    def n_channels(self) -> int:
        """Number of channels."""

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Channels ``(n_channels, *shape)`` of an image of this shape, float32."""


@dataclass(frozen=True)
class Centred:
    """Row, then column, from the image's centre: for objects that lie in the middle.

    ``((row - (h - 1) / 2) / unit, (column - (w - 1) / 2) / unit)``, as in `training_fields`.

    Args:
        unit: number of pixels in one unit, > 0.
    """

    unit: float = 112.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", as_number("unit", self.unit))

    @property
    def n_channels(self) -> int:
        """Two: row and column."""
        return 2

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Channels ``(2, *shape)`` of an image of this shape, float32."""
        axes = [(torch.arange(n) - (n - 1) / 2) / self.unit for n in shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@dataclass(frozen=True)
class Depth:
    """Row from the first one, the surface: for a subsurface that is alike from side to side.

    The first axis of the grid is depth, ``row / unit``.

    Args:
        unit: number of pixels in one unit, > 0.
    """

    unit: float = 70.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", as_number("unit", self.unit))

    @property
    def n_channels(self) -> int:
        """One: the row."""
        return 1

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Channel ``(1, *shape)`` of an image of this shape, float32."""
        rows = torch.arange(shape[0]) / self.unit
        return rows[:, None].expand(shape)[None].contiguous()
