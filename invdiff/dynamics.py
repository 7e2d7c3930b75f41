"""Trajectories of step models, with gradients that store few states, watched for divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from invdiff.arguments import as_integer, as_number
from invdiff.errors import DivergedError, InputError, NonFiniteError
from invdiff.grid import Grid
from invdiff.protocols import StepModel

__all__ = ["check_step_model", "check_steps", "trajectory"]

_STATES_OF_A_STEP = 25  # what a step of the spectral models stores for its gradient, in states
_STORED_AT_MOST = 2**28  # bytes of a whole trajectory's graph, from where segments are worth it


def trajectory(
    model: StepModel,
    state: Tensor,
    n_steps: int,
    *,
    every: int = 1,
    start: int = 0,
    checkpoint: int | None = None,
) -> Iterator[Tensor]:
    """States after ``every``, ``2 every``, ... and ``n_steps`` steps, one at a time.

    Nothing is kept but what the caller keeps. Where a gradient is recorded, only the state at the
    start of each segment of ``checkpoint`` steps is stored, and the steps in between are computed
    again in each backward pass: memory for ``n_steps / checkpoint`` states and the graph of
    ``checkpoint`` steps, and a gradient costs one forward run more. Methods that take many products
    with one Jacobian, such as Gauss-Newton, are about four times faster where every step is stored.

    Args:
        model: step model.
        state: initial states, ``(batch, *model.grid.shape)``.
        n_steps: steps to take, a multiple of ``every``.
        every: steps between the states that are returned.
        start: steps that the model has taken before, for models that depend on time.
        checkpoint: steps of a segment, which ends at a returned state at the latest; 0 stores every
            step. By default segments are made where the whole would take more than 256 MB, of the
            length that needs the least memory; both if a step stores 25 states.

    Returns:
        An iterator over states ``(batch, *model.grid.shape)``; the arguments are checked at once.

    Raises:
        InputError: numbers of steps that do not fit, or something else than a step model.
        ShapeError, DTypeError: a state that does not lie on the model's grid.
        NonFiniteError: NaN or Inf in the initial state; the message names the member.
        DivergedError: NaN or Inf after a step; the message names the step and the member.

    >>> from invdiff.operators.atmosphere import Lorenz63
    >>> model = Lorenz63(dt=0.01)
    >>> states = trajectory(model, torch.ones(4, 3), 100, every=50)
    >>> [tuple(state.shape) for state in states]
    [(4, 3), (4, 3)]
    """
    check_step_model(model)
    n_steps, every = check_steps(n_steps, every)
    model.grid.check(state, name="initial state")
    _check_initial(state)
    if checkpoint is None:
        graph = n_steps * _STATES_OF_A_STEP * state.numel() * state.element_size()
        is_small = graph <= _STORED_AT_MOST
        length = 0 if is_small else math.ceil(math.sqrt(n_steps / _STATES_OF_A_STEP))
    else:
        length = as_integer("checkpoint", checkpoint, least=0)
    return _returned(model, state, range(start, start + n_steps, every), every, length)


def _returned(
    model: StepModel, state: Tensor, starts: range, every: int, length: int
) -> Iterator[Tensor]:
    for start in starts:
        for first in range(start, start + every, length or every):
            n = min(length or every, start + every - first)
            run: Callable[[Tensor], Tensor] = partial(_advance, model, first=first, n=n)
            if length and torch.is_grad_enabled():
                # A step model draws no random numbers whose state would have to be restored.
                state = recomputed(run, state, use_reentrant=False, preserve_rng_state=False)
            else:
                state = run(state)
        yield state


def _advance(model: StepModel, state: Tensor, *, first: int, n: int) -> Tensor:
    """The state after ``n`` steps from the step ``first`` on, each one checked."""
    at = getattr(model, "at", None)
    for step in range(first, first + n):
        state = (model if at is None else at(step)).step(state)
        if not torch.isfinite(state).all():
            bad = _bad_members(state)
            raise DivergedError(
                f"the model state is not finite after step {step + 1}, "
                f"time {(step + 1) * model.dt:g}, in member {bad[0]} of the batch",
                got=f"NaN or Inf in {len(bad)} of {len(state)} members",
                expected="finite values",
                hint="Shorten dt, which must suit the largest velocity of the flow, or check that "
                "the initial states are in the model's units.",
            )
    return state


def _check_initial(state: Tensor) -> None:
    if not torch.isfinite(state).all():
        bad = _bad_members(state)
        raise NonFiniteError(
            f"the initial state of member {bad[0]} of the batch holds NaN or Inf",
            got=f"{len(bad)} of {len(state)} such members",
            expected="finite values",
            hint="Fill missing values before the first step.",
        )


def _bad_members(state: Tensor) -> list[int]:
    """Indices of the members that hold NaN or Inf."""
    finite = torch.isfinite(state.detach()).flatten(1).all(1)
    return (~finite).nonzero().flatten().tolist()


def check_steps(n_steps: int, every: int) -> tuple[int, int]:
    """Both as integers, or refused: they are positive, and ``n_steps`` a multiple of ``every``.

    Args:
        n_steps: steps of a trajectory.
        every: steps between the states that are returned or observed.

    Raises:
        InputError: they are not.
    """
    n_steps = as_integer("n_steps", n_steps, least=1)
    every = as_integer("every", every, least=1)
    if n_steps % every:
        raise InputError(
            "n_steps is not a multiple of every",
            got=f"n_steps={n_steps}, every={every}",
            expected=f"such as n_steps={n_steps - n_steps % every or every}",
            hint="The steps after the last returned state would be lost.",
        )
    return n_steps, every


def check_step_model(model: object) -> None:
    """Refuse what is not a step model.

    Args:
        model: object that should have ``grid``, ``dt`` and ``step``.

    Raises:
        InputError: a member is missing, the grid is no `Grid`, or ``dt`` is not positive.
    """
    if (
        not isinstance(model, StepModel)
        or isinstance(model, type)
        or not isinstance(model.grid, Grid)
    ):
        raise InputError(
            "this is not a step model",
            got=repr(model),
            expected="an object with `grid` (a Grid), `dt` and `step(state)`",
            hint="Such as invdiff.operators.atmosphere.Lorenz96(); a model of earth2studio needs "
            "the adapter Prognostic.",
        )
    as_number("dt of the step model", model.dt)
