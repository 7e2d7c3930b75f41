"""Stored runs: whole or not there, read back bit for bit, refused by the names of what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from invdiff import run_state
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.operators import Mask
from invdiff.run_state import (
    Checkpoint,
    check_identity,
    check_writable,
    identity,
    load,
    save,
)
from invdiff.samplers import Ancestral

GRID = Grid(("x",), (4,))
RUN = identity({"seed": 0, "operator": Mask(GRID, [1, 0, 1, 1]), "sampler": Ancestral(3)})
TENSORS = {
    "x": torch.arange(6.0).reshape(2, 3),
    "double": torch.tensor([1 / 3], dtype=torch.float64),
    "complex": torch.tensor([[1 + 2j], [3 - 4j]]),
    "conjugate": torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
    "number": torch.tensor(0.5),
    "flags": torch.tensor([True, False]),
    "counts": torch.tensor([2**60]),
    "nothing": torch.zeros(0, 3),
    "half": torch.tensor([1.5]).bfloat16(),
    "not finite": torch.tensor([float("nan"), float("inf")]),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
}


def test_nested_values_come_back(tmp_path: Path) -> None:
    plain = {"step": 3, "realizations": (2, 0), "name": "früh", "nothing": None}
    pairs = ((TENSORS["complex"], None), (TENSORS["double"], "text"))
    values = plain | {"memory": TENSORS, "pairs": pairs, "empty": ((), {})}
    save(tmp_path / "run", values, run=RUN)
    found = load(tmp_path / "run", run=RUN)
    assert found.keys() == values.keys()
    assert {key: found[key] for key in plain} == plain
    assert found["empty"] == ((), {})
    assert (found["pairs"][0][1], found["pairs"][1][1]) == (None, "text")
    assert torch.equal(found["pairs"][0][0], TENSORS["complex"])
    assert found["memory"].keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found["memory"][name].dtype == value.dtype
        torch.testing.assert_close(
            found["memory"][name], value.resolve_conj(), rtol=0, atol=0, equal_nan=True
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_views_of_one_tensor_are_stored_apart(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    save(tmp_path / "run", {"a": x, "b": x[1:]}, run=RUN)
    assert torch.equal(load(tmp_path / "run", run=RUN)["b"], x[1:])


def test_a_checkpoint_is_of_its_own_run(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "run", RUN)
    assert file.load("cpu") is None
    file.save({"step": 1})
    assert file.load("cpu") == {"step": 1}
    with pytest.raises(InputError, match="differs in seed"):
        Checkpoint(tmp_path / "run", dict(RUN) | {"seed": "another"}).load("cpu")
    with pytest.raises(InputError, match="cannot write"):
        Checkpoint(tmp_path / "missing" / "run", RUN)


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "run", {"invdiff": json.dumps({"step": 1})})
    with pytest.raises(InputError, match="run is not a stored run"):
        load(tmp_path / "run", run=None)


@pytest.mark.parametrize("name", ["save_file", "json"])
def test_a_failure_leaves_what_was_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run", {"step": 1, "x": TENSORS}, run=RUN)
    before = (tmp_path / "run").read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        for path in args:
            if isinstance(path, Path):
                path.write_bytes(b"half of it")
        raise OSError("disk full")

    if name == "json":
        monkeypatch.setattr(json, "dumps", fail)
    else:
        monkeypatch.setattr(run_state, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "run", {"step": 2, "x": TENSORS}, run=RUN)
    assert (tmp_path / "run").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


DIFFERENT: dict[str, tuple[dict[str, object], str]] = {
    "seed": ({"seed": 1}, "seed"),
    "mask": ({"operator": Mask(GRID, [0, 1, 1, 1])}, "operator.keep"),
    "steps": ({"sampler": Ancestral(4)}, "sampler.steps"),
    "keep": ({"sampler": Ancestral(3, keep=0.5)}, "sampler.keep"),
    "both": ({"sampler": Ancestral(4, keep=0.5)}, "sampler.keep, sampler.steps"),
    "more": ({"prior": None}, "prior"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_run_is_refused_by_name(name: str, tmp_path: Path) -> None:
    changes, names = DIFFERENT[name]
    parts = {"seed": 0, "operator": Mask(GRID, [1, 0, 1, 1]), "sampler": Ancestral(3)}
    other = identity(parts | changes)
    save(tmp_path / "run", {}, run=RUN)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "run", run=other)
    assert str(caught.value).startswith("the checkpoint run belongs to another run; got a run that")
    assert f"differs in {names};" in str(caught.value)
    load(tmp_path / "run", run=None)
    load(tmp_path / "run", run=identity(parts))


def test_another_version_is_another_run() -> None:
    with pytest.raises(InputError, match="differs in invdiff;"):
        check_identity(RUN | {"invdiff": "0.0.0"}, RUN, "the state")


def test_the_class_of_a_part_counts() -> None:
    class Ancestral2(Ancestral):
        """Takes its steps in another way."""

    other = identity({"sampler": Ancestral2(3)})
    assert {k for k, v in identity({"sampler": Ancestral(3)}).items() if other[k] != v} == {
        "sampler"
    }


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def below_a_file(path: Path) -> Path:
    path.write_text("")
    return path / "run"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "missing" / "run", "missing or read-only"),
        (folder, "got a folder"),
        (below_a_file, "missing or read-only"),
    ],
)
def test_what_cannot_be_written_is_refused(
    make: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        check_writable(make(tmp_path / "place"))
    check_writable(tmp_path / "run")
    check_writable(Path("run"))
    assert not (tmp_path / "run").exists()
