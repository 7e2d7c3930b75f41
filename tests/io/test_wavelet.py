"""Wavelets from files: columns of text and numpy, labelled stores, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from invdiff.errors import InputError, NonFiniteError
from invdiff.io import read_wavelet, write_result

AMPLITUDE = np.array([0.0, 1.5, -2.0, 0.25])
TIME = -0.004 + 0.002 * np.arange(4)


def write(path: Path, columns: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, columns)
    else:
        delimiter = "," if path.suffix == ".csv" else " "
        np.savetxt(path, columns, delimiter=delimiter, header="amplitude")
    return path


@pytest.mark.parametrize("name", ["w.txt", "w.csv", "w.dat", "w.npy"])
def test_columns(tmp_path: Path, name: str) -> None:
    one = read_wavelet(write(tmp_path / name, AMPLITUDE))
    np.testing.assert_array_equal(one, AMPLITUDE)
    assert one.dims == ("time",)
    assert "time" not in one.coords
    two = read_wavelet(write(tmp_path / name, np.stack([TIME, AMPLITUDE], 1)))
    np.testing.assert_array_equal(two, AMPLITUDE)
    np.testing.assert_array_equal(two["time"], TIME)


@pytest.mark.parametrize("dims", [("time",), ("shot", "time")])
def test_stores(tmp_path: Path, dims: tuple[str, ...]) -> None:
    values = AMPLITUDE if len(dims) == 1 else np.stack([AMPLITUDE, 2 * AMPLITUDE])
    dataset = xr.Dataset({"wavelet": (dims, values)}, {"time": TIME})
    write_result(dataset, tmp_path / "w.zarr")
    read = read_wavelet(tmp_path / "w.zarr")
    assert read.dims == dims
    np.testing.assert_array_equal(read, values)
    np.testing.assert_array_equal(read["time"], TIME)


def test_what_is_no_wavelet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix '.wav'"):
        read_wavelet(tmp_path / "w.wav")
    with pytest.raises(InputError, match="does not exist"):
        read_wavelet(tmp_path / "w.txt")
    with pytest.raises(InputError, match=r"shape \(4, 3\)"):
        read_wavelet(write(tmp_path / "w.txt", np.ones((4, 3))))
    (tmp_path / "words.txt").write_text("no numbers\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_wavelet(tmp_path / "words.txt")
    with pytest.raises(NonFiniteError, match=r"w.npy holds NaN"):
        read_wavelet(write(tmp_path / "w.npy", np.array([1.0, np.nan])))
    write_result(xr.Dataset({"pressure": ("time", AMPLITUDE)}), tmp_path / "p.zarr")
    with pytest.raises(InputError, match="holds no wavelet"):
        read_wavelet(tmp_path / "p.zarr")
    milliseconds = {"time": ("time", TIME * 1e3, {"units": "ms"})}
    write_result(xr.Dataset({"wavelet": ("time", AMPLITUDE)}, milliseconds), tmp_path / "m.zarr")
    with pytest.raises(InputError, match="not in s; got units 'ms'"):
        read_wavelet(tmp_path / "m.zarr")
