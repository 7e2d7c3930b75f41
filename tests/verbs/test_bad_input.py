"""Bad input: a named error that says what, got, expected and a hint, and no partial output.

Every case goes through the command line and, where it can arise there, through the library.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from invdiff import Ancestral, NoiseField, reconstruct
from invdiff.cli import app
from invdiff.errors import (
    ChecksumError,
    DTypeError,
    InputError,
    InvdiffError,
    NoiseLevelError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
    UnknownNameError,
)
from invdiff.operators.mri import CartesianMRI
from invdiff.priors import hub
from tests.support import tiny
from tests.support.words import assert_in_options

Arrays = dict[str, np.ndarray]


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def assert_tells(error: InvdiffError) -> None:
    assert error.what
    assert error.got is not None
    assert error.expected is not None
    assert error.hint
    for part in (error.what, error.got, error.expected, error.hint):
        assert str(part) in str(error)


def spoil(arrays: Arrays, name: str, value: complex) -> Arrays:
    values = arrays[name].copy()
    values[(0,) * values.ndim] = value
    return {**arrays, name: values}


def real(arrays: Arrays, name: str) -> Arrays:
    return {**arrays, name: arrays[name].real.copy()}


def cut(arrays: Arrays, name: str, part: tuple[slice, ...]) -> Arrays:
    return {**arrays, name: arrays[name][part].copy()}


def same(arrays: Arrays) -> Arrays:
    return arrays


ALL = slice(None)
IN_FILE: dict[str, tuple[Callable[[Arrays], Arrays], type[InvdiffError]]] = {
    "NaN in kspace": (lambda a: spoil(a, "kspace", np.nan), NonFiniteError),
    "Inf in kspace": (lambda a: spoil(a, "kspace", np.inf), NonFiniteError),
    "imaginary NaN": (lambda a: spoil(a, "kspace", complex(0, np.nan)), NonFiniteError),
    "NaN in maps": (lambda a: spoil(a, "sensitivity", np.nan), NonFiniteError),
    "real kspace": (lambda a: real(a, "kspace"), DTypeError),
    "real maps": (lambda a: real(a, "sensitivity"), DTypeError),
    "pairs of reals": (
        lambda a: {**a, "kspace": np.stack([a["kspace"].real, a["kspace"].imag], -1)},
        DTypeError,
    ),
    "other coils": (lambda a: cut(a, "sensitivity", (slice(3),)), ShapeError),
    "other maps": (lambda a: cut(a, "sensitivity", (ALL, slice(16))), ShapeError),
    "other mask": (lambda a: cut(a, "mask", (ALL, slice(16))), ShapeError),
    "no coil dim": (
        lambda a: {"kspace": a["kspace"][0], "mask": a["mask"]},
        ShapeError,
    ),
    "noise of zero": (lambda a: {**a, "noise_std": np.array(0.0)}, NoiseLevelError),
    "noise below zero": (lambda a: {**a, "noise_std": np.array(-0.1)}, NoiseLevelError),
    "noise of NaN": (lambda a: {**a, "noise_std": np.array(np.nan)}, NoiseLevelError),
    "noise of other coils": (lambda a: {**a, "noise_std": np.ones(3)}, ShapeError),
    "nothing acquired": (lambda a: {"kspace": 0 * a["kspace"]}, InputError),
    "no kspace": (lambda a: {"image": a["kspace"]}, InputError),
    "a volume": (
        lambda a: {k: v for k, v in tiny.scan((4, 16, 16)).items() if k != "image"},
        ShapeError,
    ),
}
IN_CALL: dict[str, tuple[list[object], type[InvdiffError]]] = {
    "noise of zero": (["--noise-std", 0], NoiseLevelError),
    "noise below zero": (["--noise-std", -1], NoiseLevelError),
    "noise of NaN": (["--noise-std", "nan"], NoiseLevelError),
    "no realizations": (["-n", 0], InputError),
    "negative realizations": (["-n", -3], InputError),
    "no steps": (["--steps", 0], InputError),
    "negative steps": (["--steps", -1], InputError),
    "no batch": (["--batch-size", 0], InputError),
    "negative seed": (["--seed", -1], InputError),
    "unknown prior": (["--prior", "brain-t7"], UnknownNameError),
    "empty prior": (["--prior", ""], UnknownNameError),
    "unknown operator": (["--operator", "spiral-mri"], UnknownNameError),
    "a slice of no volume": (["--slice", 3], InputError),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scan = tiny.scan()
    np.savez(tmp_path / "scan.npz", **{k: v for k, v in scan.items() if k != "image"})
    tiny.stored(tmp_path)
    return tmp_path


def fails(folder: Path, *args: object, error: type[InvdiffError]) -> str:
    """Run ``reconstruct`` and check that it says why not and changes nothing on disk."""
    before = listing(folder)
    # Later options win, so cases override these.
    given = ["--prior", folder / "tiny", "-n", 2, "--steps", 2, "--noise-std", 0.02]
    out = ["reconstruct", folder / "scan.npz", folder / "out.zarr"]
    done = CliRunner().invoke(app, [str(a) for a in (*out, *given, *args)])
    assert isinstance(done.exception, SystemExit), repr(done.exception)  # no traceback
    assert done.exit_code == 1
    assert re.match(
        rf"invdiff: {error.__name__}: \S.*; got .+; expected .+\. [A-Z].+\.\s*$",
        done.stderr,
        re.DOTALL,
    ), done.stderr
    assert done.stdout == ""
    assert listing(folder) == before
    assert_in_options(done.stderr, "reconstruct")
    return done.stderr


@pytest.mark.parametrize("case", IN_FILE)
def test_files(folder: Path, case: str) -> None:
    spoilt, error = IN_FILE[case]
    np.savez(folder / "scan.npz", **spoilt(dict(np.load(folder / "scan.npz"))))
    fails(folder, error=error)


@pytest.mark.parametrize("case", IN_CALL)
def test_options(folder: Path, case: str) -> None:
    options, error = IN_CALL[case]
    fails(folder, *options, error=error)


def test_damaged_weights(folder: Path) -> None:
    weights = folder / "tiny.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert "sha256" in fails(folder, error=ChecksumError)


def test_missing_weights(folder: Path) -> None:
    (folder / "tiny.safetensors").unlink()
    fails(folder, error=InputError)


@pytest.mark.parametrize("kind", ["store", "folder", "file"])
def test_existing_output(folder: Path, kind: str) -> None:
    out = folder / "out.zarr"
    if kind == "store":
        xr.Dataset({"precious": ("x", [1.0])}).to_zarr(out, zarr_format=3, consolidated=False)
    elif kind == "folder":
        out.mkdir()
        (out / "precious.txt").write_text("x")
    else:
        out.write_text("precious")
    assert "--overwrite" in fails(folder, error=OutputExistsError)
    if kind != "store":  # what is not a result is not replaced on any terms
        fails(folder, "--overwrite", error=OutputExistsError)


def test_an_existing_output_survives_a_failed_overwrite(folder: Path) -> None:
    xr.Dataset({"precious": ("x", [1.0])}).to_zarr(
        folder / "out.zarr", zarr_format=3, consolidated=False
    )
    np.savez(folder / "scan.npz", **real(dict(np.load(folder / "scan.npz")), "kspace"))
    fails(folder, "--overwrite", error=DTypeError)


def test_the_existing_output_is_noticed_before_anything_else(folder: Path) -> None:
    (folder / "out.zarr").write_text("precious")
    fails(folder, "--prior", "brain-t7", error=OutputExistsError)


def test_zero_padding_is_reported_on_the_command_line(folder: Path) -> None:
    arrays = dict(np.load(folder / "scan.npz"))
    arrays["kspace"][:, :8] = arrays["kspace"][:, -8:] = 0
    np.savez(folder / "scan.npz", **arrays)
    n_zero = int((arrays["mask"] * (arrays["kspace"] == 0).all(0)).sum())
    args = ["reconstruct", folder / "scan.npz", folder / "out.zarr", "--prior", folder / "tiny"]
    done = CliRunner().invoke(app, [str(a) for a in args])
    assert done.exit_code == 0, done.stderr
    assert re.search(rf"invdiff: DataWarning: .*{n_zero}", done.stderr)


# --- the library ----------------------------------------------------------------------------------


@pytest.fixture
def scan() -> tuple[xr.DataArray, CartesianMRI]:
    arrays = tiny.scan()
    operator = CartesianMRI(
        torch.from_numpy(arrays["mask"]),
        torch.from_numpy(arrays["sensitivity"]),
        domain=tiny.grid(),
    )
    data = operator.range.to_dataarray(torch.from_numpy(arrays["kspace"]), "kspace")
    return data, operator


Change = Callable[[xr.DataArray, CartesianMRI], dict[str, object]]
IN_LIBRARY: dict[str, tuple[Change, type[InvdiffError]]] = {
    "NaN": (lambda y, a: {"y": y.where(y.coil > 0)}, NonFiniteError),
    "Inf": (lambda y, a: {"y": y * np.inf}, NonFiniteError),
    "real data": (lambda y, a: {"y": abs(y)}, DTypeError),
    "other dims": (lambda y, a: {"y": y.rename(kx="x")}, ShapeError),
    "no coil dim": (lambda y, a: {"y": y[0]}, ShapeError),
    "fewer coils": (lambda y, a: {"y": y[:3]}, ShapeError),
    "fewer lines": (lambda y, a: {"y": y[..., :-1]}, ShapeError),
    "prior on another grid": (lambda y, a: {"prior": tiny.prior((24, 24))}, ShapeError),
    "real prior": (lambda y, a: {"prior": tiny.prior(dtype=torch.float32)}, ShapeError),
    "no noise": (lambda y, a: {"noise_std": None}, NoiseLevelError),
    "noise of zero": (lambda y, a: {"noise_std": 0.0}, NoiseLevelError),
    "noise below zero": (lambda y, a: {"noise_std": -0.1}, NoiseLevelError),
    "noise of NaN": (lambda y, a: {"noise_std": float("nan")}, NoiseLevelError),
    "infinite noise": (lambda y, a: {"noise_std": float("inf")}, NoiseLevelError),
    "a map with a zero": (
        lambda y, a: {"noise_std": torch.arange(4.0)[:, None, None]},
        NoiseLevelError,
    ),
    "scale of zero": (lambda y, a: {"scale": 0.0}, InputError),
    "scale of NaN": (lambda y, a: {"scale": float("nan")}, InputError),
    "no realizations": (lambda y, a: {"realizations": 0}, InputError),
    "negative realizations": (lambda y, a: {"realizations": -1}, InputError),
    "an empty list": (lambda y, a: {"realizations": []}, InputError),
    "no batch": (lambda y, a: {"batch_size": 0}, InputError),
    "negative seed": (lambda y, a: {"seed": -1}, InputError),
}


@pytest.mark.parametrize("case", IN_LIBRARY)
def test_the_library(scan: tuple[xr.DataArray, CartesianMRI], case: str) -> None:
    y, operator = scan
    change, error = IN_LIBRARY[case]
    y = y.assign_coords(coil=np.arange(4))
    given: dict[str, object] = {
        "y": y,
        "operator": operator,
        "prior": tiny.prior(),
        "realizations": 2,
        "seed": 0,
        "noise_std": 0.02,
        "sampler": Ancestral(2),
        **change(y, operator),
    }
    with pytest.raises(error) as caught:
        reconstruct(given.pop("y"), given.pop("operator"), given.pop("prior"), **given)
    assert type(caught.value) is error
    assert_tells(caught.value)


@pytest.mark.parametrize("steps", [0, -1])
def test_samplers_have_steps(steps: int) -> None:
    with pytest.raises(InputError, match="steps") as caught:
        Ancestral(steps)
    assert_tells(caught.value)


def test_seeds_are_in_range() -> None:
    with pytest.raises(InputError, match="seed") as caught:
        NoiseField(2**64)
    assert_tells(caught.value)


def test_good_input_is_good(folder: Path) -> None:
    """The cases above fail for their own reason and not for the frame they are in."""
    args = ["--prior", folder / "tiny", "-n", 2, "--steps", 2, "--noise-std", 0.02]
    out = ["reconstruct", folder / "scan.npz", folder / "out.zarr"]
    done = CliRunner().invoke(app, [str(a) for a in (*out, *args)])
    assert done.exit_code == 0, done.stderr
    assert (folder / "out.zarr" / "zarr.json").is_file()


def test_the_prior_is_told_by_its_checksum(folder: Path) -> None:
    """A name that is a path and a name that is registered go the same way."""
    with pytest.raises(UnknownNameError) as caught:
        hub.load_prior(folder / "nowhere")
    assert_tells(caught.value)
