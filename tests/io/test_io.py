"""Results and training fields: what is read is what was written, and bad files are named."""

import os
import pickle
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from invdiff.errors import (
    DTypeError,
    InputError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)
from invdiff.io import (
    ZarrBatches,
    check_output,
    open_result,
    training_fields,
    write_result,
)
from tests.support.kspace_files import complex_values

# --- results -------------------------------------------------------------------------------------


@pytest.fixture
def result() -> xr.Dataset:
    image = complex_values(2, 4, 3)
    image[0, 0, 0] = 0  # the fill value of Zarr, which must not come back as missing
    return xr.Dataset(
        {
            "image": (("realization", "y", "x"), image, {"units": "1"}),
            "std": (("y", "x"), np.abs(image[0]), {"scale": np.float32(0.5)}),
            "inside": (("y", "x"), image[0].real > 0),
        },
        {
            "realization": np.arange(2),
            "y": np.linspace(-1, 1, 4),
            "region": ("x", ["a", "bb", "ccc"]),
            "time": np.datetime64("2026-03-01T06", "ns"),
        },
        {"seed": np.int64(3), "sampler": "Heun()", "versions": {"torch": "2"}, "ess": [1.5, None]},
    )


def test_round_trip(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "out.zarr"
    write_result(result, path)
    stored = open_result(path)
    xr.testing.assert_equal(stored.load(), result)
    for name in ("image", "std", "inside"):
        assert stored[name].dtype == result[name].dtype
    assert stored.attrs == {
        "seed": 3,
        "sampler": "Heun()",
        "versions": {"torch": "2"},
        "ess": [1.5, None],
    }
    assert stored["std"].attrs == {"scale": 0.5}
    assert zarr.open_group(path, mode="r").metadata.zarr_format == 3
    assert os.listdir(tmp_path) == ["out.zarr"]
    # As open to others as any folder made here.
    (tmp_path / "folder").mkdir()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "folder").stat().st_mode)


def test_writing_changes_nothing_of_the_dataset(tmp_path: Path, result: xr.Dataset) -> None:
    before = result.copy(deep=True)
    write_result(result, tmp_path / "out.zarr")
    xr.testing.assert_identical(result, before)
    assert isinstance(result.attrs["seed"], np.int64)
    assert result["region"].dtype == before["region"].dtype


