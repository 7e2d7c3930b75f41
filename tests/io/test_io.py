"""Files in and out: what is read is what was written, and bad files say what is wrong."""

import os
import pickle
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from invdiff.errors import (
    DTypeError,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)
from invdiff.grid import Grid
from invdiff.io import (
    ZarrBatches,
    check_output,
    open_result,
    read_kspace,
    training_fields,
    write_result,
)

SHAPE = (3, 6, 5)


def complex_values(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(1).random(SHAPE[1:]) < 0.5


@pytest.fixture
def kspace(mask: np.ndarray) -> np.ndarray:
    return complex_values(*SHAPE) * mask


def save(folder: Path, **arrays: object) -> Path:
    path = folder / "scan.npz"
    np.savez(path, **arrays)
    return path


# --- read_kspace ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ksp", "kspace"])
@pytest.mark.parametrize("maps", ["sensitivity", "maps", "sens"])
def test_npz(tmp_path: Path, kspace: np.ndarray, mask: np.ndarray, name: str, maps: str) -> None:
    sensitivity = complex_values(*SHAPE, seed=2)
    path = save(tmp_path, **{name: kspace, maps: sensitivity}, mask=mask, noise_std=0.25)
    scan = read_kspace(path)
    assert scan.kspace.dims == ("coil", "ky", "kx")
    assert scan.mask.dims == ("ky", "kx")
    assert scan.sensitivity.dims == ("coil", "y", "x")
    np.testing.assert_array_equal(scan.kspace, kspace)
    np.testing.assert_array_equal(scan.mask, mask)
    np.testing.assert_array_equal(scan.sensitivity, sensitivity)
    assert (scan.kspace.dtype, scan.mask.dtype) == (np.complex64, np.bool_)
    assert scan.kspace.attrs == {"units": "1", "noise_std": 0.25}
    assert scan.attrs == {
        "Conventions": "CF-1.11",
        "source": "scan.npz",
        "mask_source": "given",
        "n_zero_in_mask": 0,
    }


@pytest.mark.parametrize("dtype", ["<c8", "<c16", ">c8"])
def test_precision_is_kept_and_torch_can_take_it(
    tmp_path: Path, kspace: np.ndarray, dtype: str
) -> None:
    scan = read_kspace(save(tmp_path, kspace=kspace.astype(dtype)))
    assert scan.kspace.dtype.itemsize == np.dtype(dtype).itemsize
    tensor = Grid.from_dataarray(scan.kspace).to_tensor(scan.kspace)
    np.testing.assert_array_equal(tensor.numpy(), kspace)


def test_mask_is_derived_from_any_coil(tmp_path: Path) -> None:
    kspace = np.zeros(SHAPE, np.complex64)
    kspace[0, 1, 2], kspace[2, 3, 4] = 1, 1j
    scan = read_kspace(save(tmp_path, kspace=kspace))
    assert list(zip(*np.nonzero(scan.mask.values), strict=True)) == [(1, 2), (3, 4)]
    assert scan.attrs["mask_source"] == "nonzero samples"
    assert "noise_std" not in scan.kspace.attrs
    assert "sensitivity" not in scan


def test_volume(tmp_path: Path) -> None:
    kspace = complex_values(2, 3, 4, 5)
    mask = np.ones((4, 5))
    mask[1] = 0
    scan = read_kspace(save(tmp_path, kspace=kspace * mask, sens=kspace, mask=mask))
    assert scan.kspace.dims == ("coil", "kz", "ky", "kx")
    assert scan.sensitivity.dims == ("coil", "z", "y", "x")
    assert scan.mask.dims == ("kz", "ky", "kx")
    assert not scan.mask[:, 1].any()
    assert int(scan.mask.sum()) == 3 * 3 * 5


def test_zero_padding_inside_the_mask_is_counted(tmp_path: Path, kspace: np.ndarray) -> None:
    scan = read_kspace(save(tmp_path, kspace=kspace, mask=np.ones(SHAPE[1:], np.uint8)))
    assert scan.attrs["n_zero_in_mask"] == int((kspace == 0).all(axis=0).sum()) > 0


def test_zarr_takes_dims_by_name(tmp_path: Path, kspace: np.ndarray, mask: np.ndarray) -> None:
    lines = mask.any(axis=0)
    lines[0] = False
    stored = xr.Dataset(
        {
            "kspace": (("ky", "kx", "coil"), np.moveaxis(kspace * lines, 0, -1), {"units": "V"}),
            "mask": ("kx", lines),
            "sensitivity": (("coil", "y", "x"), kspace),
        },
        {"kx": np.arange(5) - 2.0},
        {"noise_std": 0.5, "station": "test"},
    )
    path = tmp_path / "scan.zarr"
    write_result(stored, path)
    scan = read_kspace(path)
    np.testing.assert_array_equal(scan.kspace, kspace * lines)
    np.testing.assert_array_equal(scan.mask, np.tile(lines, (6, 1)))
    np.testing.assert_array_equal(scan.kx, np.arange(5) - 2)
    assert scan.kspace.attrs["units"] == "V"
    assert scan.kspace.attrs["noise_std"] == 0.5
    assert "noise_std" not in scan.attrs
    assert scan.attrs["station"] == "test"


def test_what_was_read_can_be_stored_and_read_again(tmp_path: Path, kspace: np.ndarray) -> None:
    scan = read_kspace(save(tmp_path, kspace=kspace, noise_std=[0.1, 0.2, 0.3]))
    write_result(scan, tmp_path / "scan.zarr")
    again = read_kspace(tmp_path / "scan.zarr")
    assert again.attrs == {**scan.attrs, "source": "scan.zarr"}
    assert again.attrs["mask_source"] == "nonzero samples"
    assert again.kspace.attrs["noise_std"] == [0.1, 0.2, 0.3]
    xr.testing.assert_equal(again, scan)


def fastmri(folder: Path, kspace: np.ndarray, **arrays: np.ndarray) -> Path:
    path = folder / "file1000.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = b"<ismrmrdHeader/>"
        file.attrs["acquisition"] = "AXT1"
        file.attrs["max"] = np.float32(0.5)
        for name, values in arrays.items():
            file[name] = values
    return path


def test_fastmri(tmp_path: Path) -> None:
    lines = np.array([0, 1, 1, 0, 1], np.float32)
    kspace = complex_values(4, *SHAPE) * lines
    path = fastmri(tmp_path, kspace, mask=lines)
    scan = read_kspace(path, slice_index=2)
    np.testing.assert_array_equal(scan.kspace, kspace[2])
    np.testing.assert_array_equal(scan.mask, np.tile(lines == 1, (6, 1)))
    assert scan.kspace.dtype == np.complex64
    assert (scan.attrs["acquisition"], scan.attrs["max"]) == ("AXT1", 0.5)
    with pytest.raises(InputError, match=r"holds 4 slices.*slice_index from 0 to 3"):
        read_kspace(path)
    with pytest.raises(InputError, match="slice_index=-1"):
        read_kspace(path, slice_index=-1)
    with pytest.raises(InputError, match="slice_index=4"):
        read_kspace(path, slice_index=4)


def test_fastmri_single_coil_single_slice(tmp_path: Path) -> None:
    kspace = complex_values(1, 6, 5)
    scan = read_kspace(fastmri(tmp_path, kspace))
    assert scan.kspace.dims == ("coil", "ky", "kx")
    np.testing.assert_array_equal(scan.kspace, kspace)
    assert scan.attrs["mask_source"] == "nonzero samples"


def test_fastmri_of_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"\(6, 5\)"):
        read_kspace(fastmri(tmp_path, complex_values(6, 5)))
    with pytest.raises(ShapeError, match="sensitivity"):
        read_kspace(fastmri(tmp_path, complex_values(1, 2, 6, 5), maps=complex_values(2, 6, 5)))


