"""K-space files of every format, for the tests of the readers. No tests in here."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import xarray as xr

SHAPE = (3, 6, 5)


def complex_values(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal complex64 values."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def save(folder: Path, **arrays: object) -> Path:
    """An .npz file."""
    path = folder / "scan.npz"
    np.savez(path, **arrays)
    return path


def fastmri(folder: Path, kspace: np.ndarray, **arrays: np.ndarray) -> Path:
    """An HDF5 file as fastMRI has them."""
    path = folder / "file1000.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = b"<ismrmrdHeader/>"
        file.attrs["acquisition"] = "AXT1"
        file.attrs["max"] = np.float32(0.5)
        for name, values in arrays.items():
            file[name] = values
    return path


def stored_as(folder: Path, suffix: str, arrays: dict[str, np.ndarray], chunks: int) -> Path:
    """The same arrays in each format; HDF5 has one more slice, of ones."""
    path = folder / f"scan{suffix}"
    axes = ("z", "y", "x")[-arrays["mask"].ndim :]
    if suffix == ".npz":
        np.savez(path, **arrays)
    elif suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name in ("kspace", "maps"):
                values = np.stack([arrays[name], np.ones_like(arrays[name])])
                chunk = tuple(min(chunks, n) for n in values.shape)
                file.create_dataset(name, data=values, chunks=chunk)
            file["mask"] = arrays["mask"]
    else:
        dims = {
            "kspace": ("coil", *(f"k{a}" for a in axes)),
            "mask": tuple(f"k{a}" for a in axes),
            "maps": ("coil", *axes),
        }
        dataset = xr.Dataset({name: (dims[name], values) for name, values in arrays.items()})
        dataset = dataset.chunk(chunks)
        dataset.to_zarr(path, zarr_format=int(suffix[-1]), consolidated=suffix == ".zarr2")
        path = path.rename(folder / "scan.zarr")
    return path
