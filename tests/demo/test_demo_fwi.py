"""The demonstration of inversion: its line, its errors, and a short run with the shipped prior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from invdiff.cli import app
from invdiff.demo import Line, folded_and_faulted, run_fwi_demo, simulate_line
from invdiff.demo.fwi import data_weights
from invdiff.demo.line import NOISE
from invdiff.errors import InputError, OutputExistsError
from invdiff.fwi.diagnose import data_fit, model_errors, spread_figures
from invdiff.io import open_result, read_survey, survey_arrays
from invdiff.operators.seismic import Survey
from invdiff.priors import hub

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

HAS_WEIGHTS = (Path(hub.__file__).parent / "weights" / "velocity-2d.safetensors").exists()


@pytest.fixture(scope="module")
def line() -> Line:
    return simulate_line(folded_and_faulted(), seed=3)


def test_the_section_is_worth_inverting(line: Line) -> None:
    truth = line.truth.values
    assert truth.shape == line.operator.domain.shape
    assert truth.min() >= 1500
    assert truth.max() <= 4500
    assert np.ptp(truth) > 1500
    # A fault: layers break along the line, and not because they dip.
    assert np.abs(np.diff(truth, axis=1)).max() > 300
    smooth = model_errors(line.start, line.truth, bounds=(1500, 4500))
    assert float(smooth["mae"]) > 100
    assert float(smooth["ssim"]) < 0.75


def test_data_are_explained_up_to_the_stated_noise(line: Line) -> None:
    predicted = line.operator.range.to_dataarray(
        line.operator(line.operator.domain.to_tensor(line.truth)[None])[0], "pressure"
    )
    noise_std = line.pressure.attrs["noise_std"]
    weights = data_weights(line)  # muted traces count as explained
    fit = data_fit(predicted * weights, line.pressure * weights, noise_std=noise_std)
    chi2 = float(fit["chi2"]) / float((weights**2).mean())
    assert 0.9 < chi2 < 1.2
    muted = data_fit(predicted, line.pressure, noise_std=noise_std)
    assert float(muted["chi2"]) > 5  # why near offsets are muted


def test_the_line_follows_its_seed(line: Line) -> None:
    coarse = folded_and_faulted()[:79, :119]
    a, b, c = (simulate_line(coarse, seed=s, n_shots=2, n_samples=300) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.pressure, b.pressure)
    noise = (a.pressure - c.pressure).values / 2**0.5
    clean_std = float(a.pressure.std()) / (1 + NOISE**2) ** 0.5
    assert noise.std() == pytest.approx(NOISE * clean_std, rel=5 / noise.size**0.5 + 1e-3)


def test_errors_come_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2"):
        run_fwi_demo(tmp_path / "demo", realizations=1, progress=False)
    assert not [*tmp_path.iterdir()]
    (tmp_path / "survey.zarr").mkdir()
    with pytest.raises(OutputExistsError, match=r"survey\.zarr"):
        run_fwi_demo(tmp_path, progress=False)


def test_a_missing_compiler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["demo", "fwi", "--out", str(tmp_path / "demo")])
    assert done.exit_code == 1
    assert done.stderr.startswith("invdiff: MissingDependencyError: ")
    assert "compiler" in done.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WEIGHTS, reason="no velocity-2d in priors/weights")
def test_a_short_demonstration(tmp_path: Path) -> None:
    out = tmp_path / "demo"  # made by the run
    report = run_fwi_demo(out, realizations=2, n_gradients=16, progress=False)
    names = ["fwi.png", "fwi.zarr", "start.zarr", "survey.zarr"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert report.picture.read_bytes().startswith(b"\x89PNG")
    assert report.picture.stat().st_size > 100_000
    assert report.no_prior.mae < report.start.mae
    assert report.no_prior.ssim > report.start.ssim
    assert "ycle-skipped" in report.cycle_skipping
    with open_result(report.result) as result:
        figures = spread_figures(result["velocity"], result["truth"])
        assert float(figures["coverage"]) == pytest.approx(report.coverage90)
        assert float(result["coverage"].sel(level=0.9)) == pytest.approx(report.coverage90)
        scored = model_errors(result["mean"], result["truth"], bounds=(1500, 4500))
        assert float(scored["mae"]) == pytest.approx(report.mean.mae, rel=1e-4)
        assert result.sizes["realization"] == 2
        assert result.attrs["invdiff_adjoint_solves"] <= 2 * 16 * 6  # gradients of members, shots
        assert result.attrs["invdiff_prior"].startswith("velocity-2d@sha256:")
        with open_result(out / "start.zarr") as start:
            np.testing.assert_array_equal(start["velocity"], result["start"])
    survey = Survey.from_arrays(survey_arrays(read_survey(report.survey)))
    assert survey == simulate_line(folded_and_faulted(), seed=0).operator.survey
    assert report.seconds > 0
