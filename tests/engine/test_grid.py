"""Grid: labels out equal labels in, and every mismatch is named."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from invdiff.errors import DTypeError, NonFiniteError, ShapeError
from invdiff.grid import Grid

DTYPES = ("float32", "float64", "complex64", "complex128")
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def labelled(shape: tuple[int, ...], dtype: str = "float32") -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if "complex" in dtype:
        values = values * np.complex64(1 + 2j)
    dims = ("time", "z", "y", "x")[-len(shape) :]
    coords = {d: np.arange(n) * 0.5 - 1 for d, n in zip(dims, shape, strict=True)}
    return xr.DataArray(values, dims=dims, coords=coords, name="field", attrs={"units": "m s-1"})


@given(shapes, st.sampled_from(DTYPES))
def test_round_trip(shape: tuple[int, ...], dtype: str) -> None:
    array = labelled(shape, dtype)
    grid = Grid.from_dataarray(array)
    assert (grid.dims, grid.shape, grid.units) == (array.dims, shape, "m s-1")
    assert grid.size == array.size
    assert grid.is_complex == ("complex" in dtype)
    back = grid.to_dataarray(grid.to_tensor(array), "field")
    xr.testing.assert_identical(back, array)


@given(shapes, st.randoms(use_true_random=False))
def test_axes_are_put_in_order(shape: tuple[int, ...], random) -> None:
    array = labelled(shape)
    dims = list(array.dims)
    random.shuffle(dims)
    grid = Grid.from_dataarray(array)
    assert torch.equal(grid.to_tensor(array.transpose(*dims)), grid.to_tensor(array))


def test_leading_dims_and_attributes() -> None:
    grid = Grid.from_dataarray(labelled((2, 3)))
    array = grid.to_dataarray(
        torch.ones(4, 2, 3), "t", leading={"realization": range(4)}, attrs={"long_name": "ours"}
    )
    assert array.dims == ("realization", "y", "x")
    assert array.realization.values.tolist() == [0, 1, 2, 3]
    assert array.attrs == {"units": "m s-1", "long_name": "ours"}


def test_a_tensor_does_not_share_memory_with_its_array() -> None:
    array = labelled((2, 3))
    Grid.from_dataarray(array).to_tensor(array).zero_()
    assert (array != 0).all()


def test_equality_and_repr() -> None:
    grid = Grid(("y", "x"), (2, 3), units="K")
    assert eval(repr(grid), {"Grid": Grid, "torch": torch}) == grid
    assert grid.with_dtype(torch.complex64) != grid
    assert grid.with_dtype(torch.complex64).real_dtype == torch.float32


@pytest.mark.parametrize(
    ("dims", "shape", "coords"),
    [
        (("y", "x"), (3,), {}),
        (("x", "x"), (3, 3), {}),
        (("x",), (0,), {}),
        (("x",), (3,), {"x": np.arange(4)}),
        (("x",), (3,), {"y": np.arange(3)}),
    ],
)
def test_grids_that_make_no_sense_are_refused(dims, shape, coords) -> None:
    with pytest.raises(ShapeError):
        Grid(dims, shape, coords=coords)


@pytest.mark.parametrize("dtype", ["int32", "bool", "datetime64[ns]"])
def test_other_kinds_of_values_are_refused(dtype: str) -> None:
    with pytest.raises(DTypeError, match="floating-point"):
        Grid.from_dataarray(xr.DataArray(np.zeros(3, dtype), dims="x"))


def test_mismatches_are_named() -> None:
    array = labelled((2, 3))
    grid = Grid.from_dataarray(array)
    with pytest.raises(ShapeError, match="other dims"):
        grid.to_tensor(array.rename(x="longitude"))
    with pytest.raises(ShapeError, match="another shape"):
        grid.to_tensor(array.isel(x=slice(2)))
    with pytest.raises(ShapeError, match="coordinate 'y'"):
        grid.to_tensor(array.assign_coords(y=[0.0, 1.0]))
    with pytest.raises(DTypeError, match="complex"):
        grid.to_tensor(array.astype("complex64"))
    with pytest.raises(DTypeError, match="real"):
        grid.with_dtype(torch.complex64).to_tensor(array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(bad: float) -> None:
    array = labelled((2, 3))
    array[0, 1] = bad
    with pytest.raises(NonFiniteError, match="1 of 6"):
        Grid.from_dataarray(array).to_tensor(array, name="wind")


def test_check() -> None:
    grid = Grid(("y", "x"), (2, 3))
    grid.check(torch.zeros(5, 2, 3))
    with pytest.raises(ShapeError, match="kspace"):
        grid.check(torch.zeros(2, 3), name="kspace")
    with pytest.raises(ShapeError):
        grid.check(torch.zeros(5, 3, 2))
    with pytest.raises(DTypeError):
        grid.check(torch.zeros(5, 2, 3, dtype=torch.complex64))
