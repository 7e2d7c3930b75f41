"""The driver of what runs step by step: samplers and inversions alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from invdiff.errors import DivergedError

__all__ = ["Stepped", "advance", "to_the_end"]


class Stepped(Protocol):
    """A state of a run: all that the next step needs."""

    @property
    def x(self) -> Tensor:
        """Fields of the members, ``(batch, ...)``."""
        ...

    @property
    def step(self) -> int:
        """Number of steps done."""
        ...


S = TypeVar("S", bound=Stepped)


def advance(
    method: object,
    state: S,
    step: Callable[[S], S],
    *,
    is_over: Callable[[S], bool],
    members: Sequence[int],
    hint: str,
    store: Callable[[S], None] | None = None,
) -> Iterator[S]:
    """Yield a state, and the state after each further step until the run is over.

    Args:
        method: What runs, for the message.
        state: State to begin with.
        step: From a state to the next.
        is_over: Whether a state is the last one.
        members: Numbers of the members, for the message.
        hint: What to do where the run diverges.
        store: Called with the state after each step, before it is yielded.

    Raises:
        DivergedError: ``x`` is no longer finite.
    """
    yield state
    while not is_over(state):
        state = step(state)
        if not torch.isfinite(state.x).all():
            raise DivergedError(
                f"{method!r} diverged",
                got=f"NaN or Inf after step {state.step} of members {tuple(members)}",
                hint=hint,
            )
        if store is not None:
            store(state)
        yield state


def to_the_end(states: Iterable[S], bar: tqdm[Any], work: Callable[[S], int]) -> S:
    """The last of some states; a progress bar shows the work that is behind each of them."""
    seen = 0
    for state in states:
        done = work(state)
        bar.update(done - seen)
        seen = done
    return state
