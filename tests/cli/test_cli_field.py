"""A line as it comes from the field, to models: by the command line and by Python, equal bits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import invdiff
from invdiff.errors import DataWarning
from invdiff.fwi.misfit import L2, SourceFitted
from invdiff.io import read_wavelet, write_result
from invdiff.operators.seismic import Survey, acoustic_problem, ricker
from tests.cli.test_cli_invert import (
    CLASSICAL,
    FAST,
    HAS_WEIGHTS,
    SETTINGS,
    SHAPE,
    error_of,
    invert,
    section,
    section_start,
    succeeded,
)
from tests.support.seismic_cases import acoustic, domain

segyio = pytest.importorskip("segyio")
pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

Field = segyio.TraceField
DT, N_SAMPLES, NOISE, LOUD = 2e-3, 200, 2.0, 1000.0
SOURCE_X, RECEIVER_X = np.array([100.0, 250.0, 400.0]), np.arange(20.0, 480.0, 20.0)
N_RECEIVERS, DEAD = len(RECEIVER_X), (4, 30, 51)
ANGLE, WOBBLE = 25.0, 1.5  # degrees from x, m


def unknown_wavelet() -> np.ndarray:
    """Neither of Ricker nor symmetric, of amplitudes in counts."""
    early, late = (ricker(f, DT, N_SAMPLES, delay=t) for f, t in ((14.0, 0.11), (22.0, 0.14)))
    return LOUD * (early + 0.5 * late)


@cache
def samples() -> np.ndarray:
    """Traces ``(shot * receiver, time)`` with noise; three of them are dead."""
    survey = Survey(
        np.stack([np.full(3, 10.0), SOURCE_X], 1),
        np.stack([np.full(N_RECEIVERS, 10.0), RECEIVER_X], 1),
        unknown_wavelet(),
        DT,
    )
    operator = acoustic(survey, domain(SHAPE, torch.float32), snapshot=None)
    with torch.no_grad():
        traces = operator(torch.from_numpy(section())[None])[0].flatten(0, 1).numpy()
    traces = traces + NOISE * np.random.default_rng(0).standard_normal(traces.shape)
    traces[DEAD[0]], traces[DEAD[1]] = 0, 7.5
    return traces.astype(np.float32)


def field_line(folder: Path, *, n_files: int = 1) -> list[Path]:
    """IBM floats, coordinate scalars, a rotated line that wobbles, shots by energy source point."""
    turn = np.deg2rad(ANGLE)
    off = np.tile(WOBBLE * np.random.default_rng(1).uniform(-1, 1, N_RECEIVERS), 3)
    along = (np.repeat(SOURCE_X, N_RECEIVERS), np.tile(RECEIVER_X, 3))
    places = {}
    for end, x, y in (("Source", along[0], 0 * off), ("Group", along[1], off)):
        # Turned about the first receiver, from which distances along the line are measured.
        places[f"{end}X"] = 20 + (x - 20) * np.cos(turn) - y * np.sin(turn)
        places[f"{end}Y"] = (x - 20) * np.sin(turn) + y * np.cos(turn)
    paths = [folder / f"line{i}.sgy" for i in range(n_files)]
    for path, traces in zip(paths, np.array_split(np.arange(len(samples())), n_files), strict=True):
        spec = segyio.spec()
        spec.format, spec.tracecount = 1, len(traces)
        spec.samples = 1e3 * DT * np.arange(N_SAMPLES)
        with segyio.create(path, spec) as file:
            file.bin.update({segyio.BinField.Interval: 2000})
            for i, trace in enumerate(traces):
                file.header[i] = {
                    Field.EnergySourcePoint: 101 + int(trace) // N_RECEIVERS,
                    Field.SourceGroupScalar: -100,
                    Field.ElevationScalar: -10,
                    Field.SourceDepth: 100,
                    Field.ReceiverGroupElevation: -100,
                    Field.TraceIdentificationCode: 2 if trace == DEAD[2] else 1,
                    **{
                        getattr(Field, name): round(100 * float(place[trace]))
                        for name, place in places.items()
                    },
                }
                file.trace[i] = samples()[trace]
    return paths


def paths_of(folder: Path) -> list[Path]:
    write_result(section_start(), folder / "smooth.zarr")
    return [*field_line(folder), folder / "models.zarr", folder / "smooth.zarr"]


def test_the_line_is_read(tmp_path: Path) -> None:
    with pytest.warns(DataWarning) as told:
        read = invdiff.read_survey(field_line(tmp_path))
    said = " ".join(str(one.message) for one in told)
    assert "1 traces of line0.sgy are dead by their headers" in said
    assert "projected onto the best straight line, 24.9 degrees" in said
    assert read.attrs["shots_by"] == "EnergySourcePoint"
    assert 0 < read.attrs["off_line_max"] < 2 * WOBBLE
    assert read["receiver_x"].dims == ("receiver",)
    np.testing.assert_allclose(read["source_x"], SOURCE_X, atol=0.2)
    np.testing.assert_allclose(read["receiver_x"], RECEIVER_X, atol=0.2)
    with pytest.warns(DataWarning):
        joined = invdiff.read_survey(field_line(tmp_path, n_files=3))
    xr.testing.assert_identical(joined.drop_attrs(), read.drop_attrs())


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no velocity-2d in priors/weights")
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataWarning")
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
def test_to_a_posterior_by_both_paths(tmp_path: Path) -> None:
    """Noise and wavelet are unknown: both are estimated, and said."""
    paths = paths_of(tmp_path)
    more = ["-n", 2, "--max-solves", 24, "--seed", 3]
    done = invert(paths, *FAST, *more)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "noise of a sample 2.0" in done.stderr
    assert "samples before the first arrivals" in done.stderr
    assert "wavelet estimated by least squares" in done.stderr
    assert "3 of 69 traces are dead" in done.stderr
    with invdiff.open_result(paths[1]) as result:
        by_command = result.load()

    problem = acoustic_problem(
        invdiff.read_survey(paths[0]), invdiff.read_velocity(paths[2]), **SETTINGS
    )
    prior = invdiff.load_prior("velocity-2d", grid=problem.operator.domain)
    models = invdiff.invert(problem, prior=prior, seed=3, realizations=2, max_solves=24)
    xr.testing.assert_identical(models.drop_attrs(), by_command.drop_attrs())
    assert problem.noise_std == pytest.approx(NOISE, rel=0.1)
    assert models.attrs["invdiff_noise_source"] == problem.notes["noise_source"]
    assert "least squares" in models.attrs["invdiff_wavelet"]
    assert models.attrs["invdiff_dead_traces"] == 3
    survey = problem.operator.survey
    truth = np.zeros(survey.n_samples)
    truth[-N_SAMPLES:] = unknown_wavelet()
    assert np.linalg.norm(survey.wavelet - truth) < 0.15 * np.linalg.norm(truth)


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataWarning")
def test_a_wavelet_of_a_file_and_a_fitted_source(tmp_path: Path) -> None:
    paths = paths_of(tmp_path)
    np.savetxt(tmp_path / "wavelet.txt", 0.6 * np.roll(unknown_wavelet(), 5))
    wavelet = ["--wavelet", tmp_path / "wavelet.txt"]
    rough = invert(paths, *CLASSICAL, *wavelet)
    assert rough.exit_code == 0, (rough.output, rough.exception)
    with invdiff.open_result(paths[1]) as result:
        misfit = float(result["data_misfit"][0])
    fitted = succeeded(paths, *CLASSICAL, *wavelet, "--fit-source", 0.03, "--overwrite")
    assert float(fitted["data_misfit"][0]) < 0.5 * misfit
    assert error_of(fitted) < float(abs(section_start()["velocity"] - section()).mean())

    problem = acoustic_problem(
        invdiff.read_survey(paths[0]), invdiff.read_velocity(paths[2]),
        wavelet=read_wavelet(tmp_path / "wavelet.txt"), **SETTINGS,
    )  # fmt: skip
    source = SourceFitted(L2(problem.noise_std), 0.03, DT)
    models = invdiff.invert(problem, seed=0, realizations=1, max_solves=30, misfit=source)
    xr.testing.assert_identical(models.drop_attrs(), fitted.drop_attrs())


@pytest.mark.filterwarnings("ignore::invdiff.errors.DataWarning")
def test_several_files_on_the_command_line(tmp_path: Path) -> None:
    whole = paths_of(tmp_path)
    one = succeeded(whole, *CLASSICAL, "--max-solves", 12)
    parts = field_line(tmp_path, n_files=3)
    several = succeeded(
        [parts[0], *parts[1:], tmp_path / "other.zarr", whole[2]], *CLASSICAL, "--max-solves", 12
    )
    xr.testing.assert_identical(one.drop_attrs(), several.drop_attrs())
    assert several.attrs["invdiff_input"] == "line0.sgy, line1.sgy, line2.sgy"
