"""``invdiff invert`` on a tiny line: by Zarr and SEG-Y, with and without a prior, and errors."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import Result
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from invdiff.cli import app
from invdiff.errors import DataWarning
from invdiff.fwi import invert as draw
from invdiff.fwi.inversion import SOLVES
from invdiff.fwi.traces import near_offset_mute
from invdiff.io import (
    open_result,
    read_survey,
    read_velocity,
    survey_dataset,
    write_result,
    write_survey,
)
from invdiff.operators.seismic import Boundary, Survey, acoustic_problem, ricker
from invdiff.priors import hub
from invdiff.protocols import Problem
from tests.support.seismic_cases import acoustic, domain
from tests.support.words import assert_in_options

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

SHAPE, N_SHOTS, NOISE_STD = (40, 50), 3, 2e-3
HAS_WEIGHTS = (Path(hub.__file__).parent / "weights" / "velocity-2d.safetensors").exists()
FAST = ["--absorbing", 12, "--bounds", 1500, 3500]
CLASSICAL = [*FAST, "--no-prior", "-n", 1, "--max-solves", 30]


def section() -> np.ndarray:
    """A bump and a step in depth, m/s."""
    z, x = np.meshgrid(*(np.arange(n) * 10.0 for n in SHAPE), indexing="ij")
    bump = 400 * np.exp(-((z - 170) ** 2 + (x - 250) ** 2) / 60**2)
    return (2000 + 400 * (z > 260) + bump).astype(np.float32)


def line() -> xr.Dataset:
    """Traces of the section, with noise."""
    x = np.arange(20.0, 480.0, 20.0)
    survey = Survey(
        [(10.0, s) for s in (100.0, 250.0, 400.0)],
        np.stack([np.full_like(x, 10.0), x], 1),
        ricker(15.0, 2e-3, 200),
        2e-3,
    )
    operator = acoustic(survey, domain(SHAPE, torch.float32), snapshot=None)
    clean = operator(torch.from_numpy(section())[None])[0].numpy()
    noise = np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    return survey_dataset(survey.to_arrays(), clean + NOISE_STD * noise, noise_std=NOISE_STD)


LINE: dict[str, xr.Dataset] = {}


@pytest.fixture
def survey() -> xr.Dataset:
    if not LINE:
        LINE["line"] = line()
    return LINE["line"].copy(deep=True)


@pytest.fixture
def start() -> xr.Dataset:
    return section_start()


def section_start() -> xr.Dataset:
    """The section, smoothed."""
    smooth = gaussian_filter(section(), 8, mode="nearest")
    axes = {dim: (dim, np.arange(n) * 10.0) for dim, n in zip("zx", SHAPE, strict=True)}
    return xr.Dataset({"velocity": (("z", "x"), smooth, {"units": "m s-1"})}, coords=axes)


def stored(folder: Path, survey: xr.Dataset, start: xr.Dataset) -> list[Path]:
    write_survey(survey, folder / "survey.zarr", overwrite=True)
    write_result(start, folder / "start.zarr", overwrite=True)
    return [folder / "survey.zarr", folder / "out.zarr", folder / "start.zarr"]


def invert(paths: list[Path], *more: object) -> Result:
    *sources, out, start = paths
    arguments = ["invert", *sources, out, "--start", start, *more]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert_in_options(done.stderr, "invert")
    return done


def succeeded(paths: list[Path], *more: object) -> xr.Dataset:
    done = invert(paths, *more)
    assert done.exit_code == 0, (done.output, done.exception)
    assert str(paths[-2]) in done.stdout
    with open_result(paths[-2]) as result:
        return result.load()


def error_of(result: xr.Dataset) -> float:
    return float(np.abs(result["mean"] - section()).mean())


def test_without_a_prior(tmp_path: Path, survey: xr.Dataset, start: xr.Dataset) -> None:
    result = succeeded(stored(tmp_path, survey, start), *CLASSICAL, "--band", 8)
    assert result["velocity"].dims == ("realization", "z", "x")
    assert result["velocity"].shape == (1, *SHAPE)
    assert result["velocity"].attrs["units"] == "m s-1"
    np.testing.assert_array_equal(result["x"], start["x"])
    assert error_of(result) < 0.9 * float(abs(start["velocity"] - section()).mean())
    history = result["misfit_history"][0]
    assert float(result["data_misfit"][0]) < 0.5 * float(history[0])
    assert result.attrs["invdiff_prior"] == "none"
    assert result.attrs["invdiff_noise_std"] == NOISE_STD
    assert result.attrs["invdiff_input"] == "survey.zarr"
    assert result.attrs["invdiff_adjoint_solves"] <= 30
    assert "bands=(8.0,)" in result.attrs["invdiff_method"]


def test_errors_of_modelling_weigh_loud_samples_down(
    tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    paths = stored(tmp_path, survey, start)
    alike = succeeded(paths, *CLASSICAL, "--relative-error", 0)
    weighted = succeeded(paths, *CLASSICAL, "--relative-error", 2, "--overwrite")
    # Where errors are twice the amplitude, mostly noise is left.
    assert float(alike["misfit_history"][0, 0]) > 1.4
    assert float(weighted["misfit_history"][0, 0]) < 1.3


def test_segy_of_a_known_wavelet_and_noise_level_is_the_store(
    tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    pytest.importorskip("segyio")
    paths = stored(tmp_path, survey, start)
    by_zarr = succeeded(paths, *CLASSICAL)
    paths[0], paths[1] = tmp_path / "line.segy", tmp_path / "other.zarr"
    write_survey(survey.drop_vars("wavelet"), paths[0])
    told = [*CLASSICAL, "--ricker", 15, "--noise-std", NOISE_STD]
    by_segy = succeeded(paths, *told)
    np.testing.assert_allclose(by_segy["mean"], by_zarr["mean"], rtol=1e-3)
    # Written with its standard signs, the line lies above the model if they are not turned.
    assert "InputError" in invert(paths, *told, "--elevation-is-depth", "--overwrite").stderr


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no velocity-2d in priors/weights")
def test_with_the_shipped_prior(tmp_path: Path, survey: xr.Dataset, start: xr.Dataset) -> None:
    paths = stored(tmp_path, survey, start)
    more = [*FAST, "-n", 2, "--max-solves", 30, "--seed", 5]
    checkpoint = tmp_path / "run.safetensors"
    result = succeeded(paths, *more, "--checkpoint", checkpoint)
    assert checkpoint.exists()
    assert result["velocity"].shape == (2, *SHAPE)
    assert float(result["std"].mean()) > 0
    assert np.isfinite(result["velocity"]).all()
    assert result.attrs["invdiff_prior"].startswith("velocity-2d@sha256:")
    assert result.attrs["invdiff_seed"] == 5
    assert 0 < result.attrs["invdiff_adjoint_solves"] <= 2 * 30
    assert "OutputExistsError" in invert(paths, *more).stderr
    again = succeeded(paths, *more, "--overwrite")
    np.testing.assert_allclose(again["mean"], result["mean"], rtol=1e-5)


def test_a_start_in_the_wrong_cycle_is_told(
    tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    start["velocity"] -= 450
    done = invert(stored(tmp_path, survey, start), *CLASSICAL, "--max-solves", 12)
    assert done.exit_code == 0, done.output
    assert "cycle-skipped" in done.stderr
    done = invert(stored(tmp_path, survey, start + 450), *CLASSICAL, "--overwrite")
    assert "cycle" not in done.stderr


def test_dead_traces_are_left_out_as_if_muted(
    tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    """Three receivers and a shot of zeros: the bits of a run in which weights leave them out."""
    problem = acoustic_problem(survey, start, **SETTINGS)
    problem.weights[:, [3, 9, 15]] = 0
    problem.weights[1] = 0
    expected = fitted(problem)
    survey["pressure"][:, [3, 9, 15]] = 0
    survey["pressure"][1] = 0
    with pytest.warns(DataWarning, match="29 of 69 traces are dead"):
        dead = acoustic_problem(survey, start, **SETTINGS)
    found = fitted(dead)
    np.testing.assert_array_equal(found["mean"], expected["mean"])
    assert found.attrs["invdiff_dead_traces"] == 29
    done = invert(stored(tmp_path, survey, start), *CLASSICAL)
    assert done.exit_code == 0, done.output
    assert "29 of 69 traces are dead" in done.stderr
    with open_result(tmp_path / "out.zarr") as result:
        np.testing.assert_array_equal(result["mean"], expected["mean"])
        assert result.attrs["invdiff_dead_traces"] == 29
        assert bool(result["shot_misfit"][:, 1].isnull().all())
    # With them counted as data the model is far worse than that without them.
    assert error_of(found) < 1.15 * error_of(fitted(acoustic_problem(line(), start, **SETTINGS)))


SETTINGS = {"bounds": (1500, 3500), "boundary": Boundary(12)}


def fitted(problem: Problem) -> xr.Dataset:
    """As ``CLASSICAL``, in Python."""
    return draw(problem, seed=0, realizations=1, max_solves=30)


def test_the_command_line_is_the_path_of_python(
    tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    """Four lines and one command give equal bits."""
    paths = stored(tmp_path, survey, start)
    by_command = succeeded(paths, *CLASSICAL)
    problem = acoustic_problem(read_survey(paths[0]), read_velocity(paths[2]), **SETTINGS)
    xr.testing.assert_identical(fitted(problem).drop_attrs(), by_command.drop_attrs())


def test_defaults_of_the_help_are_those_of_python() -> None:
    parameters = signature(draw).parameters | signature(acoustic_problem).parameters
    shown = CliRunner().invoke(app, ["invert", "--help"], env={"COLUMNS": "200"}).output
    text = " ".join(shown.replace("│", " ").split())
    assert f"default {SOLVES} for each shot." in text
    for name in ("realizations", "bounds", "mute", "relative_error"):
        default = parameters[name].default
        numbers = default if isinstance(default, tuple) else (default,)
        option = text[text.index("--" + name.replace("_", "-")) :]
        assert f"default {' '.join(f'{n:g}' for n in numbers)}." in option[:140], name
    assert acoustic_problem(line(), section_start()).operator.boundary == Boundary(60)


@pytest.mark.parametrize("factor", [3.0, 1000.0, 1e-3])
def test_amplitudes_that_differ_are_told_with_their_factor(
    factor: float, tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    survey["pressure"] *= factor
    survey["pressure"].attrs["noise_std"] = factor * NOISE_STD
    done = invert(stored(tmp_path, survey, start), *CLASSICAL, "--max-solves", 12)
    assert done.exit_code == 0, done.output
    assert "times as large as the first prediction" in done.stderr
    with open_result(tmp_path / "out.zarr") as result:
        assert result.attrs["invdiff_amplitude_factor"] == pytest.approx(factor, rel=0.05)


Spoil = Callable[[xr.Dataset, xr.Dataset], tuple[xr.Dataset, xr.Dataset]]
SPOILS: dict[str, tuple[Spoil, str]] = {
    "km/s": (lambda s, m: (s, (m / 1000).assign_coords(m.coords)), "km/s"),
    "units": (lambda s, m: (s, m.assign(velocity=m["velocity"].assign_attrs(units="km/s"))), "SI"),
    "dims": (lambda s, m: (s, m.rename(z="depth")), "does not hold a single velocity model"),
    "several": (lambda s, m: (s, m.assign(b=m["velocity"]).rename(velocity="a")), "velocity"),
    "no axes": (lambda s, m: (s, m.drop_vars("x")), "coordinate"),
    "km": (lambda s, m: (s, m.assign_coords(z=m.z / 1000, x=m.x / 1000)), "outside the model"),
    "NaN": (lambda s, m: (s, m.where(m.x > 100)), "NaN"),
    "no traces": (lambda s, m: (s.drop_vars("pressure"), m), "no traces"),
    "empty shots": (lambda s, m: (s.isel(shot=slice(0)), m), "empty shots"),
    "NaN traces": (lambda s, m: (s.where(s.time > 0.1), m), "NaN"),
    "receiver outside": (
        lambda s, m: (s.assign_coords(receiver_x=s.receiver_x + 900), m), "outside"
    ),
    "ms": (lambda s, m: (s.assign_coords(time=s.time * 1000), m), "in seconds"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILS)
def test_bad_input_leaves_nothing_behind(
    name: str, tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    spoil, word = SPOILS[name]
    paths = stored(tmp_path, *spoil(survey, start))
    done = invert(paths, *CLASSICAL)
    assert done.exit_code == 1, done.exception
    assert done.stderr.startswith("invdiff: ")
    assert word in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["start.zarr", "survey.zarr"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["-n", 0], "--realizations is too small"),
        (["--max-solves", 8], "got --max-solves 8; expected at least 9"),
        (["--bounds", 2100, 2300], "widen them with --bounds LOW HIGH"),
        (["--band", 8, "--band", 5], "bands are not frequencies that rise; got (8.0, 5.0)"),
        (["--mute", 1e6], "--mute 1e+06 m; expected live traces"),
        (["--mute", -1], "--mute is out of range; got -1.0"),
        (["--relative-error", -1], "--relative-error is out of range; got -1.0"),
        (["--seed", -1], "--seed is too small; got -1"),
        (["--device", "gpu"], "the device is not available; got 'gpu'"),
        (["--checkpoint", "absent/run"], "cannot write absent/run"),
        (["--ricker", 15], "Leave out --ricker, or"),
        (["--bounds", 1.5, 4.5], "km/s"),
        (["--bounds", 2100, 2200], "--bounds"),
        (["--ricker", 15], "--ricker 15"),
        (["--delay", 0.1], "got --delay without --ricker"),
        (["--wavelet", "absent.txt"], "wavelet absent.txt does not exist"),
        (["--wavelet", "absent.wav"], "expected .txt, .csv, .dat, .npy, .zarr or .nc"),
        (["--fit-source", -1], "lag"),
        (["--threads", 99], "oversubscribed"),
        (["--max-solves", 2], "got --max-solves 2"),
        (["--noise-std", -1.0], "NoiseLevelError"),
        (["--absorbing", 0], "got --absorbing 0 cells"),
        (["--max-solves", 5, "--band", 8], "got --max-solves 5"),
    ],
)
def test_bad_options(
    more: list[object], word: str, tmp_path: Path, survey: xr.Dataset, start: xr.Dataset
) -> None:
    done = invert(stored(tmp_path, survey, start), *CLASSICAL, *more)
    assert done.exit_code == 1, done.exception
    assert word in done.stderr


def test_missing_files(tmp_path: Path, survey: xr.Dataset, start: xr.Dataset) -> None:
    paths = stored(tmp_path, survey, start)
    for i in (0, 2):
        given = list(paths)
        given[i] = tmp_path / "absent.zarr"
        assert "absent.zarr" in invert(given, *CLASSICAL).stderr


def test_near_offsets_are_muted(survey: xr.Dataset) -> None:
    weights = near_offset_mute(survey, 25.0)
    assert weights.dims == ("shot", "receiver")
    offset = np.abs(np.array([[100.0], [250.0], [400.0]]) - survey["receiver_x"].values)
    np.testing.assert_array_equal(weights, offset >= 25)
    assert 0 < int((weights == 0).sum()) < weights.size / 4
    moving = survey.assign_coords(
        receiver_x=survey["receiver_x"] + xr.DataArray([0.0, 150.0, 300.0], dims="shot")
    )
    np.testing.assert_array_equal(near_offset_mute(moving, 25.0)[0], weights[0])