def test_existing_output_is_kept_unless_asked(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "out.zarr"
    check_output(path)
    write_result(result, path)
    with pytest.raises(OutputExistsError, match="overwrite"):
        check_output(path)
    with pytest.raises(OutputExistsError, match="overwrite"):
        write_result(result * 2, path)
    np.testing.assert_array_equal(open_result(path)["image"], result["image"])
    check_output(path, overwrite=True)
    write_result(result[["std"]], path, overwrite=True)
    assert list(open_result(path).data_vars) == ["std"]
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_store_can_be_rewritten_from_itself(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "out.zarr"
    write_result(result, path)
    lazy = open_result(path)
    write_result(lazy.assign(twice=2 * lazy["image"]), path, overwrite=True)
    np.testing.assert_array_equal(open_result(path)["twice"], 2 * result["image"])


class Broken(RuntimeError):
    """What the failing variable raises."""


class FailingArray(xr.backends.BackendArray):
    """A lazy variable whose values cannot be computed."""

    shape = (4,)
    dtype = np.dtype("f4")

    def __getitem__(self, key: object) -> np.ndarray:
        raise Broken


@pytest.mark.parametrize("existed", [True, False])
def test_failure_leaves_what_was_there(tmp_path: Path, result: xr.Dataset, existed: bool) -> None:
    path = tmp_path / "out.zarr"
    if existed:
        write_result(result, path)
    lazy = xr.core.indexing.LazilyIndexedArray(FailingArray())
    failing = result[["image"]].assign(late=("t", lazy))
    with pytest.raises(Broken):
        write_result(failing, path, overwrite=True)
    assert os.listdir(tmp_path) == (["out.zarr"] if existed else [])
    if existed:
        xr.testing.assert_equal(open_result(path).load(), result)


def test_failure_of_the_last_rename_restores(
    tmp_path: Path, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.zarr"
    write_result(result, path)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if ".partial-" in str(self):
            raise OSError("disk trouble")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk trouble"):
        write_result(result[["std"]], path, overwrite=True)
    assert os.listdir(tmp_path) == ["out.zarr"]
    xr.testing.assert_equal(open_result(path).load(), result)


def test_only_stores_are_overwritten(tmp_path: Path, result: xr.Dataset) -> None:
    folder, file = tmp_path / "thesis", tmp_path / "notes"
    folder.mkdir()
    file.write_text("keep me")
    for path in (folder, file):
        with pytest.raises(OutputExistsError, match="not a Zarr store"):
            write_result(result, path, overwrite=True)
    assert file.read_text() == "keep me"
    with pytest.raises(InputError, match="no such folder"):
        check_output(tmp_path / "missing" / "out.zarr")
    with pytest.raises(InputError, match="not a writable folder"):
        check_output(file / "out.zarr")


@pytest.mark.parametrize("value", [object(), torch.ones(2), 1j, float("nan"), {"a": Path("b")}])
def test_attributes_that_json_cannot_hold(
    tmp_path: Path, result: xr.Dataset, value: object
) -> None:
    with pytest.raises(InputError, match=r"attribute 'odd' of the dataset cannot be stored"):
        write_result(result.assign_attrs(odd=value), tmp_path / "out.zarr")
    result["std"].attrs["odd"] = value
    with pytest.raises(InputError, match="'odd' of variable 'std'"):
        write_result(result, tmp_path / "out.zarr")
    assert os.listdir(tmp_path) == []


def test_open_what_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        open_result(tmp_path / "missing.zarr")
    with pytest.raises(InputError, match="cannot be opened"):
        open_result(tmp_path)


# --- training fields -----------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images that tell where each pixel comes from: value = image + 1000 row + col."""
    n, row, col = np.meshgrid(np.arange(5), np.arange(12), np.arange(9), indexing="ij")
    value = (10_000 * n + 100 * row + col).astype(np.float32)
    path = tmp_path / "images.zarr"
    dims = ("n", "y", "x")
    dataset = xr.Dataset({"real": (dims, value), "complex": (dims, value - 2j * value)})
    dataset["count"] = (dims, value.astype(int))
    write_result(dataset, path)
    return path


def test_crops_and_their_positions(images: Path) -> None:
    batches = training_fields(images, "real", size=4, batch_size=64, seed=7)
    fields, positions = batches(0)
    assert (fields.shape, fields.dtype) == ((64, 1, 4, 4), np.float32)
    assert (positions.shape, positions.dtype) == ((64, 2, 4, 4), np.float32)
    index, rest = np.divmod(fields[:, 0], 10_000)
    row, col = np.divmod(rest, 100)
    np.testing.assert_allclose(positions[:, 0], (row - 5.5) / 112, rtol=1e-6)
    np.testing.assert_allclose(positions[:, 1], (col - 4.0) / 112, rtol=1e-6)
    assert (index == index[:, :1, :1]).all()
    # 64 draws reach all images and all edges: the rarest, one of 9 rows, is missed in 1 of 2000.
    assert set(index[:, 0, 0]) == set(range(5))
    assert (row.min(), row.max(), col.min(), col.max()) == (0, 11, 0, 8)


def test_complex_images_become_two_channels(images: Path) -> None:
    real, _ = training_fields(images, "real", size=3, batch_size=4)(1)
    both, _ = training_fields(images, "complex", size=3, batch_size=4)(1)
    np.testing.assert_array_equal(both, np.concatenate([real, -2 * real], axis=1))


def test_whole_images(images: Path) -> None:
    batches = training_fields(images, "real", size=9, batch_size=3)
    assert batches(0)[0].shape == (3, 1, 9, 9)


def test_batches_are_a_function_of_seed_and_step(images: Path) -> None:
    batches = training_fields(images, "real", size=4, batch_size=8, seed=1)
    fields, positions = batches(5)
    for other in (batches, pickle.loads(pickle.dumps(batches)), eval(repr(batches))):
        np.testing.assert_array_equal(other(5)[0], fields)
        np.testing.assert_array_equal(other(5)[1], positions)
    assert not np.array_equal(batches(6)[0], fields)
    assert not np.array_equal(ZarrBatches(str(images), "real", 4, 8, seed=2)(5)[0], fields)


def test_batches_in_a_spawned_worker(images: Path) -> None:
    batches = training_fields(images, "complex", size=4, batch_size=2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        fields, positions = pool.submit(batches, 3).result(timeout=120)
    np.testing.assert_array_equal(fields, batches(3)[0])
    np.testing.assert_array_equal(positions, batches(3)[1])


def test_only_the_crops_are_read(images: Path) -> None:
    # The chunk of image 0 is damaged: batches without that image are still drawn.
    store = zarr.open_group(images, mode="r+")
    chunked = store.create_array("chunked", shape=(5, 12, 9), chunks=(1, 12, 9), dtype="f4")
    chunked[:] = store["real"][:]
    (images / "chunked" / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    batches = training_fields(images, "chunked", size=4, batch_size=1)
    outcomes = set()
    for step in range(30):
        index = int(np.random.default_rng((0, step)).integers(5, size=1)[0])
        if index == 0:
            with pytest.raises(RuntimeError):
                batches(step)
        else:
            assert batches(step)[0][0, 0, 0, 0] // 10_000 == index
        outcomes.add(index == 0)
    assert outcomes == {True, False}


def test_images_that_cannot_be_used(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"arrays \['complex', 'count', 'real'\]"):
        training_fields(images, "velocity", size=4, batch_size=1)
    with pytest.raises(DTypeError, match="int64"):
        training_fields(images, "count", size=4, batch_size=1)
    with pytest.raises(ShapeError, match="size = 10"):
        training_fields(images, "real", size=10, batch_size=1)
    with pytest.raises(InputError, match="cannot be opened"):
        training_fields(tmp_path / "missing.zarr", "real", size=4, batch_size=1)
    with pytest.raises(InputError, match="size"):
        training_fields(images, "real", size=0, batch_size=1)
    store = zarr.open_group(images, mode="r+")
    store["real"].attrs["scale_factor"] = 0.1
    with pytest.raises(InputError, match="packed"):
        training_fields(images, "real", size=4, batch_size=1)


@pytest.mark.parametrize("bad", [np.nan, 1e300])
def test_values_that_float32_cannot_hold(images: Path, bad: float) -> None:
    store = zarr.open_group(images, mode="r+")
    wide = store.create_array("wide", shape=(1, 4, 4), chunks=(1, 4, 4), dtype="f8")
    wide[:] = bad
    with pytest.raises(NonFiniteError, match="image 0, in a crop of step 2"):
        training_fields(images, "wide", size=4, batch_size=1)(2)
