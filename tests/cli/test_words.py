"""Messages of ``invdiff reconstruct`` name options, as they were given, and say what was meant."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from invdiff.cli import app
from tests.support import tiny
from tests.support.words import assert_in_options


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan")
    scan = {name: values for name, values in tiny.scan((16, 16)).items() if name != "image"}
    np.savez(path / "scan.npz", **scan)
    np.savez(path / "bad.npz", **scan, noise_std=-1.0)
    with h5py.File(path / "scan.h5", "w") as file:
        file["kspace"] = np.stack([scan["kspace"]] * 3)
        file["ismrmrd_header"] = b"<ismrmrdHeader/>"
    tiny.stored(path)
    return path


def said(folder: Path, *more: object, source: str = "scan.npz", exit_code: int = 1) -> str:
    given = ["reconstruct", folder / source, folder / "out.zarr", "--prior", folder / "tiny"]
    fast = ["-n", 2, "--steps", 2, "--overwrite"]
    done = CliRunner().invoke(app, [str(a) for a in (*given, *fast, *more)])
    assert done.exit_code == exit_code, (done.output, done.exception)
    assert_in_options(done.stderr, "reconstruct")
    return done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-n", 0], "--realizations is too small; got 0; expected an integer >= 1."),
        (["--steps", 0], "--steps is too small; got 0"),
        (["--batch-size", 0], "--batch-size is too small; got 0"),
        (["--seed", -1], "--seed is too small; got -1"),
        (["--noise-std", -1], "--noise-std is not positive"),
        (["--slice", 1], "got --slice 1; expected no --slice"),
        (["--device", "gpu"], "the device is not available; got 'gpu'; expected one of ['cpu'"),
        (["--checkpoint", "absent/run"], "cannot write absent/run"),
    ],
)
def test_options_are_named_as_they_were_given(folder: Path, more: list[object], words: str) -> None:
    noise = [] if "--noise-std" in more else ["--noise-std", 0.02]
    assert words in said(folder, *noise, *more)


def test_the_level_of_a_file_is_not_called_an_option(folder: Path) -> None:
    text = said(folder, source="bad.npz")
    assert "noise_std is not positive" in text
    assert "--noise-std" not in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--slice", 9], "got --slice 9; expected --slice from 0 to 2"),
        ([], "got no --slice; expected --slice from 0 to 2"),
    ],
)
def test_slices_are_named(folder: Path, more: list[object], words: str) -> None:
    assert words in said(folder, "--noise-std", 0.02, *more, source="scan.h5")


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--seed", 5], "differs in seed;"),
        (["-n", 3, "--batch-size", 2], "differs in members;"),
        (["--batch-size", 1], "differs in --batch-size;"),
        (["--steps", 3], "differs in sampler.steps;"),
        (["--noise-std", 0.03], "likelihood"),
    ],
)
def test_the_checkpoint_of_other_options(folder: Path, more: list[object], part: str) -> None:
    store = ["--noise-std", 0.02, "--checkpoint", folder / "run"]
    said(folder, *store, exit_code=0)
    text = said(folder, *store, *more)
    assert "belongs to another run" in text
    assert part in text


@pytest.mark.parametrize(
    ("level", "words"), [(0.0002, "Check the noise level"), (0.5, "level is too large")]
)
def test_a_misfit_far_from_one_is_told(folder: Path, level: float, words: str) -> None:
    text = said(folder, "--noise-std", level, exit_code=0)
    assert "DataFitWarning: The data misfit is" in text
    assert words in text
