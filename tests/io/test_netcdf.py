"""netCDF: a `.nc` result is a netCDF file, complex values and all, or it is refused by name."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typer.testing import CliRunner

from invdiff.cli import app
from invdiff.errors import InputError, MissingDependencyError, OutputExistsError
from invdiff.io import (
    check_output,
    from_netcdf_safe,
    open_result,
    to_netcdf_safe,
    write_result,
)
from invdiff.io import netcdf as module
from tests.support import tiny


@pytest.fixture(autouse=True)
def scipy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where neither netCDF4 nor h5netcdf is installed."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.fixture
def result() -> xr.Dataset:
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((2, 4, 3)) + 1j * rng.standard_normal((2, 4, 3))).astype("c8")
    wide = image[0].astype("c16")
    wide[1, 1] = complex(1, np.inf)
    wide[2, 2] = complex(np.nan, -2)
    return xr.Dataset(
        {
            "image": (("realization", "y", "x"), image, {"units": "T", "long_name": "µ field"}),
            "wide": (("y", "x"), wide),
            "std": (("y", "x"), np.abs(image[0]), {"scale": np.float32(0.5)}),
            "inside": (("y", "x"), image[0].real > 0),
            "data_misfit": ("realization", np.array([1.0, 1.5], np.float32)),
        },
        {
            "realization": np.arange(2),
            "y": np.linspace(-1, 1, 4),
            "region": ("x", ["a", "bb", "ccc"]),
            "time": np.datetime64("2026-03-01T06", "ns"),
        },
        {"seed": 3, "sampler": "Heun()", "bands": [6.0, 10.0]},
    )


def first_bytes(path: Path) -> bytes:
    return path.read_bytes()[:4]


@pytest.mark.parametrize("name", ["out.nc", "OUT.NC", "posterior 0.5.Nc"])
def test_round_trip_by_scipy(tmp_path: Path, result: xr.Dataset, name: str) -> None:
    path = tmp_path / name
    check_output(path)
    write_result(result, path)
    assert first_bytes(path) == b"CDF\x02"  # netCDF-3 with 64-bit offsets
    assert os.listdir(tmp_path) == [name]
    stored = open_result(path)
    xr.testing.assert_equal(stored, result)
    for variable in ("image", "wide", "std", "inside", "data_misfit", "y"):
        assert stored[variable].dtype == result[variable].dtype
    assert stored["image"].attrs == {"units": "T", "long_name": "µ field"}
    assert stored["std"].attrs == {"scale": 0.5}
    assert (stored.attrs["seed"], stored.attrs["sampler"]) == (3, "Heun()")
    np.testing.assert_array_equal(stored.attrs["bands"], [6.0, 10.0])
    # As open to others as any file made here.
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["netCDF4", "h5netcdf"])
def test_round_trip_by_others(
    tmp_path: Path, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(module, "find_spec", lambda wanted: name if wanted == name else None)
    many = result.assign(count=("x", [2**40, 1, 2]))
    write_result(many, tmp_path / "out.nc4")
    assert first_bytes(tmp_path / "out.nc4") == b"\x89HDF"
    xr.testing.assert_equal(open_result(tmp_path / "out.nc4"), many)


@given(
    values=hnp.arrays(
        st.sampled_from([np.dtype(d) for d in ("<c8", ">c8", "<c16", "<f4", ">f4", ">f8", "<i2")]),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
    )
)
def test_values_come_back_whatever_their_shape_and_byte_order(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("netcdf") / "out.nc"
    dims = [f"dim_{i}" for i in range(values.ndim)]
    written = xr.Dataset({"field": (dims, values)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_spec", lambda name: None)
        write_result(written, path)
        xr.testing.assert_equal(open_result(path), written)
    assert open_result(path)["field"].dtype.kind == values.dtype.kind


def test_attributes_without_a_netcdf_type_are_json(tmp_path: Path, result: xr.Dataset) -> None:
    odd = {
        "seed": 2**40,
        "converged": True,
        "nothing": None,
        "versions": {"torch": "2"},
        "ess": [1.5, None],
        "names": ["a", "b"],
        "empty": [],
        "blank": "",
    }
    write_result(result.assign_attrs(odd), tmp_path / "out.nc")
    attrs = open_result(tmp_path / "out.nc").attrs
    assert {name: attrs[name] for name in odd} == {
        "seed": "1099511627776",
        "converged": "true",
        "nothing": "null",
        "versions": '{"torch": "2"}',
        "ess": "[1.5, null]",
        "names": '["a", "b"]',
        "empty": "[]",
        "blank": "",
    }


def test_writing_changes_nothing_of_the_dataset(tmp_path: Path, result: xr.Dataset) -> None:
    before = result.copy(deep=True)
    write_result(result, tmp_path / "out.nc")
    xr.testing.assert_identical(result, before)


@pytest.mark.parametrize(
    "values",
    [
        np.array([2**40]),
        np.array([200], np.uint8),
        np.array([1.5], np.float16),
        np.zeros(0),
        np.broadcast_to(np.float32(0), 2**29),
    ],
    ids=["beyond 32 bits", "uint8", "float16", "empty", "2 GiB"],
)
def test_what_netcdf_3_cannot_hold_asks_for_netcdf4(
    tmp_path: Path, result: xr.Dataset, values: np.ndarray
) -> None:
    with pytest.raises(MissingDependencyError, match=r"netCDF-3.*pip install netCDF4.*Zarr"):
        write_result(result.assign(count=("n", values)), tmp_path / "out.nc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_what_neither_format_can_hold_is_refused(
    tmp_path: Path, result: xr.Dataset, name: str
) -> None:
    with pytest.raises(InputError, match=r"slash.*'std/y'"):
        write_result(result.rename(std="std/y"), tmp_path / name)
    with pytest.raises(InputError, match=r"several levels.*reset_index"):
        write_result(result.stack(cell=("y", "realization")), tmp_path / name)
    mixed = np.array([1, "b", None], object)
    with pytest.raises((InputError, MissingDependencyError), match="mixed native types"):
        write_result(result.assign(mixed=("n", mixed)), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_nc4_needs_a_package_that_writes_it(tmp_path: Path, result: xr.Dataset) -> None:
    for name in ("out.nc4", "OUT.NC4"):
        with pytest.raises(MissingDependencyError, match=r"netCDF-4.*pip install netCDF4"):
            check_output(tmp_path / name)
        with pytest.raises(MissingDependencyError, match="netCDF-4"):
            write_result(result, tmp_path / name)
    (tmp_path / "other.nc").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(MissingDependencyError, match="is a netCDF-4 file"):
        open_result(tmp_path / "other.nc")


@pytest.mark.parametrize("name", ["out.h5", "out.npz", "out.txt", "out.zip", "posterior_0.02"])
def test_other_suffixes_are_refused(tmp_path: Path, result: xr.Dataset, name: str) -> None:
    for attempt in (lambda path: check_output(path), lambda path: write_result(result, path)):
        with pytest.raises(InputError, match=rf"\.zarr or \.nc.*{name}\.zarr"):
            attempt(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out", "out.ZARR", ".hidden"])
def test_without_a_suffix_it_is_zarr(tmp_path: Path, result: xr.Dataset, name: str) -> None:
    write_result(result, tmp_path / name)
    assert (tmp_path / name / "zarr.json").is_file()
    xr.testing.assert_equal(open_result(tmp_path / name).load(), result)


def test_existing_output_is_kept_unless_asked(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "out.nc"
    write_result(result, path)
    before = path.read_bytes()
    for attempt in (lambda: check_output(path), lambda: write_result(2 * result, path)):
        with pytest.raises(OutputExistsError, match="overwrite"):
            attempt()
    assert path.read_bytes() == before
    check_output(path, overwrite=True)
    write_result(result[["std"]], path, overwrite=True)
    assert list(open_result(path).data_vars) == ["std"]
    assert os.listdir(tmp_path) == ["out.nc"]


def test_a_file_can_be_rewritten_from_itself(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "out.nc"
    write_result(result, path)
    stored = open_result(path)
    write_result(stored.assign(twice=2 * stored["image"]), path, overwrite=True)
    np.testing.assert_array_equal(open_result(path)["twice"], 2 * result["image"])


def test_only_netcdf_files_are_overwritten(tmp_path: Path, result: xr.Dataset) -> None:
    notes = tmp_path / "notes.nc"
    notes.write_text("keep me")
    write_result(result, tmp_path / "store.zarr")
    (tmp_path / "store.zarr").rename(tmp_path / "store.nc")  # a Zarr folder of such a name
    write_result(result, tmp_path / "file.nc")
    (tmp_path / "file.nc").rename(tmp_path / "file.zarr")
    for name, kind in (
        ("notes.nc", "netCDF file"),
        ("store.nc", "netCDF file"),
        ("file.zarr", "Zarr store"),
    ):
        with pytest.raises(OutputExistsError, match=f"not a {kind}"):
            write_result(result, tmp_path / name, overwrite=True)
    assert notes.read_text() == "keep me"
    # Stores that earlier versions wrote under such names can still be read.
    xr.testing.assert_equal(open_result(tmp_path / "store.nc").load(), result)


def test_folders_that_cannot_be_written_to(
    tmp_path: Path, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such folder"):
        write_result(result, tmp_path / "missing" / "out.nc")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a writable folder"):
        write_result(result, tmp_path / "file" / "out.nc")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(InputError, match="not a writable folder"):
        check_output(tmp_path / "out.nc")


def test_failure_leaves_what_was_there(
    tmp_path: Path, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.nc"
    write_result(result, path)
    before = path.read_bytes()

    def fail(dataset: xr.Dataset, part: Path) -> None:
        part.write_bytes(b"CDF\x02 half a file")
        raise OSError("disk full")

    monkeypatch.setattr(module, "write_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        write_result(result, path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.nc"]


def test_open_what_is_not_netcdf(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_result(tmp_path / "missing.nc")
    for content in (b"", b"CD", b"text"):
        (tmp_path / "text.nc").write_bytes(content)
        with pytest.raises(InputError, match="a file of another format"):
            open_result(tmp_path / "text.nc")


@pytest.mark.parametrize("n_bytes", [4, 20, 200, -8])
def test_open_half_a_file(tmp_path: Path, result: xr.Dataset, n_bytes: int) -> None:
    path = tmp_path / "out.nc"
    write_result(result, path)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(InputError, match="cannot be opened as netCDF"):
        open_result(path)


def test_complex_variables_are_split_and_joined(result: xr.Dataset) -> None:
    safe = to_netcdf_safe(result)
    assert set(safe.data_vars) == {
        "image_real", "image_imag", "wide_real", "wide_imag", "std", "inside", "data_misfit",
    }  # fmt: skip
    xr.testing.assert_identical(from_netcdf_safe(safe), result)
    with pytest.raises(InputError, match="image_imag"):
        to_netcdf_safe(result.assign(image_imag=result["std"]))
    with pytest.raises(InputError, match=r"complex coordinates.*\['phase'\]"):
        to_netcdf_safe(result.assign_coords(phase=("y", 1j * np.ones(4))))
    with pytest.raises(InputError, match="lacks one of its parts"):
        from_netcdf_safe(safe.drop_vars("image_real"))


@pytest.mark.parametrize("name", ["posterior.nc", "posterior.zarr"])
def test_the_command_line_writes_what_the_suffix_says(tmp_path: Path, name: str) -> None:
    scan, stem = tiny.scan(), tiny.stored(tmp_path)
    np.savez(tmp_path / "scan.npz", **{k: scan[k] for k in ("kspace", "mask", "sensitivity")})
    asked = ["--prior", stem, "-n", 2, "--steps", 2, "--noise-std", 0.02, "--seed", 2**40]
    arguments = ["reconstruct", tmp_path / "scan.npz", tmp_path / name, *asked]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    assert (tmp_path / name).is_file() == (name == "posterior.nc")
    stored = open_result(tmp_path / name)
    assert stored["image"].dtype == np.complex64
    assert stored["image"].shape == (2, *tiny.SHAPE)
    assert int(stored.attrs["invdiff_seed"]) == 2**40
    np.testing.assert_array_equal(stored["mean"], stored["image"].mean("realization"))
    again = CliRunner().invoke(app, [str(a) for a in arguments])
    assert again.exit_code == 1
    assert "OutputExistsError" in again.stderr
    arguments[2] = tmp_path / "posterior.h5"
    refused = CliRunner().invoke(app, [str(a) for a in arguments])
    assert refused.exit_code == 1
    assert "ends in .zarr or .nc" in refused.stderr
