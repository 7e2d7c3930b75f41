"""From a file to a result: the lines of Python and the command line give equal bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import invdiff
from invdiff.cli import app
from invdiff.io import open_result, read_velocity, write_result, write_survey
from invdiff.operators.mri import cartesian_problem
from invdiff.operators.seismic import Boundary, acoustic_problem
from invdiff.priors import hub
from tests.cli.test_cli_invert import SHAPE, line, section
from tests.support import tiny


def by_command(*arguments: object) -> xr.Dataset:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    with open_result(Path(str(arguments[2]))) as result:
        return result.load()


def assert_same(python: xr.Dataset, command: xr.Dataset) -> None:
    named = {key: command.attrs[key] for key in ("invdiff_input", "invdiff_start")
             if key in command.attrs}  # fmt: skip
    xr.testing.assert_identical(python.assign_attrs(named), command)


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("level", ["given", "in the file", "estimated"])
def test_images(tmp_path: Path, coils: int, level: str) -> None:
    scan = tiny.scan((32, 32), noise=0.05, n_coils=coils)
    arrays = {"kspace": scan["kspace"], "mask": scan["mask"]}
    if coils > 1:
        arrays["sensitivity"] = scan["sensitivity"]
    if level == "in the file":
        arrays["noise_std"] = np.array(0.05)
    np.savez(tmp_path / "scan.npz", **arrays)
    stem, noise_std = tiny.stored(tmp_path, wiggle=0.1), 0.05 if level == "given" else None

    scan_read = invdiff.read_kspace(tmp_path / "scan.npz")
    problem = cartesian_problem(scan_read, noise_std=noise_std)
    prior = invdiff.load_prior(stem, grid=problem.operator.domain)
    result = invdiff.reconstruct(problem, prior=prior, seed=7, realizations=3)

    given = [] if noise_std is None else ["--noise-std", noise_std]
    command = by_command(
        "reconstruct", tmp_path / "scan.npz", tmp_path / "out.zarr", "--prior", stem, "--seed", 7,
        "-n", 3, *given,
    )  # fmt: skip
    assert_same(result, command)


@pytest.mark.seismic
@pytest.mark.parametrize("has_prior", [False, True])
def test_sections(tmp_path: Path, has_prior: bool) -> None:
    pytest.importorskip("devito")
    if has_prior and not (Path(hub.__file__).parent / "weights/velocity-2d.safetensors").exists():
        pytest.skip("no velocity-2d among the weights")
    axes = {dim: (dim, np.arange(n) * 10.0) for dim, n in zip("zx", SHAPE, strict=True)}
    smooth = (("z", "x"), 0.97 * section(), {"units": "m s-1"})
    write_survey(line(), tmp_path / "line.zarr")
    write_result(xr.Dataset({"velocity": smooth}, axes), tmp_path / "start.zarr")

    problem = acoustic_problem(
        invdiff.read_survey(tmp_path / "line.zarr"), read_velocity(tmp_path / "start.zarr"),
        bounds=(1500.0, 3500.0), boundary=Boundary(12),
    )  # fmt: skip
    prior = invdiff.load_prior("velocity-2d", grid=problem.operator.domain) if has_prior else None
    result = invdiff.invert(problem, prior=prior, seed=2, realizations=1, max_solves=27)

    command = by_command(
        "invert", tmp_path / "line.zarr", tmp_path / "out.zarr", "--start", tmp_path / "start.zarr",
        "--bounds", 1500, 3500, "--absorbing", 12, "--seed", 2, "-n", 1, "--max-solves", 27,
        *([] if has_prior else ["--no-prior"]),
    )  # fmt: skip
    assert_same(result, command)
    assert torch.isfinite(torch.from_numpy(command["velocity"].values)).all()
