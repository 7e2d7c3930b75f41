"""K-space files that are damaged or written by other programs: read, or a named error."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from invdiff.errors import (
    DataWarning,
    DTypeError,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)
from invdiff.io import read_kspace, write_result
from tests.support.kspace_files import SHAPE, complex_values, fastmri, save, stored_as

# Damage.


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    """Wherever a copy was interrupted."""
    arrays = {
        "kspace": complex_values(*SHAPE),
        "mask": np.ones((6, 5)),
        "maps": complex_values(*SHAPE),
    }
    path = stored_as(tmp_path, suffix, arrays, 4)
    whole = path.read_bytes()
    for n in (*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(InputError):
            read_kspace(path, slice_index=0 if suffix == ".h5" else None)


def test_npz_with_members_that_are_not_arrays(tmp_path: Path) -> None:
    path = save(tmp_path, mask=np.ones((6, 5)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("kspace", "text")
    with pytest.raises(DTypeError, match="kspace is not complex"):
        read_kspace(path)


# HDF5 files written by other programs.


def test_attributes_of_other_encodings(tmp_path: Path) -> None:
    """Latin-1 text, empty values, references: kept as text where JSON has nothing closer."""
    path = fastmri(tmp_path, complex_values(1, *SHAPE))
    with h5py.File(path, "a") as file:
        file.attrs["fixed"] = np.bytes_("Universit\xe4t".encode("latin-1"))
        file.attrs["utf8"] = np.bytes_("Universit\xe4t".encode())
        file.attrs.create("variable", "M\xfcller".encode("latin-1"), dtype=h5py.string_dtype())
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["reference"] = file["kspace"].ref
        file.attrs["complex"] = 1 + 2j
        file.attrs["list"] = np.array([b"a", b"\xe9"])
        file.attrs["compound"] = np.array((1, 2.5), "i4,f8")
        file.attrs["flag"] = np.True_
        # A type that NumPy does not have.
        space, kind = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.UNIX_D32LE
        h5py.h5a.create(file.id, b"time", kind, space)
    with pytest.warns(DataWarning, match=r"attributes \['time'\] of file1000.h5"):
        scan = read_kspace(path)
    found = {k: scan.attrs[k] for k in ("fixed", "utf8", "variable", "empty", "list", "complex")}
    assert found == {
        "fixed": "Universit\xe4t",
        "utf8": "Universit\xe4t",
        "variable": "M\xfcller",
        "empty": None,
        "list": ["a", "\xe9"],
        "complex": "(1+2j)",
    }
    assert (scan.attrs["compound"], scan.attrs["flag"]) == ([1, 2.5], True)
    assert "reference" in scan.attrs["reference"]
    assert "time" not in scan.attrs
    write_result(scan, tmp_path / "scan.zarr")
    assert read_kspace(tmp_path / "scan.zarr").attrs["fixed"] == "Universit\xe4t"


def put_group(file: h5py.File, name: str) -> None:
    file.create_group(name)


def put_empty(file: h5py.File, name: str) -> None:
    file[name] = h5py.Empty("f4")


def put_soft_link(file: h5py.File, name: str) -> None:
    file[name] = h5py.SoftLink("/nowhere")


def put_external_link(file: h5py.File, name: str) -> None:
    file[name] = h5py.ExternalLink("nowhere.h5", "/kspace")


def put_virtual(file: h5py.File, name: str) -> None:
    layout = h5py.VirtualLayout((1, *SHAPE), "c8")
    layout[:] = h5py.VirtualSource("nowhere.h5", "kspace", (1, *SHAPE))
    file.create_virtual_dataset(name, layout)


def put_type(file: h5py.File, name: str) -> None:
    file[name] = np.dtype("c8")


NOT_ARRAYS = (put_group, put_empty, put_soft_link, put_external_link, put_virtual, put_type)


@pytest.mark.parametrize("put", NOT_ARRAYS)
@pytest.mark.parametrize("name", ["kspace", "mask", "maps", "noise_std"])
def test_hdf5_without_the_array_that_is_asked_for(tmp_path: Path, name: str, put: object) -> None:
    path = fastmri(tmp_path, complex_values(1, *SHAPE))
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        put(file, name)
    with pytest.raises(InputError, match=name) as caught:
        read_kspace(path)
    assert caught.value.got


def put_strings(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (1, *SHAPE), h5py.string_dtype())


def put_bytes(file: h5py.File, name: str) -> None:
    file[name] = np.full((1, *SHAPE), b"\xe9")


def put_references(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (1, *SHAPE), h5py.ref_dtype)


def put_ragged(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (1, *SHAPE), h5py.vlen_dtype(np.dtype("f4")))


def put_pairs(file: h5py.File, name: str) -> None:
    file[name] = np.ones((1, *SHAPE), [("real", "f4"), ("imag", "f4")])


def put_enum(file: h5py.File, name: str) -> None:
    file[name] = np.ones((1, *SHAPE), h5py.enum_dtype({"no": 0, "yes": 1}, basetype="i4"))


@pytest.mark.parametrize("put", [put_strings, put_bytes, put_references, put_ragged, put_pairs])
@pytest.mark.parametrize("name", ["kspace", "mask", "maps", "noise_std"])
def test_hdf5_of_other_types(tmp_path: Path, name: str, put: object) -> None:
    path = fastmri(tmp_path, complex_values(1, *SHAPE))
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        put(file, name)
    error = NoiseLevelError if name == "noise_std" else DTypeError
    with pytest.raises(error):
        read_kspace(path)


def test_hdf5_that_is_virtual_or_linked_is_read(tmp_path: Path) -> None:
    kspace = complex_values(1, *SHAPE)
    source = fastmri(tmp_path, kspace)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(source.name, "/kspace")
    layout = h5py.VirtualLayout((1, *SHAPE), "c8")
    layout[:] = h5py.VirtualSource(source.name, "kspace", (1, *SHAPE))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("kspace", layout)
    for name in ("linked.h5", "virtual.h5"):
        np.testing.assert_array_equal(read_kspace(tmp_path / name).kspace, kspace[0])


def test_hdf5_of_raw_acquisitions(tmp_path: Path) -> None:
    """ISMRMRD raw data have a header and readouts instead of a k-space grid."""
    for name, keys in {"header.h5": ["ismrmrd_header"], "raw.h5": ["dataset/xml"]}.items():
        with h5py.File(tmp_path / name, "w") as file:
            for key in keys:
                file[key] = b"<ismrmrdHeader/>"
        with pytest.raises(InputError, match=r"does not hold k-space.*ISMRMRD"):
            read_kspace(tmp_path / name)


# Zarr stores written by other programs.


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_that_was_not_written_by_xarray(tmp_path: Path, version: int) -> None:
    """Zeros are values, also where the format has no other fill value; lost chunks are zero."""
    kspace = complex_values(*SHAPE)
    kspace[:, :, 0] = 0
    path = tmp_path / "scan.zarr"
    group = zarr.create_group(path, zarr_format=version)
    dims = ("coil", "ky", "kx")
    named = {"dimension_names": dims} if version == 3 else {}
    array = group.create_array(
        "kspace", shape=SHAPE, chunks=(3, 6, 1), dtype="c8", fill_value=0, **named
    )
    array[:] = kspace
    mask = group.create_array(
        "mask",
        shape=(5,),
        dtype="u1",
        fill_value=0,
        **({"dimension_names": ("kx",)} if version == 3 else {}),
    )
    mask[:] = [0, 1, 1, 1, 1]
    if version == 2:
        array.attrs["_ARRAY_DIMENSIONS"], mask.attrs["_ARRAY_DIMENSIONS"] = list(dims), ["kx"]
    scan = read_kspace(path)
    np.testing.assert_array_equal(scan.kspace, kspace)
    assert int(scan.mask.sum()) == 24
    (path / "kspace" / ("c/0/0/3" if version == 3 else "0.0.3")).unlink()
    with pytest.warns(DataWarning, match="6 of 24"):
        assert not read_kspace(path).mask[:, 3].any()


def test_zarr_filled_with_nan(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "scan.zarr")
    group.create_array(
        "kspace", shape=SHAPE, dtype="c8", fill_value=np.nan, dimension_names=("coil", "ky", "kx")
    )
    with pytest.raises(NonFiniteError, match=r"90 of 90 values, the first at index \(0, 0, 0\)"):
        read_kspace(tmp_path / "scan.zarr")


def test_zarr_stores_that_cannot_be_read(tmp_path: Path) -> None:
    kspace = complex_values(*SHAPE)
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(InputError, match=r"does not hold k-space; got keys \[\]"):
        read_kspace(tmp_path / "empty.zarr")
    zarr.create_array(tmp_path / "array.zarr", data=kspace)
    (tmp_path / "folder.zarr").mkdir()
    attrs = {"scale_factor": 0.5}
    write_result(
        xr.Dataset({"kspace": (("coil", "ky", "kx"), kspace, attrs)}), tmp_path / "packed.zarr"
    )
    write_result(xr.Dataset({"kspace": (("coil", "ky", "kx"), kspace)}), tmp_path / "chunk.zarr")
    chunk = next(p for p in (tmp_path / "chunk.zarr" / "kspace" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"damaged")
    write_result(xr.Dataset({"kspace": (("coil", "ky", "kx"), kspace)}), tmp_path / "json.zarr")
    (tmp_path / "json.zarr" / "kspace" / "zarr.json").write_text("{")
    group = zarr.create_group(tmp_path / "group.zarr")
    group.create_group("kspace")
    for name in ("array", "folder", "chunk", "json", "group", "packed"):
        with pytest.raises(InputError):
            read_kspace(tmp_path / f"{name}.zarr")


def test_zarr_without_labels_or_with_others(tmp_path: Path) -> None:
    kspace = complex_values(*SHAPE)
    zarr.create_group(tmp_path / "bare.zarr").create_array("kspace", data=kspace)
    with pytest.raises(InputError, match="dimension_names"):
        read_kspace(tmp_path / "bare.zarr")
    write_result(xr.Dataset({"kspace": (("c", "ky", "kx"), kspace)}), tmp_path / "other.zarr")
    with pytest.raises(ShapeError, match="other dims"):
        read_kspace(tmp_path / "other.zarr")
    write_result(xr.Dataset({"image": (("y", "x"), kspace[0])}), tmp_path / "image.zarr")
    with pytest.raises(InputError, match=r"keys \['image'\]"):
        read_kspace(tmp_path / "image.zarr")
