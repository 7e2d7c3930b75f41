"""The state of an inversion: small tensors from which it is resumed bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from invdiff import run_state
from invdiff.run_state import Identity

__all__ = ["InversionState", "load_state", "save_state"]


@dataclass(frozen=True)
class InversionState:
    """The state of an inversion after ``step`` steps.

    Args:
        step: Number of steps done.
        x: Models of the members, ``(batch, nz, nx)``, m/s.
        solves: Forward solves per member so far, each with an adjoint one.
        misfit: Normalised misfit, ``2 f / n_data``, at the start and after each step,
            ``(batch, step + 1)``, on the CPU.
        spent: Forward solves per member at the start and after each step, ``(step + 1,)``, on the
            CPU.
        memory: Tensors that the method keeps in addition, by name.
    """

    step: int
    x: Tensor
    solves: int
    misfit: Tensor
    spent: Tensor
    memory: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def at(
        cls, x: Tensor, misfit: Tensor, *, solves: int, memory: Mapping[str, Tensor]
    ) -> InversionState:
        """The state before the first step, of models ``x`` and misfits ``(batch,)``."""
        return cls(0, x, solves, misfit.cpu()[:, None], torch.tensor([solves]), memory)

    def after(
        self, x: Tensor, misfit: Tensor, *, solves: int, memory: Mapping[str, Tensor]
    ) -> InversionState:
        """The state one step and ``solves`` solves later."""
        total = self.solves + solves
        return InversionState(
            self.step + 1,
            x,
            total,
            torch.cat([self.misfit, misfit.cpu()[:, None]], dim=1),
            torch.cat([self.spent, torch.tensor([total])]),
            memory,
        )


def save_state(state: InversionState, path: Path, run: Identity) -> None:
    """Store a state with the identity of its run, atomically: the file is never incomplete."""
    tensors = {"x": state.x, "misfit": state.misfit, "spent": state.spent}
    tensors |= {f"memory.{name}": value for name, value in state.memory.items()}
    run_state.save(path, tensors, {"step": state.step, "solves": state.solves}, run=run)


def load_state(path: Path, run: Identity, device: torch.device) -> InversionState:
    """Read a state that was stored by :func:`save_state`; models and memory go to ``device``.

    Raises:
        InputError: The file was not written by :func:`save_state`, or belongs to another run.
    """
    tensors, header = run_state.load(path, run=run)
    memory = {
        name.removeprefix("memory."): value.to(device)
        for name, value in tensors.items()
        if name.startswith("memory.")
    }
    return InversionState(
        header["step"],
        tensors["x"].to(device),
        header["solves"],
        tensors["misfit"],
        tensors["spent"],
        memory,
    )
