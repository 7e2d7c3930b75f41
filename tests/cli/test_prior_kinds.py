"""A prior of another kind of field is refused on the command line, before anything is drawn."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from invdiff.cli import app
from invdiff.io import survey_dataset, write_result, write_survey
from tests.support import tiny


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit)
    return " ".join(done.output.split())


def test_a_prior_of_velocities_is_refused_for_a_scan(tmp_path: Path) -> None:
    scan = tiny.scan((32, 32))
    np.savez(tmp_path / "scan.npz", **{k: v for k, v in scan.items() if k != "image"})
    out = tmp_path / "out.zarr"
    text = refused("reconstruct", tmp_path / "scan.npz", out, "--prior", "velocity-2d")
    assert "'velocity-2d' is a prior of real fields, the grid is complex" in text
    assert not out.exists()


@pytest.mark.seismic
def test_a_prior_of_brains_is_refused_for_a_line(tmp_path: Path) -> None:
    pytest.importorskip("devito")
    from invdiff.operators.seismic import Survey, ricker

    receivers = np.stack([np.full(8, 10.0), np.arange(20.0, 180.0, 20.0)], 1)
    survey = Survey([(10.0, 100.0)], receivers, ricker(15.0, 2e-3, 100), 2e-3)
    traces = np.random.default_rng(0).standard_normal((1, 8, 100)).astype("f4")
    write_survey(survey_dataset(survey.to_arrays(), traces, noise_std=1.0), tmp_path / "s.zarr")
    axes = {dim: (dim, np.arange(20) * 10.0) for dim in "zx"}
    velocity = (("z", "x"), np.full((20, 20), 2000.0, "f4"), {"units": "m s-1"})
    write_result(xr.Dataset({"velocity": velocity}, axes), tmp_path / "start.zarr")
    paths = (tmp_path / "s.zarr", tmp_path / "out.zarr", "--start", tmp_path / "start.zarr")
    text = refused("invert", *paths, "--prior", "brain-t1", "--absorbing", 10)
    assert "'brain-t1' is a prior of complex fields, the grid is real" in text
    assert not (tmp_path / "out.zarr").exists()
