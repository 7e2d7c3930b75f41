"""The command line on a small scan: the result opens and has its provenance."""

from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import invdiff
from invdiff.cli import app
from invdiff.io import open_result
from tests.support import tiny

DEFAULTS = ("realizations", "batch_size", "device")


N_STEPS = 4


def run(*args: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in args])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    scan = tiny.scan(noise=0.05)
    np.savez(tmp_path / "scan.npz", **{k: scan[k] for k in ("kspace", "mask", "sensitivity")})
    return tmp_path / "scan.npz"


def reconstruct(source: Path, out: Path, prior: Path, *more: object) -> xr.Dataset:
    given = ["--noise-std", 0.05, "--steps", N_STEPS, "--prior", prior]
    text = run("reconstruct", source, out, "-n", 3, *given, *more)
    assert str(out) in text
    assert "3 members" in text
    with open_result(out) as stored:
        return stored.load()


def test_reconstruct(tmp_path: Path, source: Path) -> None:
    stem = tiny.stored(tmp_path)
    result = reconstruct(source, tmp_path / "out.zarr", stem, "--seed", 7, "--batch-size", 2)
    assert result["image"].dims == ("realization", "y", "x")
    assert result["image"].shape == (3, *tiny.SHAPE)
    assert result["image"].dtype == np.complex64
    assert np.isfinite(result["image"]).all()
    assert result.attrs["invdiff_seed"] == 7
    assert result.attrs["invdiff_batch_size"] == 2
    assert result.attrs["invdiff_input"] == "scan.npz"
    assert result.attrs["invdiff_sampler"] == f"Ancestral(steps={N_STEPS}, keep=0.75)"
    assert result.attrs["invdiff_prior"].startswith("tiny@sha256:")
    assert "CartesianMRI(4 coils, 32x24" in result.attrs["invdiff_operator"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out.zarr", "scan.npz", "tiny.json", "tiny.safetensors",
    ]  # fmt: skip
    # In units of the file: the disc is 1 bright.
    truth = np.abs(tiny.scan()["image"])
    inside = float(abs(result["mean"]).values[truth > 0].mean())
    assert inside == pytest.approx(1, rel=0.15)
    again = reconstruct(source, tmp_path / "again.zarr", stem, "--seed", 7, "--batch-size", 2)
    xr.testing.assert_identical(result, again)
    other = reconstruct(source, tmp_path / "other.zarr", stem, "--seed", 8)
    assert (other["image"] != result["image"]).any()


def test_the_units_of_the_file_come_back(tmp_path: Path, source: Path) -> None:
    stem = tiny.stored(tmp_path)
    arrays = dict(np.load(source))
    np.savez(tmp_path / "large.npz", **{**arrays, "kspace": 1024 * arrays["kspace"]})
    plain = reconstruct(source, tmp_path / "a.zarr", stem)
    given = ["--steps", N_STEPS, "--prior", stem, "--noise-std", 1024 * 0.05]
    run("reconstruct", tmp_path / "large.npz", tmp_path / "b.zarr", "-n", 3, *given)
    with open_result(tmp_path / "b.zarr") as large:
        np.testing.assert_allclose(large["image"], 1024 * plain["image"], rtol=1e-3, atol=0.5)
        np.testing.assert_allclose(large["data_misfit"], plain["data_misfit"], rtol=1e-3)


def test_overwrite(tmp_path: Path, source: Path) -> None:
    stem, out = tiny.stored(tmp_path), tmp_path / "out.zarr"
    reconstruct(source, out, stem, "--seed", 1)
    assert reconstruct(source, out, stem, "--seed", 2, "--overwrite").attrs["invdiff_seed"] == 2


@pytest.mark.parametrize("suffix", ["", ".json", ".safetensors"])
def test_priors_by_any_of_their_paths(tmp_path: Path, source: Path, suffix: str) -> None:
    from invdiff.priors import hub

    hub.save_prior(tiny.prior(), tmp_path / "tiny.v2", tiny.CARD)
    out = tmp_path / "out.zarr"
    result = reconstruct(source, out, tmp_path / f"tiny.v2{suffix}")
    assert result.attrs["invdiff_prior"].startswith("tiny@")


def test_noise_and_maps_are_estimated(tmp_path: Path) -> None:
    scan = tiny.scan((48, 48), noise=0.1)
    np.savez(tmp_path / "scan.npz", ksp=scan["kspace"])  # neither mask, maps nor noise
    out, stem = tmp_path / "out.zarr", tiny.stored(tmp_path)
    text = run("reconstruct", tmp_path / "scan.npz", out, "-n", 2, "--steps", 4, "--prior", stem)
    assert "misfit" in text
    with open_result(out) as result:
        assert 0.2 < float(result["data_misfit"].mean()) < 2


def test_the_noise_of_the_file_is_used(tmp_path: Path, source: Path) -> None:
    stem, arrays = tiny.stored(tmp_path), dict(np.load(source))
    np.savez(tmp_path / "told.npz", **arrays, noise_std=0.05)
    np.savez(tmp_path / "each.npz", **arrays, noise_std=[0.05] * 4)
    asked = reconstruct(source, tmp_path / "asked.zarr", stem)
    for name in ("told", "each"):
        given = ["--steps", N_STEPS, "--prior", stem]
        out = tmp_path / f"{name}.zarr"
        run("reconstruct", tmp_path / f"{name}.npz", out, "-n", 3, *given)
        with open_result(out) as told:
            np.testing.assert_allclose(told["image"], asked["image"], atol=1e-4)


def test_names() -> None:
    text = run("names")
    assert "brain-t1" in text
    assert "velocity-2d" in text
    assert "cartesian-mri" in text


def test_help_names_the_commands() -> None:
    text = run("--help")
    for command in ("demo", "reconstruct", "invert", "names"):
        assert command in text


def test_defaults_of_the_help_are_those_of_python() -> None:
    shown = CliRunner().invoke(app, ["reconstruct", "--help"], env={"COLUMNS": "200"}).output
    text = " ".join(shown.replace("│", " ").split())
    wanted = {name: signature(invdiff.reconstruct).parameters[name].default for name in DEFAULTS}
    for name, default in (wanted | {"steps": invdiff.Ancestral().steps}).items():
        option = text[text.index("--" + name.replace("_", "-")) :]
        assert f"default {default}." in option[:140], name
