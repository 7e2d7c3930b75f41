"""The shots of a step: all, a few in turn, or all at once with random signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from invdiff.arguments import as_integer
from invdiff.errors import UnsupportedError
from invdiff.fwi.objective import Objective

__all__ = ["AllShots", "Encoded", "Minibatch", "Shots", "check_shots"]


class Shots(Protocol):
    """Chooses the shots of a step."""

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """The objective of the shots of a step; a pure function of its arguments."""
        ...

    def is_new(self, step: int) -> bool:
        """Whether the choice changes at this step."""
        ...

    def count(self, n_shots: int) -> int:
        """Forward solves of an evaluation for a survey of ``n_shots``."""
        ...


def check_shots(shots: object) -> None:
    """Refuse an object that does not choose shots.

    Raises:
        UnsupportedError: The message shows the call that was probably meant.
    """
    if isinstance(shots, type) or not hasattr(shots, "count"):
        meant = f"Minibatch({shots})" if isinstance(shots, int) else "Minibatch(4)"
        raise UnsupportedError(
            "this is not a choice of shots",
            got=repr(shots),
            expected=f"such as AllShots(), {meant} or Encoded(1)",
        )


@dataclass(frozen=True)
class AllShots:
    """Every shot at every step. Cost: a forward and an adjoint solve per shot and evaluation."""

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """The objective of all shots, unchanged."""
        return objective

    def is_new(self, step: int) -> bool:
        """Always false, since the choice never changes."""
        return False

    def count(self, n_shots: int) -> int:
        """The number of shots, ``n_shots``."""
        return n_shots


@dataclass(frozen=True)
class _Drawn:
    """A choice of ``n`` that is kept for some steps, so that a method can estimate its curvature.

    Args:
        n: Forward solves per model and step.
        keep: Number of steps before the next choice.

    Raises:
        InputError: A number is not an integer, or is less than one.
    """

    n: int
    keep: int = 5

    def __post_init__(self) -> None:
        for name in ("n", "keep"):
            object.__setattr__(self, name, as_integer(name, getattr(self, name), least=1))

    def is_new(self, step: int) -> bool:
        """True at every ``keep``-th step."""
        return step % self.keep == 0

    def _generator(self, step: int, seed: int) -> np.random.Generator:
        return np.random.default_rng((seed, step // self.keep))


@dataclass(frozen=True)
class Minibatch(_Drawn):
    """``n`` of the shots, drawn without repetition, whose misfit is scaled to that of all.

    Unbiased: the expectation of the scaled gradient over the choices is the gradient of all shots
    (van Leeuwen & Herrmann 2013, doi 10.1111/gpr.12002). A choice whose shots hold no data,
    because they are dead or muted, changes nothing and costs nothing.

    Cost: ``n`` forward and adjoint solves per step.

    Args:
        n: Number of shots per step; all if there are fewer.
        keep: Number of steps before the next choice.

    Raises:
        InputError: A number is not an integer, or is less than one.

    >>> Minibatch(2).count(16)
    2
    """

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """The objective of the shots of this step, scaled to stand for all."""
        n = self.count(objective.n_shots)
        chosen = self._generator(step, seed).permutation(objective.n_shots)[:n]
        return objective.shots(sorted(int(i) for i in chosen))

    def count(self, n_shots: int) -> int:
        """The number ``n``, or all shots if there are fewer."""
        return min(self.n, n_shots)


@dataclass(frozen=True)
class Encoded(_Drawn):
    """``n`` sums of all shots with random signs, each fired and recorded as one.

    Unbiased: cross-talk between shots vanishes in expectation, ``E |sum_i w_i r_i|^2 = sum_i
    |r_i|^2`` for signs ``w_i`` and residuals ``r_i`` (Krebs et al. 2009, Geophysics 74(6)). Assumes
    a spread that does not move, least squares, and weights of the traces that all shots share:
    mutes of near offsets and weights by amplitude exclude it; dead shots are left out. Cost: ``n``
    forward and adjoint solves per step, whatever the number of shots.

    Args:
        n: Number of sums per step.
        keep: Number of steps before the next signs.

    Raises:
        InputError: A number is not an integer, or is less than one.
    """

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """The objective of the sums of this step, scaled to stand for all shots."""
        rng = self._generator(step, seed)
        signs = rng.choice([-1.0, 1.0], size=(self.n, objective.n_shots))
        return objective.encoded(signs)

    def count(self, n_shots: int) -> int:
        """The number ``n`` of sums, each of which takes one solve."""
        return self.n
