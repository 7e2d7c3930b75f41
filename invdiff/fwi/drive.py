"""Run an inversion method step by step, within a budget of solves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from invdiff.errors import DivergedError, InputError
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.state import InversionState, load_state, save_state
from invdiff.run_state import Identity, check_writable

__all__ = ["descend"]


def descend(
    method: Method,
    setting: Setting,
    *,
    max_solves: int,
    stop_at: float | None = None,
    checkpoint: Path | None = None,
    run: Identity | None = None,
) -> Iterator[InversionState]:
    """Yield the state at the start and after each step, until the run ends.

    It ends after the method's steps, at the budget of solves, or at the misfit ``stop_at``.

    Args:
        method: Any inversion method.
        setting: Objective, prior, starting models and randomness.
        max_solves: Forward solves per member, never exceeded; the limit may shorten the last line
            search.
        stop_at: Normalised misfit at which all members are finished; noise alone gives 1.
        checkpoint: File of the state, written after each step, from which a run is resumed: bit for
            bit, unless the budget had shortened a line search.
        run: Identity of the run that the file must have.

    Raises:
        InputError: The budget is too small for the start and a step, or the checkpoint cannot be
            written or belongs to another run.
        DivergedError: The models are no longer finite.
    """
    run = run or {}
    # A fit inside a method has a share of the caller's budget.
    total = max_solves if setting.max_solves == sys.maxsize else setting.max_solves
    if checkpoint is not None:
        check_writable(checkpoint)
    setting = setting._replace(max_solves=max_solves)
    if checkpoint is not None and checkpoint.exists():
        state = load_state(checkpoint, run, setting.start.device)
    else:
        state = method.init(setting)
        least = state.solves + method.cost(setting, state)
        if least > max_solves:
            raise InputError(
                "the budget is too small for the start and a step",
                got=f"max_solves={total}",
                expected=f"at least {least + total - max_solves} forward solves per member",
            )
    yield state
    while state.step < method.steps and state.solves + method.cost(setting, state) <= max_solves:
        if stop_at is not None and bool((state.misfit[:, -1] <= stop_at).all()):
            return
        state = method.step(setting, state)
        if not torch.isfinite(state.x).all():
            raise DivergedError(
                f"{method!r} diverged",
                got=f"NaN or Inf after step {state.step}",
                hint="Start from a smoother model or with lower frequencies, or lower the rate.",
            )
        if checkpoint is not None:
            save_state(state, checkpoint, run)
        yield state
