"""Which shots a step sees: all, a few in turn, or all at once with random signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from invdiff.arguments import as_integer
from invdiff.fwi.objective import Objective

__all__ = ["AllShots", "Encoded", "Minibatch", "Shots"]


class Shots(Protocol):
    """Chooses the shots of a step."""

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """What stands for the objective at a step; a pure function."""
        ...

    def is_new(self, step: int) -> bool:
        """Whether the choice changes at this step."""
        ...

    def count(self, n_shots: int) -> int:
        """Solves that an evaluation takes where all shots are ``n_shots``."""
        ...


@dataclass(frozen=True)
class AllShots:
    """Every shot at every step."""

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """The objective itself."""
        return objective

    def is_new(self, step: int) -> bool:
        """Never."""
        return False

    def count(self, n_shots: int) -> int:
        """All."""
        return n_shots


@dataclass(frozen=True)
class _Drawn:
    """A choice of ``n``, kept for some steps: curvature is learned between equal choices.

    Args:
        n: solves a model and step.
        keep: steps before another choice.

    Raises:
        InputError: numbers that are not integers, or less than one.
    """

    n: int
    keep: int = 5

    def __post_init__(self) -> None:
        for name in ("n", "keep"):
            object.__setattr__(self, name, as_integer(name, getattr(self, name), least=1))

    def is_new(self, step: int) -> bool:
        """Every ``keep`` steps."""
        return step % self.keep == 0

    def _generator(self, step: int, seed: int) -> np.random.Generator:
        return np.random.default_rng((seed, step // self.keep))


@dataclass(frozen=True)
class Minibatch(_Drawn):
    """``n`` of the shots, without repetition within a choice."""

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """Those shots, scaled to stand for all."""
        n = self.count(objective.n_shots)
        chosen = self._generator(step, seed).permutation(objective.n_shots)[:n]
        return objective.shots(sorted(int(i) for i in chosen))

    def count(self, n_shots: int) -> int:
        """Those of the minibatch."""
        return min(self.n, n_shots)


@dataclass(frozen=True)
class Encoded(_Drawn):
    """``n`` sums of all shots with random signs (Krebs et al. 2009, Geophysics 74(6))."""

    def of(self, objective: Objective, step: int, seed: int) -> Objective:
        """Those sums, scaled to stand for all."""
        rng = self._generator(step, seed)
        signs = rng.choice([-1.0, 1.0], size=(self.n, objective.n_shots))
        return objective.encoded(signs)

    def count(self, n_shots: int) -> int:
        """One a sum."""
        return self.n
