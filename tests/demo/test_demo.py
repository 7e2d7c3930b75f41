"""The demonstration: its image, its simulated scan, and a short run with the shipped prior."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from invdiff.calibration import coverage
from invdiff.cli import app
from invdiff.demo import NOISE_STD, OBJECT, bundled_slice, run_demo, simulate
from invdiff.errors import InputError, OutputExistsError
from invdiff.io import open_result
from invdiff.operators.mri import foreground_percentile
from invdiff.priors import hub

HAS_WEIGHTS = (Path(hub.__file__).parent / "weights" / "brain-t1.safetensors").exists()
needs_weights = pytest.mark.skipif(not HAS_WEIGHTS, reason="no brain-t1 in priors/weights")


def test_the_bundled_slice_is_a_brain() -> None:
    image = bundled_slice()
    assert image.dtype == torch.complex64
    assert image.ndim == 2
    assert torch.isfinite(torch.view_as_real(image)).all()
    assert foreground_percentile(image) == pytest.approx(1, abs=0.01)
    inside = image.abs() > OBJECT
    assert 0.2 < float(inside.float().mean()) < 0.8
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert float(edge.abs().max()) < OBJECT  # all of the head is in the picture
    phase = image.angle()[inside]
    assert float(phase.std()) > 0.2  # complex in earnest


def test_the_notice_goes_with_the_slice() -> None:
    notice = (files("invdiff") / "data" / "NOTICE.txt").read_text()
    for word in ("Colin27", "Copyright", "fcdproc", "permission"):
        assert word.lower() in notice.lower()


@pytest.mark.parametrize("acceleration", [4.0, 8.0])
def test_the_scan_is_what_it_says(acceleration: float) -> None:
    image = bundled_slice()
    operator, kspace = simulate(image, acceleration=acceleration, seed=3)
    assert operator.n_coils == 8
    assert operator.acceleration == pytest.approx(acceleration, rel=0.1)
    assert operator.domain.shape == tuple(image.shape)
    assert set(operator.domain.coords) == {"y", "x"}
    assert kspace.shape == operator.range.shape
    assert (kspace[:, ~operator.mask] == 0).all()
    noise = (kspace - operator(image[None])[0])[:, operator.mask]
    n = noise.numel()
    assert n == operator.n_data
    mean_square = float(noise.abs().square().mean())
    assert mean_square == pytest.approx(NOISE_STD**2, rel=5 / n**0.5)
    assert float(noise.real.square().mean()) == pytest.approx(mean_square / 2, rel=8 / n**0.5)


def test_the_scan_follows_its_seed() -> None:
    image = bundled_slice()
    (a, y_a), (b, y_b) = (simulate(image, acceleration=8, seed=1) for _ in range(2))
    assert torch.equal(a.mask, b.mask)
    assert torch.equal(y_a, y_b)
    assert not torch.equal(simulate(image, acceleration=8, seed=2)[1], y_a)


def test_an_earlier_result_is_kept(tmp_path: Path) -> None:
    (tmp_path / "result.zarr").mkdir()
    with pytest.raises(OutputExistsError, match=r"result\.zarr"):
        run_demo(tmp_path, progress=False)
    taken = tmp_path / "file"
    taken.write_text("precious")
    with pytest.raises(OutputExistsError, match="file"):
        run_demo(taken, progress=False)
    assert taken.read_text() == "precious"


def test_one_member_has_no_error_bars(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "-n", "1"])
    assert done.exit_code == 1
    assert "InputError" in done.stderr
    assert not [*tmp_path.iterdir()]
    with pytest.raises(InputError, match="at least 2"):
        run_demo(tmp_path / "demo", realizations=1, progress=False)


@pytest.mark.slow
@needs_weights
def test_a_short_demonstration(tmp_path: Path) -> None:
    out = tmp_path / "demo"  # made by the run
    report = run_demo(out, realizations=2, progress=False)
    assert sorted(p.name for p in out.iterdir()) == ["demo.png", "result.zarr"]
    assert report.result == out / "result.zarr"
    assert report.picture == out / "demo.png"
    assert report.picture.read_bytes().startswith(b"\x89PNG")
    assert report.picture.stat().st_size > 50_000
    assert report.psnr_mean > report.psnr_l1_wavelet > report.psnr_zero_filled
    assert report.psnr_mean > report.psnr_l1_wavelet + 1  # two members only
    assert report.seconds > 0
    assert 0.8 < report.coverage90 < 0.97
    with open_result(report.result) as result:
        assert result.sizes["realization"] == 2
        assert {"image", "mean", "std", "data_misfit", "reference", "zero_filled", "coverage"} == {
            *result.data_vars
        }
        assert result.attrs["invdiff_prior"].startswith("brain-t1@sha256:")
        assert 0.8 < float(result["data_misfit"].mean()) < 1.3
        inside = abs(result["reference"]) > OBJECT
        again = coverage(result["image"], result["reference"], (0.9,), where=inside)
        assert float(again[0]) == pytest.approx(report.coverage90, abs=1e-6)
        error = np.abs(np.abs(result["mean"]) - np.abs(result["reference"]))
        psnr = 20 * np.log10(np.abs(result["reference"]).max() / np.sqrt((error**2).mean()))
        assert float(psnr) == pytest.approx(report.psnr_mean, abs=0.01)
