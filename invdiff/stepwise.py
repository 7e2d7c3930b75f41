"""The driver of what runs step by step, samplers and inversions alike, and its stored states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from invdiff import run_state
from invdiff.errors import DivergedError, InputError
from invdiff.run_state import Identity

__all__ = ["Checkpoint", "Stepped", "advance", "load", "save", "to_the_end"]

_TENSOR = "<tensor>"  # key of the JSON object that stands for a tensor


class Stepped(Protocol):
    """A state of a run: all that the next step needs."""

    @property
    def x(self) -> Tensor:
        """The fields."""
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
        bar.update(work(state) - seen)
        seen = work(state)
    return state


@dataclass(frozen=True)
class Checkpoint:
    """A file in which a run is stored after each step, and from which it is resumed.

    Args:
        path: Path of the file, which is replaced whenever it is written.
        run: Identity of the run; a file of another run is refused.

    Raises:
        InputError: The folder of the file is missing or not writable.
    """

    path: Path
    run: Identity

    def __post_init__(self) -> None:
        run_state.check_writable(self.path)

    def save(self, values: Mapping[str, object]) -> None:
        """Store values, as :func:`save` does."""
        save(self.path, values, run=self.run)

    def load(self, device: str | torch.device) -> dict[str, Any] | None:
        """What was stored last, on a device; None if there is no file.

        Raises:
            InputError: The file is not a stored run, or belongs to another run.
        """
        return load(self.path, run=self.run, device=device)[0] if self.path.exists() else None


def save(path: Path, values: Mapping[str, object], *, run: Identity) -> None:
    """Store values by name, atomically: the file is never incomplete.

    Args:
        path: Path of the file, which is replaced if it exists.
        values: Tensors, numbers, text and None, or tuples and mappings of these, however nested.
        run: Identity of the run.
    """
    tensors: dict[str, Tensor] = {}

    def packed(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value
            return {_TENSOR: name}
        if isinstance(value, Mapping):
            return {key: packed(one) for key, one in value.items()}
        return list(map(packed, value)) if isinstance(value, tuple | list) else value

    header = {"values": packed(values)}
    run_state.save(path, tensors, header, run=run)


def load(
    path: Path, *, run: Identity | None = None, device: str | torch.device = "cpu"
) -> tuple[dict[str, Any], Identity]:
    """Values that :func:`save` stored, sequences as tuples, and the identity of their run.

    Args:
        path: Path of the file.
        run: Identity that the file must have; None accepts any.
        device: Device on which the tensors are placed.

    Raises:
        InputError: The file was not written by :func:`save`, or belongs to another run.
    """
    tensors, header = run_state.load(path, run=run, device=device)

    def unpacked(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {_TENSOR}:
                return tensors[value[_TENSOR]]
            return {key: unpacked(one) for key, one in value.items()}
        return tuple(map(unpacked, value)) if isinstance(value, list) else value

    if "values" not in header:
        raise InputError(
            f"{path.name} is not a stored run",
            got="a file of another kind, or of an earlier version",
            expected="the state of a sampler or of an inversion",
            hint="Choose another file name; a file that does not exist begins a new run.",
        )
    return unpacked(header["values"]), header["run"]
