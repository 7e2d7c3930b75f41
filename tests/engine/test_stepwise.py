"""The driver of samplers and inversions, on a counter."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from invdiff.errors import DivergedError
from invdiff.stepwise import advance, to_the_end


class Counted(NamedTuple):
    """Numbers that double with each step."""

    x: Tensor
    step: int


def doubled(state: Counted) -> Counted:
    return Counted(2 * state.x, state.step + 1)


def run(start: float, n: int, **settings: Any) -> list[Counted]:
    state = Counted(torch.tensor([start]), 0)
    settings = {"members": [7], "hint": "Begin lower."} | settings
    return list(advance("doubling", state, doubled, is_over=lambda s: s.step >= n, **settings))


def test_it_yields_the_start_and_each_step_which_is_stored_first() -> None:
    stored: list[int] = []
    states = run(1.0, 3, store=lambda state: stored.append(state.step))
    assert [(s.step, float(s.x)) for s in states] == [(0, 1), (1, 2), (2, 4), (3, 8)]
    assert stored == [1, 2, 3]
    assert [s.step for s in run(1.0, 0)] == [0]


def test_a_run_that_diverges_names_step_members_and_remedy() -> None:
    stored: list[int] = []
    with pytest.raises(DivergedError, match=r"doubling.*after step 2 of members \(7,\).*lower"):
        run(torch.finfo(torch.float32).max / 3, 5, store=lambda state: stored.append(state.step))
    assert stored == [1]


def test_the_bar_shows_the_work_of_every_state() -> None:
    class Bar:
        n = 10  # of what came before

        def update(self, n: int) -> None:
            self.n += n

    bar = Bar()
    assert to_the_end(run(1.0, 3), bar, lambda state: 5 * state.step).step == 3
    assert bar.n == 10 + 15
