"""The driver of samplers and inversions, on a counter; and what it stores."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from invdiff import run_state
from invdiff.errors import DivergedError, InputError
from invdiff.stepwise import Checkpoint, advance, load, save, to_the_end


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


def test_nested_values_are_stored_bit_for_bit(tmp_path: Path) -> None:
    values = {
        "step": 3,
        "x": torch.tensor([0.1, float("nan")], dtype=torch.float64),
        "pairs": ((torch.ones(2, dtype=torch.complex64), None), (torch.zeros(0, 2), "text")),
        "memory": {"a.b": torch.arange(3), "tensor": torch.tensor(True), "none": ()},
    }
    save(tmp_path / "state", values, run={"seed": "0"})
    found, identity = load(tmp_path / "state")
    assert identity == {"seed": "0"}
    assert found.keys() == values.keys()
    assert (found["step"], found["memory"]["none"]) == (3, ())
    assert (found["pairs"][0][1], found["pairs"][1][1]) == (None, "text")
    tensors = [(found["x"], values["x"]), (found["pairs"][0][0], values["pairs"][0][0])]
    tensors += [(found["pairs"][1][0], values["pairs"][1][0])]
    tensors += [(found["memory"][k], values["memory"][k]) for k in ("a.b", "tensor")]
    for one, other in tensors:
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_checkpoint_serves_its_own_run_and_no_other_file(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "state", {"seed": "0"})
    assert file.load("cpu") is None
    file.save({"step": 1})
    assert file.load("cpu") == {"step": 1}
    with pytest.raises(InputError, match="differs in seed"):
        Checkpoint(tmp_path / "state", {"seed": "1"}).load("cpu")
    run_state.save(tmp_path / "training", {"x": torch.ones(1)}, {"step": 1}, run={})
    with pytest.raises(InputError, match=r"training is not a stored run.*another kind"):
        load(tmp_path / "training")
    with pytest.raises(InputError, match="cannot write"):
        Checkpoint(tmp_path / "absent" / "state", {})
