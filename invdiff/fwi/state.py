"""The state of an inversion: all from which it is resumed bit for bit, on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["InversionState"]


@dataclass(frozen=True)
class InversionState:
    """The state of an inversion after ``step`` steps.

    Args:
        step: Number of steps done.
        x: Models of the members, ``(batch, nz, nx)``, m/s.
        solves: Forward solves per member so far, each with an adjoint one; of members whose line
            searches differ the most.
        misfit: Normalised misfit, ``2 f / n_data``, at the start and after each step, or where it
            takes no further solve (Adam, RED-diffusion) before it: ``(batch, step + 1)``.
        spent: Forward solves per member at the start and after each step, ``(step + 1,)``.
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
        spent = torch.tensor([solves], device=x.device)
        return cls(0, x, solves, misfit.to(x.device)[:, None], spent, memory)

    def after(
        self, x: Tensor, misfit: Tensor, *, solves: int, memory: Mapping[str, Tensor]
    ) -> InversionState:
        """The state one step and ``solves`` solves later."""
        total = self.solves + solves
        return InversionState(
            self.step + 1,
            x,
            total,
            torch.cat([self.misfit, misfit.to(x.device)[:, None]], dim=1),
            torch.cat([self.spent, torch.tensor([total], device=x.device)]),
            memory,
        )