def test_real_brain(shared_data: Path) -> None:
    path = shared_data / "mri" / "brain_8coil_kspace.npz"
    scan = read_kspace(path)
    assert dict(scan.sizes) == {"coil": 8, "ky": 230, "kx": 180}
    assert scan.attrs["source"] == "brain_8coil_kspace.npz"
    assert (scan.attrs["mask_source"], scan.attrs["n_zero_in_mask"]) == ("given", 0)
    assert float(scan.mask.mean()) == pytest.approx(0.124, abs=5e-4)
    with np.load(path) as archive:
        np.testing.assert_array_equal(scan.kspace, archive["ksp"])
        np.testing.assert_array_equal(scan.mask, archive["mask"])


ONES = np.ones(SHAPE, complex)
BAD_ARRAYS = {
    "real": ({"kspace": np.ones((3, 6, 5, 2))}, DTypeError, r"float64.*Join real and imaginary"),
    "pairs": (
        {"kspace": np.ones(SHAPE, [("real", "f4"), ("imag", "f4")])},
        DTypeError,
        r"kspace\['real'\] \+ 1j",
    ),
    "one coil, no axis": ({"kspace": np.ones((6, 5), complex)}, ShapeError, r"\(6, 5\).*axis of"),
    "empty": ({"kspace": np.ones((0, 6, 5), complex)}, ShapeError, "empty"),
    "zeros": ({"kspace": np.zeros(SHAPE, complex)}, InputError, "no sample was acquired"),
    "mask shape": (
        {"kspace": ONES, "mask": np.ones((6, 4))},
        ShapeError,
        r"mask.*\(6, 4\).*\(6, 5\)",
    ),
    "mask by coil": ({"kspace": ONES, "mask": np.ones(SHAPE)}, ShapeError, r"\(3, 6, 5\)"),
    "weights": (
        {"kspace": ONES, "mask": np.full((6, 5), 0.5)},
        InputError,
        "other values than 0 and 1",
    ),
    "mask of text": ({"kspace": ONES, "mask": np.full((6, 5), "yes")}, DTypeError, "not boolean"),
    "outside": ({"kspace": ONES, "mask": np.eye(6, 5)}, InputError, "75 nonzero samples"),
    "sensitivity": (
        {"kspace": ONES, "maps": np.ones((2, 6, 5), complex)},
        ShapeError,
        r"sensitivity.*\(2, 6, 5\)",
    ),
    "real maps": (
        {"kspace": ONES, "maps": np.ones(SHAPE)},
        DTypeError,
        "sensitivity is not complex",
    ),
    "keys": ({"data": ONES}, InputError, r"keys \['data'\]"),
    "two keys": ({"kspace": ONES, "ksp": ONES}, InputError, "ambiguous"),
    "objects": ({"kspace": np.array([None, 1])}, InputError, "cannot be read as .npz"),
    "no noise": ({"kspace": ONES, "noise_std": 0.0}, NoiseLevelError, "positive"),
    "noise of other coils": (
        {"kspace": ONES, "noise_std": np.ones(4)},
        NoiseLevelError,
        "each of 3 coils",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(tmp_path: Path, case: str) -> None:
    arrays, error, message = BAD_ARRAYS[case]
    path = save(tmp_path, **arrays)
    with pytest.raises(error, match=message) as caught:
        read_kspace(path)
    assert type(caught.value) is error


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, np.nan)])
def test_non_finite_samples_are_counted_and_located(
    tmp_path: Path, kspace: np.ndarray, bad: complex
) -> None:
    kspace[1, 2, 3] = kspace[2, 0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"2 of 90 values.*\(1, 2, 3\)"):
        read_kspace(save(tmp_path, kspace=kspace))


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.zarr", "a.mat"])
def test_files_that_are_something_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name != "a.mat":
        with pytest.raises(InputError, match="does not exist"):
            read_kspace(path)
    path.write_text("this is no k-space")
    with pytest.raises(InputError, match=r"cannot be|no known format"):
        read_kspace(path)


def test_truncated_npz(tmp_path: Path, kspace: np.ndarray) -> None:
    path = save(tmp_path, kspace=kspace)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read"):
        read_kspace(path)


def test_zarr_without_labels_or_with_others(tmp_path: Path, kspace: np.ndarray) -> None:
    zarr.create_group(tmp_path / "bare.zarr").create_array("kspace", data=kspace)
    with pytest.raises(InputError, match="dimension_names"):
        read_kspace(tmp_path / "bare.zarr")
    write_result(xr.Dataset({"kspace": (("c", "ky", "kx"), kspace)}), tmp_path / "other.zarr")
    with pytest.raises(ShapeError, match="other dims"):
        read_kspace(tmp_path / "other.zarr")
    write_result(xr.Dataset({"image": (("y", "x"), kspace[0])}), tmp_path / "image.zarr")
    with pytest.raises(InputError, match=r"keys \['image'\]"):
        read_kspace(tmp_path / "image.zarr")


def test_slice_of_a_file_without_slices(tmp_path: Path, kspace: np.ndarray) -> None:
    with pytest.raises(InputError, match="no slices to choose from"):
        read_kspace(save(tmp_path, kspace=kspace), slice_index=0)


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
