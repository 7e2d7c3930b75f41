"""The protocol of inversion methods."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from invdiff.fwi.objective import Objective
from invdiff.fwi.state import InversionState
from invdiff.noise import NoiseField
from invdiff.protocols import Prior
from invdiff.run_state import Checkpoint

__all__ = ["Method", "Setting", "noised", "without_data"]


class Setting(NamedTuple):
    """What a method works on: objective, prior, starting models and randomness."""

    objective: Objective
    """The objective of all shots."""
    prior: Prior | None
    """The prior of the models, or None."""
    start: Tensor
    """Starting models ``(batch, nz, nx)``, m/s."""
    noise: NoiseField
    """Source of all randomness."""
    members: Sequence[int]
    """Numbers of the realizations."""
    max_solves: int = sys.maxsize
    """Forward solves per member that a run may take."""
    checkpoint: Checkpoint | None = None
    """File of the run, beside which a fit inside of the method has one of its own."""


class Method(Protocol):
    """An inversion method: a frozen dataclass of settings; all that changes is in the state."""

    @property
    def steps(self) -> int:
        """Number of steps of a run."""
        ...

    @property
    def needs_prior(self) -> bool:
        """Whether the method requires a prior."""
        ...

    def init(self, setting: Setting) -> InversionState:
        """State before the first step."""
        ...

    def sees_all(self, step: int) -> bool:
        """Whether that step, from zero on, used all shots and frequencies."""
        ...

    def cost(self, setting: Setting, state: InversionState) -> int:
        """Fewest forward solves per member that the next step takes."""
        ...

    def step(self, setting: Setting, state: InversionState) -> InversionState:
        """The state after one more step; a pure function of its arguments."""
        ...


def noised(prior: Prior, x: Tensor, level: float, *, e: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy models ``x_t = alpha (x + level e)``, ``(batch, nz, nx)``, and their time ``t``."""
    t = prior.schedule.time(torch.tensor(level, dtype=torch.float64))
    return float(prior.schedule.alpha(t)) * (x + level * e), t


def without_data(state: InversionState) -> InversionState:
    """The state after a step whose shots hold no data: nothing changes, and nothing is solved."""
    return state.after(state.x, state.misfit[:, -1], solves=0, memory=state.memory)
