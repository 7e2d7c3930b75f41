"""The stored progress of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from invdiff import run_state
from invdiff.run_state import Identity
from invdiff.samplers.base import SamplerState, state_from_parts, state_parts

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "Drawn"]

Drawn = tuple["Tensor", "Tensor | None"]
"""Fields ``(n, *grid.shape)`` of a finished batch, and the record of its innovations."""


@dataclass(frozen=True)
class Checkpoint:
    """A file from which an ensemble is resumed: finished batches, and the state of the current one.

    Args:
        path: Path of the file, which is replaced after each step.
        run: Identity of the run; a file of another run is refused.

    Raises:
        InputError: The folder of the file is missing or not writable.
    """

    path: Path
    run: Identity

    def __post_init__(self) -> None:
        run_state.check_writable(self.path)

    def save(self, drawn: Sequence[Drawn], state: SamplerState) -> None:
        """Store finished batches and the state of the current batch."""
        tensors, header = state_parts(state)
        for i, (fields, innovations) in enumerate(drawn):
            tensors[f"drawn.{i}"] = fields
            if innovations is not None:
                tensors[f"said.{i}"] = innovations
        run_state.save(self.path, tensors, header, run=self.run)

    def load(self, device: str | torch.device) -> tuple[list[Drawn], SamplerState | None]:
        """Finished batches and the state of the current one; empty and None if there is no file.

        Raises:
            InputError: The file is not a stored run, or belongs to another run.
        """
        if not self.path.exists():
            return [], None
        tensors, header = run_state.load(self.path, run=self.run, device=device)
        n_drawn = sum(name.startswith("drawn.") for name in tensors)
        state = state_from_parts(tensors, header | {"run": {}})
        return [(tensors[f"drawn.{i}"], tensors.get(f"said.{i}")) for i in range(n_drawn)], state
