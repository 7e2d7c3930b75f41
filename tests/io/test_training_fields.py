"""Crops of any Zarr array: shapes, dtypes, byte orders, chunks, units, and where NaN lies."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from invdiff.errors import InputError, NonFiniteError
from invdiff.io import training_fields
from invdiff.priors.positions import Centred, Depth

DTYPES = ["f2", "f4", "f8", "c8", "c16"]
SETTINGS = settings(max_examples=40, deadline=None)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    """An array whose values state where they come from, and its chunks."""
    shape = tuple(draw(st.integers(1, top)) for top in (4, 9, 9))
    dtype = draw(st.sampled_from("<>")) + draw(st.sampled_from(DTYPES))
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)  # below 2^11: exact in f2
    if values.dtype.kind == "c":
        values = (values * (1 - 2j)).astype(dtype)
    return values, tuple(draw(st.integers(1, n)) for n in shape)


def store(folder: Path, values: np.ndarray, chunks: tuple[int, ...]) -> Path:
    group = zarr.open_group(folder, mode="w")
    group.create_array("image", shape=values.shape, chunks=chunks, dtype=values.dtype)[:] = values
    return folder


@SETTINGS
@given(array=arrays(), data=st.data())
def test_crops_are_pieces_of_the_array(
    tmp_path_factory: pytest.TempPathFactory, array: tuple[np.ndarray, tuple[int, ...]], data
) -> None:
    values, chunks = array
    size = data.draw(st.integers(1, min(values.shape[1:])))
    path = store(tmp_path_factory.mktemp("zarr"), values, chunks)
    fields, positions = training_fields(path, "image", size=size, batch_size=3)(0)
    n_channels = 2 if values.dtype.kind == "c" else 1
    assert fields.shape == (3, n_channels, size, size)
    assert fields.dtype == positions.dtype == np.dtype("f4")
    assert fields.dtype.isnative
    _, h, w = values.shape
    places = Centred()((h, w)).numpy()
    for crop, place in zip(fields, positions, strict=True):
        i, rest = divmod(int(crop[0, 0, 0]), h * w)
        y, x = divmod(rest, w)
        window = (slice(y, y + size), slice(x, x + size))
        expected = values[(i, *window)]
        np.testing.assert_array_equal(crop[0], expected.real.astype("f4"))
        np.testing.assert_array_equal(crop[-1], [expected.real, expected.imag][n_channels - 1])
        np.testing.assert_allclose(place, places[(slice(None), *window)], rtol=1e-6, atol=1e-9)


@SETTINGS
@given(array=arrays(), bad=st.sampled_from([np.nan, np.inf]), data=st.data())
def test_a_bad_value_is_found_where_a_crop_meets_it_and_nowhere_else(
    tmp_path_factory: pytest.TempPathFactory,
    array: tuple[np.ndarray, tuple[int, ...]],
    bad: float,
    data,
) -> None:
    values, chunks = array
    place = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
    clean = store(tmp_path_factory.mktemp("clean"), values, chunks)
    size = data.draw(st.integers(1, min(values.shape[1:])))
    (first,) = training_fields(clean, "image", size=size, batch_size=1)(0)[0]
    i, rest = divmod(int(first[0, 0, 0]), values[0].size)
    y, x = divmod(rest, values.shape[2])
    met = i == place[0] and 0 <= place[1] - y < size and 0 <= place[2] - x < size
    values[place] = bad
    batches = training_fields(
        store(tmp_path_factory.mktemp("bad"), values, chunks), "image", size=size, batch_size=1
    )
    if met:
        with pytest.raises(NonFiniteError, match=f"image {i}, in a crop of step 0"):
            batches(0)
    else:
        np.testing.assert_array_equal(batches(0)[0][0], first)


def test_units_and_positions_of_the_network(tmp_path: Path) -> None:
    """1000 m/s about 3000 m/s, by depth: what the prior gets as scale, offset and coordinates."""
    depth = np.broadcast_to(np.arange(8.0)[:, None], (8, 6))
    path = store(tmp_path, 3000 + 500 * depth[None], (1, 8, 6))
    batches = training_fields(
        path, "image", size=4, batch_size=16, scale=1000.0, offset=3000, coordinates=Depth(2.0)
    )
    fields, positions = batches(0)
    assert positions.shape == (16, 1, 4, 4)
    np.testing.assert_allclose(fields, positions)  # 500 / 1000 = 1 / 2 per row
    assert len(set(positions[:, 0, 0, 0])) > 1


@pytest.mark.parametrize(
    "numbers",
    [
        {"size": 1.5},
        {"size": True},
        {"batch_size": np.float64(2.0)},
        {"seed": -1},
        {"seed": "0"},
        {"scale": 0.0},
        {"scale": np.nan},
        {"offset": np.inf},
    ],
    ids=str,
)
def test_numbers_that_are_not_possible_are_refused(
    tmp_path: Path, numbers: dict[str, object]
) -> None:
    path = store(tmp_path, np.zeros((2, 4, 4), "f4"), (1, 4, 4))
    with pytest.raises(InputError, match=next(iter(numbers))):
        training_fields(path, "image", **{"size": 2, "batch_size": 1, **numbers})


def test_numpy_integers_draw_the_same_crops(tmp_path: Path) -> None:
    path = store(tmp_path, np.arange(32, dtype="f4").reshape(2, 4, 4), (1, 4, 4))
    ours = training_fields(path, "image", size=2, batch_size=3, seed=5)
    theirs = training_fields(
        path, "image", size=np.int64(2), batch_size=np.uint8(3), seed=np.int32(5)
    )
    assert repr(theirs) == repr(ours)
    np.testing.assert_array_equal(theirs(1)[0], ours(1)[0])
