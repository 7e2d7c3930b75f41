"""Survey: what it holds, what it refuses, and its way through a labelled Dataset and Zarr."""

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from invdiff.errors import (
    DTypeError,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)
from invdiff.grid import Grid
from invdiff.io import open_result, read_survey, survey_arrays, survey_dataset, write_survey
from invdiff.operators.seismic.survey import Survey, ricker

DT, N_SAMPLES = 0.002, 201
SOURCES = np.array([[10.0, 0.0], [10.0, 150.0], [20.0, 300.0]])
RECEIVERS = np.stack([np.full(5, 10.0), np.linspace(0, 300, 5)], axis=-1)
MOVING = RECEIVERS + np.stack([np.zeros(3), [0.0, 12.5, 25.0]], axis=-1)[:, None]
WAVELET = ricker(15.0, DT, N_SAMPLES)
WAVELETS = np.stack([WAVELET, 2 * WAVELET, -WAVELET])


def survey(**changes: object) -> Survey:
    return Survey(
        **{"sources": SOURCES, "receivers": RECEIVERS, "wavelet": WAVELET, "dt": DT, **changes}
    )


def both_spreads() -> list[Survey]:
    return [survey(), survey(receivers=MOVING, wavelet=WAVELETS)]


def model(n_z: int = 41, n_x: int = 61, spacing: float = 10.0) -> Grid:
    coords = {"z": np.arange(n_z) * spacing, "x": np.arange(n_x) * spacing}
    return Grid(("z", "x"), (n_z, n_x), coords=coords, units="m s-1")


# --- what it holds -------------------------------------------------------------------------------


def test_properties() -> None:
    line = survey()
    assert (line.n_shots, line.n_receivers, line.n_samples) == (3, 5, N_SAMPLES)
    assert line.duration == pytest.approx(0.4)
    assert line.is_fixed_spread
    assert not survey(receivers=MOVING).is_fixed_spread
    assert repr(line) == "Survey(n_shots=3, n_receivers=5, n_samples=201, dt=0.002)"
    grid = line.data_grid(torch.float64)
    assert (grid.dims, grid.shape) == (("shot", "receiver", "time"), (3, 5, N_SAMPLES))
    assert grid.dtype is torch.float64
    np.testing.assert_array_equal(grid.coords["time"], np.arange(N_SAMPLES) * DT)


def test_equal_by_content() -> None:
    assert survey() == survey()
    assert survey() != survey(receivers=MOVING)
    assert survey() != survey(dt=0.001)
    assert survey() != "survey"
    assert pickle.loads(pickle.dumps(survey())) == survey()


def test_it_is_frozen_down_to_its_arrays() -> None:
    sources = SOURCES.copy()
    line = survey(sources=sources)
    sources[0] = -1
    np.testing.assert_array_equal(line.sources, SOURCES)
    with pytest.raises(ValueError, match="read-only"):
        line.sources[0] = 0
    with pytest.raises(FrozenInstanceError):
        line.dt = 0.001


@pytest.mark.parametrize("line", both_spreads())
def test_shots(line: Survey) -> None:
    chosen = line.shots([2, 0])
    assert (chosen.n_shots, chosen.is_fixed_spread) == (2, line.is_fixed_spread)
    for new, old in enumerate((2, 0)):
        np.testing.assert_array_equal(chosen.sources[new], line.sources[old])
        np.testing.assert_array_equal(chosen.receivers_of(new), line.receivers_of(old))
        np.testing.assert_array_equal(chosen.wavelet_of(new), line.wavelet_of(old))
    assert line.shots(np.arange(3)) == line


