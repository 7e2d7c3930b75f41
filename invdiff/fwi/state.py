"""Where an inversion stands: small tensors that can be stored, and gone on from bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.errors import InputError

__all__ = ["InversionState", "load_state", "save_state"]


@dataclass(frozen=True)
class InversionState:
    """After ``step`` steps.

    Args:
        step: number of steps done.
        x: models ``(batch, nz, nx)``, m/s.
        solves: forward solves a member so far; each has an adjoint one.
        misfit: ``(batch, step + 1)``: normalised misfit, ``2 f / n_data``, after each step.
        spent: ``(step + 1,)``: solves then.
        memory: what else the method keeps.
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
        """Before the first step."""
        return cls(0, x, solves, misfit[:, None], torch.tensor([solves]), memory)

    def after(
        self, x: Tensor, misfit: Tensor, *, solves: int, memory: Mapping[str, Tensor]
    ) -> InversionState:
        """One step and ``solves`` solves later."""
        total = self.solves + solves
        return InversionState(
            self.step + 1,
            x,
            total,
            torch.cat([self.misfit, misfit[:, None]], dim=1),
            torch.cat([self.spent, torch.tensor([total])]),
            memory,
        )


def save_state(state: InversionState, path: Path, run: Mapping[str, object]) -> None:
    """Store a state with what identifies its run; the file is complete or not there."""
    tensors = {"x": state.x, "misfit": state.misfit, "spent": state.spent}
    tensors |= {f"memory.{name}": value for name, value in state.memory.items()}
    header = {"step": state.step, "solves": state.solves, "run": dict(run)}
    partial = path.with_name(f"{path.name}.partial")
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    save_file(contiguous, partial, {"invdiff": json.dumps(header)})
    partial.replace(path)


def load_state(path: Path, run: Mapping[str, object]) -> InversionState:
    """The state of ``path``.

    Raises:
        InputError: a file of another run, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads((stored.metadata() or {}).get("invdiff", "{}"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{path.name} is no checkpoint",
            got=error,
            expected="a file that invert wrote",
            hint="Give another file; one that does not exist is made.",
        ) from error
    if header.get("run") != json.loads(json.dumps(dict(run))):
        raise InputError(
            f"the checkpoint {path.name} belongs to another run",
            got=header.get("run"),
            expected=dict(run),
            hint="Give the same settings, or another file.",
        )
    memory = {
        name.removeprefix("memory."): value
        for name, value in tensors.items()
        if name.startswith("memory.")
    }
    return InversionState(
        header["step"], tensors["x"], header["solves"], tensors["misfit"], tensors["spent"], memory
    )
