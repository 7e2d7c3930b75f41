"""Seismic lines of any shape, dtype, byte order, chunking and gaps come back from their files."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from invdiff.errors import DataWarning
from invdiff.io import read_survey, survey_arrays, survey_dataset, write_survey
from invdiff.traces import live_traces

pytest.importorskip("segyio")
pytestmark = pytest.mark.seismic

COORDINATES = ("source_z", "source_x", "receiver_z", "receiver_x", "time")


class Case(NamedTuple):
    """A line, and which of its samples hold NaN."""

    line: xr.Dataset
    is_nan: np.ndarray


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...]) -> Case:
    shots, receivers, samples = (draw(st.integers(low, 4)) for low in (1, 1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_moving, delay = draw(st.booleans()), draw(st.sampled_from([0, 0, 8, -40]))
    dt, step = draw(st.integers(1, 32_767)), draw(st.sampled_from([25.0, 12.5, 0.001, 1000.0]))
    order = draw(st.sampled_from("<>"))
    spread = (shots, receivers) if is_moving else (receivers,)

    def positions(shape: tuple[int, ...]) -> np.ndarray:
        return (step * rng.integers(-999, 999, shape)).astype(f"{order}f8")

    arrays = {
        "source_z": positions((shots,)),
        "source_x": positions((shots,)),
        "receiver_z": positions(spread),
        "receiver_x": positions(spread),
        "time": (delay / 1e3 + np.arange(samples) * (dt / 1e6)).astype(f"{order}f8"),
    }
    pressure = rng.standard_normal((shots, receivers, samples))
    # Kept below the number of samples, but for traces that are dead.
    length = rng.integers(0, samples + 1, (shots, receivers, 1))
    length = np.where(draw(st.booleans()), length, samples)
    is_nan = np.arange(samples) >= length
    values = np.where(is_nan, np.nan, pressure).astype(draw(st.sampled_from(dtypes)))
    line = survey_dataset(arrays, values)
    if draw(st.booleans()):
        line = line.transpose(*draw(st.permutations(["shot", "receiver", "time"])))
    return Case(line, is_nan)


def come_back(case: Case, name: str, *, chunks: dict[str, int] | None = None) -> xr.Dataset:
    with TemporaryDirectory() as folder:
        line = case.line if chunks is None else case.line.chunk(chunks)
        path = Path(folder) / name
        write_survey(line, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            return read_survey(path).load()


@settings(max_examples=60)
@given(cases(("<f4", ">f4")), st.sampled_from([".segy", ".SGY"]))
def test_segy(case: Case, suffix: str) -> None:
    read = come_back(case, f"line{suffix}")
    before, after = survey_arrays(case.line), survey_arrays(read)
    np.testing.assert_array_equal(after["pressure"], before["pressure"])
    assert after["pressure"].dtype == np.dtype("=f4")
    for name in COORDINATES:
        expected = before[name]
        if name.startswith("receiver") and after[name].ndim < expected.ndim:
            assert (expected == expected[0]).all()  # a spread that does not move is stored once
            expected = expected[0]
        np.testing.assert_allclose(after[name], expected, rtol=1e-15, atol=1e-17, err_msg=name)
    assert read.attrs.get("dead_traces", 0) == int(case.is_nan.all(-1).sum())


@settings(max_examples=30)
@given(
    cases(("<f4", ">f4", "<f8", ">f8")),
    st.none() | st.fixed_dictionaries({dim: st.integers(1, 4) for dim in ("shot", "time")}),
)
def test_zarr(case: Case, chunks: dict[str, int] | None) -> None:
    read = come_back(case, "line.zarr", chunks=chunks)
    for name, values in survey_arrays(case.line).items():
        found = survey_arrays(read)[name]
        np.testing.assert_array_equal(found, values, err_msg=name)
        assert found.dtype == values.dtype


@settings(max_examples=60)
@given(cases(("<f4", ">f4", "<f8", ">f8")))
def test_live_traces(case: Case) -> None:
    traces = survey_arrays(case.line)["pressure"]
    is_dead = (case.is_nan | (traces == traces[..., :1])).all(-1)
    if is_dead.all():
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        live = live_traces(traces)
    is_live = ~case.is_nan & ~is_dead[..., None]
    weights = np.ones(traces.shape) if live.weights is None else live.weights
    np.testing.assert_array_equal(weights, is_live)
    np.testing.assert_array_equal(live.values, np.where(is_live, traces, 0))
    assert len(told) == (not is_live.all())
    assert live.notes.get("dead_traces", 0) == int(is_dead.sum())
    assert live.notes.get("padded_samples", 0) == int((~is_live & ~is_dead[..., None]).sum())
