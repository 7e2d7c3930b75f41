"""Coordinates of data and grid: what rounding makes is accepted, other places are named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from invdiff.errors import InputError, ShapeError
from invdiff.grid import Grid, check_coordinates
from invdiff.kspace import check_acquisition

DEPTH = 10.0 * np.arange(50)
UTM = 5e5 + DEPTH
NAMES = np.array(["a", "b", "c"])
TIMES = pd.date_range("2020-01-01", periods=3, freq="6h").values


def on_grid(expected: np.ndarray, values: np.ndarray) -> torch.Tensor:
    """Data at ``values`` on a grid at ``expected``."""
    array = xr.DataArray(np.arange(float(len(values))), dims="x", coords={"x": values})
    return Grid(("x",), (len(expected),), torch.float64, {"x": expected}).to_tensor(array)


def ulps(values: np.ndarray, n: int = 1) -> np.ndarray:
    for _ in range(n):
        values = np.nextafter(values, np.inf)
    return values


ACCEPTED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "equal": (DEPTH, DEPTH.copy()),
    "one ulp": (0.1 * np.arange(50), ulps(0.1 * np.arange(50))),
    "accumulated": (0.1 * np.arange(50), np.cumsum(np.full(50, 0.1)) - 0.1),
    "single precision": (0.1 * np.arange(50), (0.1 * np.arange(50)).astype("f4")),
    "a grid in single precision": ((0.1 * np.arange(50)).astype("f4"), 0.1 * np.arange(50)),
    "UTM in single precision": (UTM / 10 + 1 / 3, (UTM / 10 + 1 / 3).astype("f4")),
    "a hundredth of a step": (DEPTH, DEPTH + 0.0999),
    "integers": (DEPTH, DEPTH.astype(int)),
    "big-endian": (DEPTH, DEPTH.astype(">f8")),
    "big-endian integers": (DEPTH.astype(">i4"), DEPTH),
    "descending": (DEPTH[::-1], ulps(DEPTH[::-1])),
    "uneven": (np.array([0.0, 1.0, 5.0]), np.array([0.0, 1.009, 5.0])),
    "text": (NAMES, NAMES.copy()),
    "objects": (NAMES.astype(object), NAMES),
    "times": (TIMES, TIMES.astype("M8[s]")),
    "one point": (np.array([300.0]), np.array([300.0], "f4")),
    "one point at zero": (np.array([0.0]), np.array([0])),
}
REFUSED: dict[str, tuple[np.ndarray, np.ndarray, str]] = {
    "half a cell": (DEPTH, DEPTH + 5, "at index 0; expected 0.0; the largest difference is 5."),
    "one place": (DEPTH, np.where(DEPTH == 70, 74.0, DEPTH), "got 74.0 at index 7; expected 70.0"),
    "more than tolerated": (DEPTH, DEPTH + 0.11, "0.1 would be tolerated"),
    "kilometres": (DEPTH, DEPTH / 1000, "got 0.49 at index 49; expected 490.0"),
    "the other way round": (DEPTH, DEPTH[::-1], "the largest difference is 490"),
    "beyond single precision": (1e7 + 0.1 * np.arange(9), (1e7 + 0.1 * np.arange(9)).astype("f4"),
                                "would be tolerated"),
    "NaN": (DEPTH, np.where(DEPTH == 70, np.nan, DEPTH), "got nan at index 7; expected 70.0"),
    "text": (NAMES, np.array(["a", "b", "d"]), "got d at index 2; expected c"),
    "text for numbers": (DEPTH[:3], NAMES, "got a at index 0; expected 0.0"),
    "times": (TIMES, TIMES + np.timedelta64(1, "h"), "got 2020-01-01T01:00:00"),
    "one point": (np.array([300.0]), np.array([304.0]), "the largest difference is 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_rounding_is_accepted(name: str) -> None:
    expected, values = ACCEPTED[name]
    assert torch.equal(on_grid(expected, values), torch.arange(len(values), dtype=torch.float64))


@pytest.mark.parametrize("name", REFUSED)
def test_other_places_are_named(name: str) -> None:
    expected, values, words = REFUSED[name]
    with pytest.raises(ShapeError, match="coordinate 'x' of the variable") as caught:
        on_grid(expected, values)
    assert words in str(caught.value)


def test_only_shared_coordinates_are_compared() -> None:
    grid = Grid(("y", "x"), (2, 3), coords={"x": np.arange(3.0)})
    unlabelled = xr.DataArray(np.zeros((2, 3), "f4"), dims=("y", "x"))
    grid.to_tensor(unlabelled)
    grid.to_tensor(unlabelled.assign_coords(y=[5.0, 6.0], time=3.0))
    check_coordinates(xr.DataArray(np.zeros(4), dims="x", coords={"x": range(4)}), grid, "weights")
    with pytest.raises(ShapeError, match="of weights"):
        check_coordinates(unlabelled[0].assign_coords(x=[2.0, 1.0, 0.0]), grid, "weights")


def test_the_result_has_the_coordinates_of_the_grid() -> None:
    for values in (DEPTH, DEPTH[::-1], NAMES, TIMES, DEPTH.astype(">f8"), np.array([3.0])):
        grid = Grid(("x",), (len(values),), torch.float64, {"x": values})
        labelled = grid.to_dataarray(torch.zeros(1, len(values)), "v", leading={"realization": [0]})
        np.testing.assert_array_equal(labelled["x"].values, values)
        back = Grid.from_dataarray(labelled[0])
        np.testing.assert_array_equal(back.coords["x"], values)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">c8", ">c16", "<f8", "=c8"])
def test_byte_order_is_no_part_of_the_values(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 3)) + (1j * rng.standard_normal((2, 3)) if "c" in dtype else 0)
    array = xr.DataArray(values.astype(dtype), dims=("y", "x"))
    grid = Grid.from_dataarray(array)
    native = values.astype(np.dtype(dtype).newbyteorder("="))
    assert grid == Grid(("y", "x"), (2, 3), torch.from_numpy(native).dtype)
    np.testing.assert_array_equal(grid.to_tensor(array).numpy(), native)
    transposed = xr.DataArray(values.astype(dtype).T, dims=("x", "y"))[:, ::-1][:, ::-1]
    np.testing.assert_array_equal(grid.to_tensor(transposed).numpy(), native)


def test_arrays_of_a_scan_are_converted() -> None:
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((2, 4, 4)) + 1j * rng.standard_normal((2, 4, 4))
    swapped = check_acquisition(kspace.astype(">c16"), mask=np.ones((4, 4), ">i2"))
    np.testing.assert_array_equal(swapped.kspace, kspace)
    assert swapped.kspace.dtype.isnative


@pytest.mark.parametrize(
    "bad",
    [np.zeros((2, 3)), torch.zeros(2, 3), [[0.0]], None, "field.nc", 3.0, xr.Dataset({"a": 1})],
)
def test_what_is_not_labelled_is_refused(bad: object) -> None:
    for call in (Grid.from_dataarray, Grid(("y", "x"), (2, 3)).to_tensor):
        with pytest.raises(InputError, match=r"expected an xarray\.DataArray"):
            call(bad)
