"""Position channels: what a patch network is told of where its pixels lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Centred", "Depth", "Positions"]


class Positions(Protocol):
    """Channels that tell the place of each pixel of an image."""

    @property
    def unit(self) -> float:
        """Pixels to one unit of the channels."""

    @property
    def n_channels(self) -> int:
        """How many there are."""

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """``(n_channels, *shape)``, float32."""


@dataclass(frozen=True)
class Centred:
    """Row, then column, from the image's centre: for objects that lie in the middle.

    Args:
        unit: pixels to one unit.
    """

    unit: float = 112.0

    @property
    def n_channels(self) -> int:
        """Two."""
        return 2

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """``(2, *shape)``, float32."""
        axes = [(torch.arange(n) - (n - 1) / 2) / self.unit for n in shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@dataclass(frozen=True)
class Depth:
    """Row from the first one, the surface: for a subsurface that is alike from side to side.

    Args:
        unit: pixels to one unit.
    """

    unit: float = 70.0

    @property
    def n_channels(self) -> int:
        """One."""
        return 1

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """``(1, *shape)``, float32."""
        rows = torch.arange(shape[0]) / self.unit
        return rows[:, None].expand(shape)[None].contiguous()
