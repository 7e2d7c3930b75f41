"""Run a method: step by step, within a budget of solves, from where a stored run stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from invdiff.errors import DivergedError, InputError
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.state import InversionState, load_state, save_state

__all__ = ["descend"]


def descend(
    method: Method,
    setting: Setting,
    *,
    max_solves: int,
    stop_at: float | None = None,
    checkpoint: Path | None = None,
    run: Mapping[str, object] | None = None,
) -> Iterator[InversionState]:
    """Yield the state at the start and after each step, until one of the ends is met.

    Args:
        method: any.
        setting: what it works on.
        max_solves: forward solves a member, never exceeded; it may cut the last line search short.
        stop_at: normalised misfit at which all members are done; noise alone makes 1.
        checkpoint: file of the state, written after each step; a run goes on from it, bit for bit
            unless the budget had cut a line search short.
        run: what identifies the run in the file.

    Raises:
        InputError: a budget that does not pay for the start and a step.
        DivergedError: models that are not finite.
    """
    run = dict(run or {})
    setting = setting._replace(max_solves=max_solves)
    if checkpoint is not None and checkpoint.exists():
        state = load_state(checkpoint, run)
    else:
        state = method.init(setting)
        least = state.solves + method.cost(setting, state)
        if least > max_solves:
            raise InputError(
                "the budget does not pay for the start and a step",
                got=f"max_solves={max_solves}",
                expected=f"at least {least}",
            )
    yield state
    while state.step < method.steps and state.solves + method.cost(setting, state) <= max_solves:
        if stop_at is not None and bool((state.misfit[:, -1] <= stop_at).all()):
            return
        state = method.step(setting, state)
        if not torch.isfinite(state.x).all():
            raise DivergedError(
                f"{method!r} left the finite numbers",
                got=f"NaN or Inf after step {state.step}",
                hint="Start from a smoother model, lower frequencies, or a smaller rate.",
            )
        if checkpoint is not None:
            save_state(state, checkpoint, run)
        yield state
