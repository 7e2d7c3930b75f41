"""Stored runs: whole or not there, read back bit for bit, refused by the names of what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from invdiff import run_state
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.operators import Mask
from invdiff.run_state import check_identity, check_writable, identity, load, save
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


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    header = {"step": 3, "realizations": [2, 0], "name": "früh"}
    save(tmp_path / "run", TENSORS, header, run=RUN)
    tensors, read = load(tmp_path / "run", run=RUN)
    assert {key: read[key] for key in header} == header
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        torch.testing.assert_close(
            tensors[name], value.resolve_conj(), rtol=0, atol=0, equal_nan=True
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_views_of_one_tensor_are_stored_apart(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    save(tmp_path / "run", {"a": x, "b": x[1:]}, {}, run=RUN)
    tensors, _ = load(tmp_path / "run", run=RUN)
    assert torch.equal(tensors["b"], x[1:])


@pytest.mark.parametrize("name", ["save_file", "json"])
def test_a_failure_leaves_what_was_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run", TENSORS, {"step": 1}, run=RUN)
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
        save(tmp_path / "run", TENSORS, {"step": 2}, run=RUN)
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
    save(tmp_path / "run", {}, {}, run=RUN)
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
