"""Run an inversion method step by step, within a budget of solves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from invdiff.errors import InputError
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.state import InversionState
from invdiff.run_state import Checkpoint, Identity
from invdiff.stepwise import advance

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
        stop_at: Normalised misfit at which all members are finished; noise alone gives 1. Steps of
            some shots or frequencies do not end a run.
        checkpoint: File of the state, written after each step, from which a run is resumed: bit for
            bit, unless the budget had shortened a line search. While a fit inside of the method
            runs, its state is in a file of the same name with ``.fit``.
        run: Identity of the run that the file must have.

    Raises:
        InputError: The budget is too small for the start and a step, or the checkpoint cannot be
            written or belongs to another run.
        DivergedError: The models are no longer finite.
    """
    # A fit inside a method has a share of the caller's budget.
    total = max_solves if setting.max_solves == sys.maxsize else setting.max_solves
    file = None if checkpoint is None else Checkpoint(checkpoint, run or {})
    setting = setting._replace(max_solves=max_solves, checkpoint=file)
    stored = None if file is None else file.load(setting.start.device)
    if stored is not None:
        state = InversionState(**stored)
    else:
        state = method.init(setting)
        least = state.solves + method.cost(setting, state)
        if least > max_solves:
            raise InputError(
                "the budget is too small for the start and a step",
                got=f"max_solves={total}",
                expected=f"at least {least + total - max_solves} forward solves per member",
            )
        if file is not None:
            file.save(vars(state))
            file.part("fit").path.unlink(missing_ok=True)

    def is_over(state: InversionState) -> bool:
        if state.step >= method.steps:
            return True
        if state.solves + method.cost(setting, state) > max_solves:
            return True
        if stop_at is None or (state.step > 0 and not method.sees_all(state.step - 1)):
            return False
        return bool((state.misfit[:, -1] <= stop_at).all())

    yield from advance(
        method,
        state,
        partial(method.step, setting),
        is_over=is_over,
        members=setting.members,
        hint="Start from a smoother model or with lower frequencies, or lower the rate.",
        store=None if file is None else lambda state: file.save(vars(state)),
    )