@pytest.mark.parametrize(
    ("indices", "error", "match"),
    [
        ([], InputError, "empty shots"),
        ([0, 3], InputError, "0 to 2"),
        ([-1], InputError, "0 to 2"),
        ([[0]], InputError, "shots do not exist"),
        (np.array([True, False, True]), DTypeError, "flatnonzero"),
        ([1.0], DTypeError, "integers"),
    ],
)
def test_bad_shots(indices: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        survey().shots(indices)


# --- time steps ----------------------------------------------------------------------------------


@given(st.floats(1e-4, 8e-3))
def test_resampled_ricker_is_the_ricker_of_the_other_step(dt: float) -> None:
    line = survey().resampled(dt)
    assert line.dt == dt
    assert line.duration <= 0.4 * (1 + 1e-9)
    assert line.duration > 0.4 - dt
    # Above 1 / (2 dt) >= 62.5 Hz a Ricker wavelet of 15 Hz has 1e-7 of its amplitude spectrum.
    expected = ricker(15.0, dt, line.n_samples)
    np.testing.assert_allclose(line.wavelet, expected, atol=2e-6)


def test_resampling_there_and_back() -> None:
    line = survey(wavelet=WAVELETS)
    assert line.resampled(DT) is line
    fine = line.resampled(DT / 4)
    assert fine.n_samples == 4 * (N_SAMPLES - 1) + 1
    np.testing.assert_allclose(fine.wavelet[:, ::4], WAVELETS, atol=1e-12)
    np.testing.assert_allclose(fine.resampled(DT).wavelet, WAVELETS, atol=1e-7)


def test_resampling_refuses_aliasing() -> None:
    with pytest.raises(InputError, match=r"above 25 Hz.*low-pass"):
        survey().resampled(0.02)
    spike = np.eye(N_SAMPLES)[3]
    survey(wavelet=spike).resampled(DT / 2)
    with pytest.raises(InputError, match="of its energy above 125 Hz"):
        survey(wavelet=spike).resampled(2 * DT)


def test_ricker() -> None:
    wavelet = ricker(10.0, 1e-3, 2000)
    assert wavelet[150] == 1.0
    assert np.argmax(wavelet) == 150
    assert abs(wavelet[0]) < 2e-8
    assert abs(wavelet.sum()) < 1e-6  # no energy at zero frequency
    frequency = np.fft.rfftfreq(2000, 1e-3)
    assert frequency[np.abs(np.fft.rfft(wavelet)).argmax()] == 10.0
    assert np.argmax(ricker(10.0, 1e-3, 2000, delay=0.4)) == 400


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0.015, DT, N_SAMPLES), "in Hz, not kHz"),
        ((15000.0, DT, N_SAMPLES), "at most 100 Hz"),
        ((0.0, DT, N_SAMPLES), "Ricker wavelet of this frequency cannot be sampled"),
        ((float("nan"), DT, N_SAMPLES), "Ricker wavelet of this frequency cannot be sampled"),
        ((15.0, 2.0, N_SAMPLES), "1 ms is 0.001"),
        ((15.0, DT, 10), "Record longer"),
    ],
)
def test_bad_ricker(arguments: tuple[float, float, int], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ricker(*arguments)


# --- bad input -----------------------------------------------------------------------------------

NAN = WAVELET.copy()
NAN[7] = np.nan
SILENT = WAVELETS.copy()
SILENT[1] = 0
BAD = {
    "no shots": ({"sources": np.empty((0, 2))}, InputError, "empty shots"),
    "no receivers": ({"receivers": np.empty((0, 2))}, InputError, "empty receivers"),
    "no receivers of a shot": ({"receivers": np.empty((3, 0, 2))}, InputError, "empty receivers"),
    "sources 3-D": ({"sources": np.ones((3, 3))}, ShapeError, r"\(n_shots, 2\)"),
    "sources flat": ({"sources": np.ones(2)}, ShapeError, "sources"),
    "receivers flat": ({"receivers": np.ones(2)}, ShapeError, "receivers"),
    "other shots": ({"receivers": MOVING[:2]}, ShapeError, r"\(3, n_receivers, 2\)"),
    "wavelets": ({"wavelet": WAVELETS[:2]}, ShapeError, r"\(3, n_samples\)"),
    "short wavelet": ({"wavelet": [1.0]}, ShapeError, "two samples"),
    "scalar wavelet": ({"wavelet": 1.0}, ShapeError, "wavelet"),
    "zero wavelet": ({"wavelet": np.zeros(9)}, InputError, "all zero"),
    "silent shot": ({"wavelet": SILENT}, InputError, r"shots \[1\]"),
    "complex": ({"wavelet": WAVELET + 0j}, DTypeError, "complex128"),
    "text": ({"sources": [["a", "b"]]}, DTypeError, "real numbers"),
    "NaN": ({"wavelet": NAN}, NonFiniteError, "1 of 201"),
    "Inf": ({"sources": SOURCES + np.inf}, NonFiniteError, "sources"),
    "dt in ms": ({"dt": 2.0}, InputError, "1 ms is 0.001"),
    "dt zero": ({"dt": 0.0}, InputError, "0 < dt"),
    "dt negative": ({"dt": -DT}, InputError, "0 < dt"),
    "dt NaN": ({"dt": float("nan")}, InputError, "0 < dt"),
}


@pytest.mark.parametrize(("changes", "error", "match"), BAD.values(), ids=BAD)
def test_bad_survey(changes: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        survey(**changes)


def test_positions_are_checked_on_the_model() -> None:
    for line in both_spreads():
        line.check_on(model())
    survey().check_on(model(n_z=3, n_x=31))  # up to the last cell
    with pytest.raises(InputError, match=r"1 of 5 receivers.*receiver 4 at z = 10 m, x = 300 m"):
        survey(sources=SOURCES[:2]).check_on(model(n_x=30))
    with pytest.raises(InputError, match=r"source 2 at z = 20 m.*z from 0 to 10 m"):
        survey().check_on(model(n_z=2))
    with pytest.raises(InputError, match="receiver 4 of shot 1"):
        survey(receivers=MOVING).check_on(model(n_x=32))


@pytest.mark.parametrize(("dim", "origin"), [("x", 500_000.0), ("z", -2300.0), ("x", -1500.0)])
def test_another_origin_is_noticed(dim: str, origin: float) -> None:
    """Coordinates in UTM, or elevations, against a model that begins at zero."""
    shift = np.array([origin, 0] if dim == "z" else [0, origin])
    for line in both_spreads():
        moved = survey(
            sources=line.sources + shift, receivers=line.receivers + shift, wavelet=line.wavelet
        )
        with pytest.raises(InputError, match=f"different origins in {dim}") as raised:
            moved.check_on(model())
        offset = float(str(raised.value).split("subtracting ")[1].split(" m")[0])
        shift_back = np.array([offset, 0] if dim == "z" else [0, offset])
        survey(
            sources=moved.sources - shift_back, receivers=moved.receivers - shift_back,
            wavelet=line.wavelet,
        ).check_on(model())  # fmt: skip


def test_positions_next_to_the_model_are_outside_it() -> None:
    with pytest.raises(InputError, match="Extend the model"):
        survey(sources=SOURCES + np.array([0, 700.0])).check_on(model())
    grid = model()
    axes = {dim: values / 1000 for dim, values in grid.coords.items()}
    in_km = Grid(grid.dims, grid.shape, coords=axes)
    with pytest.raises(InputError, match="coordinates of the model look like km"):
        survey().check_on(in_km)


def test_positions_in_km_are_noticed() -> None:
    with pytest.raises(InputError, match="look like km"):
        survey(sources=SOURCES / 1000, receivers=RECEIVERS / 1000).check_on(model())
    one = survey(sources=[[10.0, 50.0]], receivers=[[12.0, 50.0]])  # a single pair may be close
    one.check_on(model())


def test_the_model_needs_its_axes() -> None:
    with pytest.raises(ShapeError, match="in m"):
        survey().check_on(Grid(("z", "x"), (41, 61)))
    with pytest.raises(ShapeError, match="'y'"):
        survey().check_on(Grid(("y", "x"), (41, 61)))


# --- labelled ------------------------------------------------------------------------------------


def pressure_of(line: Survey) -> np.ndarray:
    shape = line.data_grid().shape
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("line", both_spreads(), ids=["fixed spread", "moving spread"])
def test_zarr_round_trip(tmp_path: Path, line: Survey) -> None:
    pressure = torch.from_numpy(pressure_of(line))
    dataset = survey_dataset(line.to_arrays(), pressure, noise_std=0.5, units="Pa")
    assert dataset["pressure"].dims == ("shot", "receiver", "time")
    assert dataset["source_x"].attrs["units"] == "m"
    assert dataset["time"].attrs["units"] == "s"
    path = tmp_path / "line.zarr"
    write_survey(dataset, path)
    read = read_survey(path)
    xr.testing.assert_identical(read.load(), dataset)
    assert read["pressure"].attrs == {"units": "Pa", "noise_std": 0.5}
    assert Survey.from_arrays(survey_arrays(read)) == line
    grid = line.data_grid()
    assert torch.equal(grid.to_tensor(read["pressure"]), pressure)
    with pytest.raises(OutputExistsError):
        write_survey(dataset, path)
    write_survey(dataset.isel(shot=[1]), path, overwrite=True)
    assert Survey.from_arrays(survey_arrays(read_survey(path))) == line.shots([1])


def test_axes_of_a_dataset_are_put_in_order() -> None:
    line = both_spreads()[1]
    dataset = survey_dataset(line.to_arrays(), pressure_of(line))
    turned = dataset.transpose("time", "receiver", "shot")
    arrays = survey_arrays(turned)
    np.testing.assert_array_equal(arrays["pressure"], pressure_of(line))
    assert Survey.from_arrays(arrays) == line


def test_a_depth_shared_by_all_shots_is_broadcast() -> None:
    line = survey(receivers=MOVING)
    dataset = survey_dataset(line.to_arrays())
    dataset = dataset.assign_coords(receiver_z=("receiver", MOVING[0, :, 0]))
    assert Survey.from_arrays(survey_arrays(dataset)) == line


def test_other_variables_are_kept_and_left_alone(tmp_path: Path) -> None:
    dataset = survey_dataset(survey().to_arrays()).assign(
        velocity=(("z", "x"), np.full((3, 4), 1500.0))
    )
    write_survey(dataset, tmp_path / "line.zarr")
    read = read_survey(tmp_path / "line.zarr")
    np.testing.assert_array_equal(read["velocity"], dataset["velocity"])
    assert Survey.from_arrays(survey_arrays(read)) == survey()


def arrays(**changes: object) -> dict[str, object]:
    whole = {**survey().to_arrays(), "pressure": pressure_of(survey()), **changes}
    return {name: values for name, values in whole.items() if values is not None}


UNEVEN = np.arange(N_SAMPLES) * DT
UNEVEN[100:] += DT / 2
BAD_ARRAYS = {
    "no source_x": ({"source_x": None}, InputError, r"also \['source_x'\]"),
    "no time": ({"time": None}, InputError, r"also \['time'\]"),
    "no wavelet": ({"wavelet": None}, InputError, r"ricker"),
    "time uneven": ({"time": UNEVEN}, InputError, "not uniform from zero"),
    "time delayed": ({"time": UNEVEN[:100] + 0.1}, InputError, "recording delay"),
    "time backwards": ({"time": -np.arange(N_SAMPLES) * DT}, InputError, "time step"),
    "time in ms": ({"time": np.arange(N_SAMPLES) * 2.0}, InputError, "1 ms is 0.001"),
    "time NaN": ({"time": np.full(N_SAMPLES, np.nan)}, NonFiniteError, "time"),
    "one sample": ({"time": [0.0]}, ShapeError, "two or more"),
    "wavelet of another dt": ({"wavelet": WAVELET[::2]}, ShapeError, "Resample it to their dt"),
    "z and x": ({"source_z": [0.0]}, ShapeError, "source_z and source_x"),
    "pressure": ({"pressure": np.ones((3, 5, 7))}, ShapeError, "pressure does not fit"),
}


@pytest.mark.parametrize(("changes", "error", "match"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(changes: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Survey.from_arrays(arrays(**changes))


def test_times_rounded_elsewhere_are_uniform() -> None:
    times = np.linspace(0, 0.4, N_SAMPLES).astype(np.float32)
    assert Survey.from_arrays(arrays(time=times)).dt == pytest.approx(DT, rel=1e-6)
    assert Survey.from_arrays(arrays(time=np.linspace(0, 0.4, N_SAMPLES))).dt == DT


@pytest.mark.parametrize("dt", [0.001, 0.002, 0.0005, 0.0013])
def test_times_in_single_precision_give_the_step_they_were_made_of(dt: float) -> None:
    times = (np.arange(N_SAMPLES) * dt).astype(np.float32)
    assert Survey.from_arrays(arrays(time=times)).dt == dt


def test_times_may_differ_in_the_last_bit() -> None:
    times = np.arange(N_SAMPLES) * DT
    times[1:] = np.nextafter(times[1:], 1)
    assert Survey.from_arrays(arrays(time=times)).dt == pytest.approx(DT, rel=1e-15)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8", ">i4"])
def test_values_of_any_byte_order_are_kept(dtype: str) -> None:
    given = {name: np.asarray(v) for name, v in arrays().items()}
    whole = {name: np.round(v).astype(dtype) for name, v in given.items() if "_" in name}
    if dtype != ">i4":
        whole |= {name: given[name].astype(dtype) for name in ("pressure", "wavelet")}
    read = Survey.from_arrays(given | whole)
    np.testing.assert_array_equal(read.sources[:, 1], whole["source_x"])
    assert read.sources.dtype == read.wavelet.dtype == np.float64
    assert read.wavelet.dtype.isnative
    dataset = survey_dataset({n: v for n, v in (given | whole).items() if n != "pressure"},
                             (given | whole)["pressure"])  # fmt: skip
    for name, values in survey_arrays(dataset).items():
        assert values.dtype.isnative, name
        np.testing.assert_array_equal(values, (given | whole)[name], err_msg=name)


def test_one_depth_for_all_shots_is_shared() -> None:
    line = survey(receivers=MOVING)
    given = line.to_arrays() | {"receiver_z": MOVING[0, :, 0]}
    assert Survey.from_arrays(given) == line


BAD_DATASETS = {
    "unknown": ({"sources": SOURCES}, InputError, "sources"),
    "missing": ({"receiver_x": None}, InputError, r"also \['receiver_x'\]"),
    "axes": ({"wavelet": np.ones((1, 1, N_SAMPLES))}, ShapeError, r"\('shot', 'time'\)"),
    "another dt": ({"wavelet": WAVELET[::2]}, ShapeError, "same dt"),
    "another shot": ({"source_x": np.ones(4)}, ShapeError, "'shot'"),
}


@pytest.mark.parametrize(("changes", "error", "match"), BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_bad_dataset(changes: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        survey_dataset(arrays(**changes))


def test_noise_levels_are_checked(tmp_path: Path) -> None:
    line = survey()
    for noise_std in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(NoiseLevelError):
            survey_dataset(line.to_arrays(), pressure_of(line), noise_std=noise_std)
    with pytest.raises(NoiseLevelError, match="no pressure"):
        survey_dataset(line.to_arrays(), noise_std=1.0)
    dataset = survey_dataset(line.to_arrays(), pressure_of(line))
    dataset["pressure"].attrs["noise_std"] = "low"
    write_survey(dataset, tmp_path / "line.zarr")
    with pytest.raises(NoiseLevelError, match="'low'"):
        read_survey(tmp_path / "line.zarr")


@pytest.mark.parametrize(("name", "units"), [("time", "ms"), ("receiver_x", "km")])
def test_other_units_are_refused(tmp_path: Path, name: str, units: str) -> None:
    dataset = survey_dataset(survey().to_arrays())
    dataset[name].attrs["units"] = units
    with pytest.raises(InputError, match=f"{name} is not in SI units.*{units}"):
        survey_arrays(dataset)
    with pytest.raises(InputError, match=units):
        write_survey(dataset, tmp_path / "line.zarr")
    assert not (tmp_path / "line.zarr").exists()


def test_bad_labels(tmp_path: Path) -> None:
    dataset = survey_dataset(survey().to_arrays())
    with pytest.raises(ShapeError, match="keep a single shot"):
        survey_arrays(dataset.isel(shot=0))
    with pytest.raises(ShapeError, match="trace"):
        survey_arrays(dataset.rename(receiver="trace"))
    with pytest.raises(InputError, match="source_z"):
        survey_arrays(dataset.drop_vars("source_z"))
    dataset.drop_vars("source_z").to_zarr(tmp_path / "line.zarr", consolidated=False)
    assert "source_x" in open_result(tmp_path / "line.zarr").variables
    with pytest.raises(InputError, match="source_z"):
        read_survey(tmp_path / "line.zarr")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.zarr, \.segy or \.sgy"):
        read_survey(tmp_path / "line.su")
    with pytest.raises(InputError, match=r"\.zarr, \.segy or \.sgy"):
        write_survey(survey_dataset(survey().to_arrays()), tmp_path / "line.nc")
    with pytest.raises(InputError, match="cannot be opened"):
        read_survey(tmp_path / "none.zarr")
