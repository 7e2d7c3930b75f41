"""K-space files: the values that were written come back, and bad arrays are named."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from invdiff.errors import (
    DataWarning,
    DTypeError,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)
from invdiff.grid import Grid
from invdiff.io import read_kspace, write_result
from tests.support.kspace_files import SHAPE, complex_values, fastmri, save, stored_as


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(1).random(SHAPE[1:]) < 0.5


@pytest.fixture
def kspace(mask: np.ndarray) -> np.ndarray:
    return complex_values(*SHAPE) * mask


# What is read is what was written.


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


@pytest.mark.parametrize("dtype", [bool, np.uint8, ">f4"])
def test_zero_padding_is_taken_out_of_the_mask(
    tmp_path: Path, kspace: np.ndarray, mask: np.ndarray, dtype: object
) -> None:
    """Zero columns of padded files are not measurements, whatever the mask of the file says."""
    path = save(tmp_path, kspace=kspace, mask=np.ones(SHAPE[1:], dtype))
    n_zero = int((~mask).sum())
    with pytest.warns(DataWarning, match=rf"^{n_zero} of 30 samples in the mask are exactly zero"):
        scan = read_kspace(path)
    np.testing.assert_array_equal(scan.mask, mask)
    assert scan.attrs["n_zero_in_mask"] == n_zero > 0
    # A sample that is zero in some of the coils only was measured.
    kspace[0] = 0
    with pytest.warns(DataWarning):
        scan = read_kspace(save(tmp_path, kspace=kspace, mask=np.ones(SHAPE[1:], dtype)))
    np.testing.assert_array_equal(scan.mask, mask)
    # The count survives storing, and nothing is reported twice.
    write_result(scan, tmp_path / "scan.zarr")
    again = read_kspace(tmp_path / "scan.zarr")
    assert again.attrs["n_zero_in_mask"] == n_zero
    assert again.attrs["mask_source"] == "given"


def test_zarr_takes_dims_by_name(tmp_path: Path) -> None:
    lines = np.array([0, 1, 1, 0, 1], bool)
    kspace = complex_values(*SHAPE)
    stored = xr.Dataset(
        {
            "kspace": (("ky", "kx", "coil"), np.moveaxis(kspace * lines, 0, -1), {"units": "V"}),
            "mask": ("kx", lines),
            "sensitivity": (("coil", "y", "x"), kspace),
        },
        {"kx": np.arange(5) - 2.0, "y": ("y", np.arange(6) * 0.5, {"units": "mm"})},
        {"noise_std": 0.5, "station": "test"},
    )
    path = tmp_path / "scan.zarr"
    write_result(stored, path)
    scan = read_kspace(path)
    np.testing.assert_array_equal(scan.kspace, kspace * lines)
    np.testing.assert_array_equal(scan.mask, np.tile(lines, (6, 1)))
    np.testing.assert_array_equal(scan.kx, np.arange(5) - 2)
    np.testing.assert_array_equal(scan.y, np.arange(6) / 2)
    assert scan.y.attrs == {"units": "mm"}
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


def test_fastmri(tmp_path: Path) -> None:
    lines = np.array([0, 1, 1, 0, 1], np.float32)
    kspace = complex_values(4, *SHAPE) * lines
    path = fastmri(tmp_path, kspace, mask=lines)
    scan = read_kspace(path, slice_index=2)
    np.testing.assert_array_equal(scan.kspace, kspace[2])
    np.testing.assert_array_equal(scan.mask, np.tile(lines == 1, (6, 1)))
    assert scan.kspace.dtype == np.complex64
    assert (scan.attrs["acquisition"], scan.attrs["max"]) == ("AXT1", 0.5)
    for index in (np.int64(2), np.uint8(2), np.array(2)):
        xr.testing.assert_identical(read_kspace(path, slice_index=index), scan)
    for bad in (None, -1, np.int64(-1), 4):
        got = "no slice_index" if bad is None else f"slice_index={bad}"
        with pytest.raises(InputError, match=rf"4 slices; got {got}; .*from 0 to 3"):
            read_kspace(path, slice_index=bad)
    for bad in (2.0, 2.5, np.float64(2), True, np.True_, "2", [2]):
        with pytest.raises(InputError, match="slice_index is not an integer"):
            read_kspace(path, slice_index=bad)


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
    for empty in ((0, 2, 6, 5), (2, 0, 6, 5), (2, 6, 0)):
        with pytest.raises(ShapeError, match="kspace is empty"):
            read_kspace(fastmri(tmp_path, complex_values(*empty)), slice_index=0)


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
    "mask all zero": ({"kspace": ONES, "mask": np.zeros((6, 5))}, InputError, "90 nonzero samples"),
    "both all zero": ({"kspace": 0 * ONES, "mask": np.zeros((6, 5))}, InputError, "an empty mask"),
    "zeros in the mask": (
        {"kspace": np.zeros(SHAPE, complex), "mask": np.ones((6, 5))},
        InputError,
        "zeros in all coils",
    ),
    "NaN in the mask": (
        {"kspace": ONES, "mask": np.where(np.eye(6, 5), np.nan, 1)},
        NonFiniteError,
        r"mask holds NaN or Inf; got 5 of 30 values, the first at index \(0, 0\)",
    ),
    "zero-d": ({"kspace": np.complex64(1)}, ShapeError, r"shape \(\)"),
    "longdouble": ({"kspace": ONES.astype(np.clongdouble)}, DTypeError, "complex64 or complex128"),
    "text": ({"kspace": np.full(SHAPE, "1+1j")}, DTypeError, "kspace is not complex"),
    "no noise": ({"kspace": ONES, "noise_std": 0.0}, NoiseLevelError, "positive"),
    "negative noise": ({"kspace": ONES, "noise_std": [1, -1, 1]}, NoiseLevelError, "positive"),
    "NaN noise": ({"kspace": ONES, "noise_std": np.nan}, NoiseLevelError, "positive"),
    "Inf noise": ({"kspace": ONES, "noise_std": np.inf}, NoiseLevelError, "finite"),
    "noise as text": ({"kspace": ONES, "noise_std": "0.1"}, NoiseLevelError, "not a number"),
    "noise as bool": ({"kspace": ONES, "noise_std": True}, NoiseLevelError, "not a number"),
    "complex noise": ({"kspace": ONES, "noise_std": 1j}, NoiseLevelError, "not a number"),
    "noise of other coils": (
        {"kspace": ONES, "noise_std": np.ones(4)},
        ShapeError,
        "each of 3 coils",
    ),
    "noise by sample": (
        {"kspace": ONES, "noise_std": np.ones((6, 5))},
        ShapeError,
        "noise model of invdiff.reconstruct",
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
    path.write_text("not k-space")
    with pytest.raises(InputError, match=r"cannot be read|does not have the suffix"):
        read_kspace(path)
    if name == "a.zarr":
        return
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"cannot be read|does not have the suffix"):
        read_kspace(path)


def test_slice_of_a_file_without_slices(tmp_path: Path, kspace: np.ndarray) -> None:
    with pytest.raises(InputError, match="no slices to choose from"):
        read_kspace(save(tmp_path, kspace=kspace), slice_index=0)


def test_what_is_not_a_path() -> None:
    with pytest.raises(InputError, match="not a path; got int"):
        read_kspace(3)


@pytest.mark.parametrize("given", [0.5, [0.5] * 3, np.float32(0.5), np.array([0.5]), ">f8", 2])
def test_noise_levels(tmp_path: Path, kspace: np.ndarray, given: object) -> None:
    given = np.array(0.5, ">f8") if isinstance(given, str) else given
    stored = read_kspace(save(tmp_path, kspace=kspace, noise_std=given)).kspace.attrs["noise_std"]
    expected = np.asarray(given, float).tolist()
    assert stored == (expected if np.size(given) == 3 else np.asarray(given).item())
    assert type(stored) is (list if np.size(given) == 3 else float)


def test_a_coil_without_samples_may_have_no_noise(tmp_path: Path, kspace: np.ndarray) -> None:
    kspace[1] = 0
    scan = read_kspace(save(tmp_path, kspace=kspace, noise_std=[0.1, 0.0, 0.2]))
    assert scan.kspace.attrs["noise_std"] == [0.1, 0.0, 0.2]
    with pytest.raises(NoiseLevelError, match="positive"):
        read_kspace(save(tmp_path, kspace=kspace, noise_std=[0.1, 0.2, 0.0]))


# The formats: capitals, laws over shapes, and damage.


@pytest.mark.parametrize("suffix", [".NPZ", ".H5", ".HDF5", ".h5", ".Hdf5", ".Zarr", ".ZARR"])
def test_the_case_of_the_suffix(tmp_path: Path, suffix: str) -> None:
    kspace = complex_values(1, *SHAPE)
    if suffix.lower() == ".npz":
        path = save(tmp_path, kspace=kspace[0]).rename(tmp_path / f"scan{suffix}")
    elif suffix.lower() == ".zarr":
        path = tmp_path / f"scan{suffix}"
        write_result(xr.Dataset({"kspace": (("coil", "ky", "kx"), kspace[0])}), path)
    else:
        path = fastmri(tmp_path, kspace).rename(tmp_path / f"scan{suffix}")
    scan = read_kspace(path)
    np.testing.assert_array_equal(scan.kspace, kspace[0])
    assert scan.attrs["source"] == f"scan{suffix}"


@st.composite
def scans(draw: st.DrawFn, n_image_axes: st.SearchStrategy[int]) -> dict[str, np.ndarray]:
    n_axes = draw(n_image_axes)
    shape = tuple(draw(st.integers(1, 5)) for _ in range(n_axes + 1))
    dtype = draw(st.sampled_from(["<c8", ">c8", "<c16", ">c16"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random(shape[1:]) < 0.6
    mask.flat[-1] = True
    values = rng.standard_normal((2, 2, *shape))
    kspace, maps = (values[:, 0] + 1j * values[:, 1]).astype(dtype)
    mask_dtype = draw(st.sampled_from(["?", "u1", ">i4", "<f4", ">f8"]))
    return {"kspace": (kspace * mask).astype(dtype), "mask": mask.astype(mask_dtype), "maps": maps}


AXES = {".npz": (2, 3), ".zarr2": (2, 3), ".zarr3": (2, 3), ".h5": (2,)}


@pytest.mark.parametrize("suffix", AXES)
@settings(max_examples=25)
@given(data=st.data())
def test_every_format_returns_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    arrays = data.draw(scans(st.sampled_from(AXES[suffix])))
    path = stored_as(tmp_path_factory.mktemp("a"), suffix, arrays, data.draw(st.integers(1, 4)))
    scan = read_kspace(path, slice_index=0 if suffix == ".h5" else None)
    for name, stored in {"kspace": "kspace", "mask": "mask", "sensitivity": "maps"}.items():
        np.testing.assert_array_equal(scan[name], arrays[stored])
        assert scan[name].dtype.isnative
    assert scan.kspace.dtype.itemsize == arrays["kspace"].dtype.itemsize
    Grid.from_dataarray(scan.kspace).to_tensor(scan.kspace)  # torch can take it
    assert "n_zero_in_mask" in scan.attrs


@pytest.mark.parametrize("suffix", AXES)
@settings(max_examples=15)
@given(data=st.data())
def test_every_format_finds_the_first_nan(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    arrays = data.draw(scans(st.sampled_from(AXES[suffix])))
    name = data.draw(st.sampled_from(["kspace", "maps"]))
    size = arrays[name].size
    places = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=3))
    bad = data.draw(st.sampled_from([np.nan, np.inf, complex(0, np.nan), complex(0, -np.inf)]))
    arrays[name].reshape(-1)[list(places)] = bad
    first = tuple(map(int, np.unravel_index(min(places), arrays[name].shape)))
    path = stored_as(tmp_path_factory.mktemp("a"), suffix, arrays, 2)
    with pytest.raises(NonFiniteError) as caught:
        read_kspace(path, slice_index=0 if suffix == ".h5" else None)
    assert caught.value.got == f"{len(places)} of {size} values, the first at index {first}"


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i2", "u1", "?", "f2"])
@pytest.mark.parametrize("suffix", AXES)
def test_every_format_refuses_real_values(tmp_path: Path, suffix: str, dtype: str) -> None:
    values = np.ones(SHAPE, dtype)
    path = stored_as(
        tmp_path, suffix, {"kspace": values, "mask": values[0], "maps": values + 1j}, 4
    )
    with pytest.raises(DTypeError, match="kspace is not complex"):
        read_kspace(path, slice_index=0 if suffix == ".h5" else None)
