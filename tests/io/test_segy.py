"""SEG-Y: what is read is what segyio says, what is written is read back, the rest is refused."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from invdiff.errors import (
    DataWarning,
    DTypeError,
    InputError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
)
from invdiff.io import (
    read_segy,
    read_survey,
    survey_arrays,
    survey_dataset,
    write_segy,
    write_survey,
)
from invdiff.operators.seismic.survey import Survey, ricker

segyio = pytest.importorskip("segyio")
pytestmark = pytest.mark.seismic

Field = segyio.TraceField
N_SHOTS, N_RECEIVERS, N_SAMPLES, DT = 3, 4, 50, 0.002
X = np.array([0.0, 12.5, 25.125, 1000.0])
TRACES = np.arange(N_SHOTS * N_RECEIVERS)


def line(*, moving: bool = False, **changes: object) -> xr.Dataset:
    receiver_x = X + 25 * np.arange(N_SHOTS)[:, None] if moving else X
    arrays = {
        "source_z": np.array([5.0, 0.0, -2.5]),
        "source_x": np.array([0.0, 25.0, 50.0]),
        "receiver_z": np.full_like(receiver_x, 7.25),
        "receiver_x": receiver_x,
        "time": np.arange(N_SAMPLES) * DT,
        **changes,
    }
    shape = (len(arrays["source_z"]), arrays["receiver_x"].shape[-1], len(arrays["time"]))
    pressure = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return survey_dataset(arrays, pressure)


def written(folder: Path, dataset: xr.Dataset | None = None) -> Path:
    path = folder / "line.segy"
    write_segy(line() if dataset is None else dataset, path)
    return path


def edited(folder: Path, headers: dict[int, object], binary: dict[int, int] | None = None) -> Path:
    """A file whose headers were changed: a value, or one for each trace."""
    path = written(folder)
    with segyio.open(path, "r+", ignore_geometry=True) as file:
        for field, values in headers.items():
            for i, value in enumerate(np.broadcast_to(values, file.tracecount)):
                file.header[i][field] = int(value)
        file.bin.update(binary or {})
    return path


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("suffix", [".segy", ".sgy"])
def test_round_trip(tmp_path: Path, moving: bool, suffix: str) -> None:
    dataset = line(moving=moving)
    path = tmp_path / f"line{suffix}"
    write_survey(dataset, path)
    read = read_survey(path)
    assert read["pressure"].dtype == np.float32
    for name, values in survey_arrays(dataset).items():
        np.testing.assert_array_equal(survey_arrays(read)[name], values, err_msg=name)
    np.testing.assert_array_equal(read["shot"], [1, 2, 3])
    assert read.attrs["source"] == path.name
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_a_survey_from_segy_needs_a_wavelet(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(InputError, match="ricker"):
        Survey.from_arrays(survey_arrays(read_segy(path)))
    wavelet = ricker(50.0, DT, N_SAMPLES)
    survey = Survey.from_arrays(survey_arrays(read_segy(path, wavelet=wavelet)))
    assert (survey.n_shots, survey.n_receivers, survey.dt) == (N_SHOTS, N_RECEIVERS, DT)
    assert survey.is_fixed_spread
    with pytest.raises(ShapeError, match="wavelet"):
        read_segy(path, wavelet=wavelet[:-1])


@pytest.mark.parametrize("dt", [1e-6, 0.0005, 0.0007, 0.0013, 0.004, 0.032])
def test_time_steps_come_back_bit_for_bit(tmp_path: Path, dt: float) -> None:
    dataset = line(time=np.arange(N_SAMPLES) * dt)
    read = read_segy(written(tmp_path, dataset), wavelet=np.ones(N_SAMPLES))
    np.testing.assert_array_equal(read["time"], dataset["time"])
    assert Survey.from_arrays(survey_arrays(read)).dt == dt


def test_delay_records_and_y(tmp_path: Path) -> None:
    dataset = line(time=np.arange(N_SAMPLES) * DT + 0.3)
    dataset = dataset.assign_coords(shot=[107, 101, 103]).assign_attrs(line_y=512.5)
    read = read_segy(written(tmp_path, dataset))
    np.testing.assert_allclose(read["time"], dataset["time"], rtol=1e-15)
    np.testing.assert_array_equal(read["shot"], [107, 101, 103])
    np.testing.assert_array_equal(read["pressure"], dataset["pressure"])
    assert read.attrs["line_y"] == 512.5


@pytest.mark.parametrize(
    ("origin", "step", "scalar"),
    [(0, 10.0, -1), (0, 12.5, -10), (300_000, 0.125, -1000), (0, 0.0002, -10000)],
)
def test_the_coordinate_scalar_loses_nothing(
    tmp_path: Path, origin: float, step: float, scalar: int
) -> None:
    x = origin + step * np.arange(7)
    path = written(tmp_path, line(receiver_x=x, receiver_z=np.ones(7)))
    with segyio.open(path, ignore_geometry=True) as file:
        assert file.header[0][Field.SourceGroupScalar] == scalar
    np.testing.assert_allclose(read_segy(path)["receiver_x"], x, rtol=1e-15)


def test_positions_off_the_lattice_are_kept_to_the_millimetre(tmp_path: Path) -> None:
    x = np.linspace(0, 1000, 7) / 3
    read = read_segy(written(tmp_path, line(receiver_x=x, receiver_z=np.ones(7))))
    np.testing.assert_allclose(read["receiver_x"], x, rtol=0, atol=5e-5)
    far = line(receiver_x=3e6 + x, receiver_z=np.ones(7))
    with pytest.raises(InputError, match="to the millimetre"):
        write_segy(far, tmp_path / "far.segy")


# --- against segyio ------------------------------------------------------------------------------


def test_written_headers_are_those_of_the_standard(tmp_path: Path) -> None:
    dataset = line(moving=True)
    with segyio.open(written(tmp_path, dataset), ignore_geometry=True) as file:
        assert int(file.format) == 5
        assert file.bin[segyio.BinField.Interval] == 2000
        assert file.bin[segyio.BinField.SEGYRevision] in (1, 0x100)
        assert file.text[0].decode("ascii").startswith("C 1 SEG-Y BY INVDIFF")
        np.testing.assert_array_equal(file.samples, np.arange(N_SAMPLES) * 2.0)  # ms
        last = file.header[11]  # shot 3, which lies 2.5 m above the datum
        assert (last[Field.FieldRecord], last[Field.TraceNumber]) == (3, 4)
        assert last[Field.ElevationScalar] == -100
        assert (last[Field.SourceDepth], last[Field.SourceSurfaceElevation]) == (0, 250)
        assert last[Field.ReceiverGroupElevation] == -725
        assert (last[Field.SourceX], last[Field.GroupX]) == (50_000, 1_050_000)
        assert file.header[0][Field.SourceDepth] == 500
        assert file.header[0][Field.TRACE_SAMPLE_INTERVAL] == 2000
        np.testing.assert_array_equal(file.trace[11], dataset["pressure"][2, 3])


def test_real_file(shared_data: Path) -> None:
    path = shared_data / "seismic" / "unit_test_shot_records_1.segy"
    read = read_segy(path, elevation_is_depth=True)
    assert dict(read.sizes) == {"shot": 1, "receiver": 120, "time": 501}
    with segyio.open(path, ignore_geometry=True) as file:
        np.testing.assert_array_equal(read["pressure"][0], file.trace.raw[:])
        np.testing.assert_allclose(read["time"], file.samples / 1e3, rtol=1e-12)
        np.testing.assert_array_equal(read["receiver_x"], file.attributes(Field.GroupX)[:] / 1000)
    assert (float(read["source_z"][0]), float(read["source_x"][0])) == (20.0, 100.0)
    assert set(read["receiver_z"].values) == {50.0}
    assert float(read["time"][1]) == 0.002  # said by the traces only
    # Taken at its word, the file has its depths as elevations above the datum.
    by_standard = read_segy(path)
    np.testing.assert_array_equal(by_standard["receiver_z"], -read["receiver_z"])
    np.testing.assert_array_equal(by_standard["source_z"], -read["source_z"])


def test_depth_and_elevation_of_the_source(tmp_path: Path) -> None:
    elevations = {Field.SourceSurfaceElevation: 10_000, Field.SourceDepth: 1500}
    path = edited(tmp_path, {**elevations, Field.ElevationScalar: -100})
    np.testing.assert_array_equal(read_segy(path)["source_z"], -85.0)
    read = read_segy(path, elevation_is_depth=True)
    np.testing.assert_array_equal(read["source_z"], 115.0)


@pytest.mark.parametrize(("scalar", "x"), [(-1000, 1.5), (0, 1500.0), (1, 1500.0), (10, 15000.0)])
def test_scalars_divide_or_multiply(tmp_path: Path, scalar: int, x: float) -> None:
    group = np.where(TRACES % N_RECEIVERS, 1500, 0)  # at one place all of them would be refused
    path = edited(tmp_path, {Field.GroupX: group, Field.SourceGroupScalar: scalar})
    np.testing.assert_array_equal(read_segy(path)["receiver_x"], [0, x, x, x])


def test_scalars_of_each_trace(tmp_path: Path) -> None:
    scalars = np.tile([-10, -1, 1, 10], N_SHOTS)
    position = {Field.SourceX: 0, Field.SourceGroupScalar: scalars}
    path = edited(tmp_path, {**position, Field.GroupX: 10})
    np.testing.assert_array_equal(read_segy(path)["receiver_x"], [1, 10, 10, 100])


def test_feet_become_metres(tmp_path: Path) -> None:
    path = edited(tmp_path, {}, {segyio.BinField.MeasurementSystem: 2})
    np.testing.assert_allclose(read_segy(path)["receiver_x"], X * 0.3048, rtol=1e-15)
    np.testing.assert_allclose(read_segy(path)["receiver_z"], 7.25 * 0.3048, rtol=1e-15)


def test_traces_of_shots_may_be_interleaved(tmp_path: Path) -> None:
    path = tmp_path / "line.segy"
    dataset = line(source_z=np.full(N_SHOTS, 5.0), source_x=np.zeros(N_SHOTS))
    write_segy(dataset, path)
    record = np.array([9, 7, 9, 7, 9, 9, 7, 8, 8, 7, 8, 8])
    with segyio.open(path, "r+", ignore_geometry=True) as file:
        for i, number in enumerate(record):
            file.header[i][Field.FieldRecord] = int(number)
        raw = file.trace.raw[:]
        x = file.attributes(Field.GroupX)[:] / 1000
    read = read_segy(path)
    np.testing.assert_array_equal(read["shot"], [9, 7, 8])  # as they appear
    assert read["receiver_x"].dims == ("shot", "receiver")
    for i, number in enumerate((9, 7, 8)):
        np.testing.assert_array_equal(read["pressure"][i], raw[record == number])
        np.testing.assert_array_equal(read["receiver_x"][i], x[record == number])


def test_ibm_floats(tmp_path: Path) -> None:
    path = tmp_path / "ibm.segy"
    values = np.linspace(-2, 2, N_SAMPLES, dtype=np.float32)  # 0.08 k - 2, to 24 bits
    spec = segyio.spec()
    spec.format, spec.tracecount, spec.samples = 1, 1, np.arange(N_SAMPLES) * 4.0
    with segyio.create(path, spec) as file:
        file.header[0] = {Field.FieldRecord: 1, Field.TRACE_SAMPLE_INTERVAL: 4000, Field.GroupX: 25}
        file.trace[0] = values
    read = read_segy(path)
    assert read["pressure"].dtype == np.float32
    # A hexadecimal exponent leaves 21 bits at least.
    np.testing.assert_allclose(read["pressure"][0, 0], values, rtol=2.0**-20)


# --- dead and missing traces, byte orders, suffixes ----------------------------------------------


def test_dead_traces_are_nan_and_told(tmp_path: Path) -> None:
    path = edited(tmp_path, {Field.TraceIdentificationCode: np.where(TRACES == 5, 2, 1)})
    with pytest.warns(DataWarning, match="1 traces of line.segy are dead"):
        read = read_segy(path)
    expected = line()["pressure"].values
    expected[1, 1] = np.nan
    np.testing.assert_array_equal(read["pressure"], expected)
    assert read.attrs["dead_traces"] == 1
    assert "missing_traces" not in read.attrs


def test_nan_comes_back(tmp_path: Path) -> None:
    """Traces of NaN as dead ones, NaN at the end of a trace as it is."""
    dataset = line()
    dataset["pressure"][0, 2] = np.nan
    dataset["pressure"][2, 1, 30:] = np.nan
    path = written(tmp_path, dataset)
    with pytest.warns(DataWarning, match="1 traces of line.segy are dead"):
        read = read_segy(path)
    np.testing.assert_array_equal(read["pressure"], dataset["pressure"])
    with segyio.open(path, ignore_geometry=True) as file:
        assert file.header[2][Field.TraceIdentificationCode] == 2
        np.testing.assert_array_equal(file.trace[2], 0)


def without(folder: Path, lost: list[int], dataset: xr.Dataset) -> Path:
    """A file that lacks some of the traces."""
    path, shorter = written(folder, dataset), folder / "short.segy"
    kept = [i for i in TRACES if i not in lost]
    with segyio.open(path, ignore_geometry=True) as file:
        spec = segyio.spec()
        spec.format, spec.tracecount, spec.samples = 5, len(kept), file.samples
        with segyio.create(shorter, spec) as other:
            other.bin = file.bin
            for i, k in enumerate(kept):
                other.header[i] = file.header[int(k)]
                other.trace[i] = file.trace[int(k)]
    return shorter


def test_missing_traces_of_a_fixed_spread_are_put_in_their_places(tmp_path: Path) -> None:
    path = without(tmp_path, [1, 8], line())
    with pytest.warns(DataWarning, match="unequal numbers of receivers, and 2 traces are missing"):
        read = read_segy(path)
    expected = line()
    expected["pressure"][0, 1] = np.nan
    expected["pressure"][2, 0] = np.nan
    np.testing.assert_array_equal(read["pressure"], expected["pressure"])
    for name in ("receiver_x", "receiver_z", "source_x", "source_z"):
        np.testing.assert_array_equal(read[name], expected[name], err_msg=name)
    assert read.attrs["missing_traces"] == 2


def test_missing_traces_of_a_moving_spread_are_put_at_the_end(tmp_path: Path) -> None:
    dataset = line(moving=True)
    with pytest.warns(DataWarning, match="1 traces are missing"):
        read = read_segy(without(tmp_path, [5], dataset))
    order = [0, 2, 3, 3]
    np.testing.assert_array_equal(read["receiver_x"][1], dataset["receiver_x"][1, order])
    np.testing.assert_array_equal(read["pressure"][1, :3], dataset["pressure"][1, order[:3]])
    assert bool(read["pressure"][1, 3].isnull().all())
    np.testing.assert_array_equal(read["receiver_x"][[0, 2]], dataset["receiver_x"][[0, 2]])


@pytest.mark.parametrize("format", [1, 5], ids=["IBM", "IEEE"])
def test_little_endian_files_are_read(tmp_path: Path, format: int) -> None:
    path = tmp_path / "little.segy"
    values = np.linspace(-2, 2, N_SAMPLES, dtype=np.float32)
    spec = segyio.spec()
    spec.format, spec.tracecount, spec.samples = format, 2, np.arange(N_SAMPLES) * 4.0
    spec.endian = "little"
    with segyio.create(path, spec) as file:
        file.bin.update({segyio.BinField.Interval: 4000})
        for i in range(2):
            file.header[i] = {
                Field.FieldRecord: 1, Field.TRACE_SAMPLE_INTERVAL: 4000, Field.GroupX: 25 * i,
            }  # fmt: skip
            file.trace[i] = values * (i + 1)
    read = read_segy(path)
    np.testing.assert_array_equal(read["receiver_x"], [0, 25])
    np.testing.assert_allclose(read["pressure"][0, 1], 2 * values, rtol=2.0**-20)


@pytest.mark.parametrize("suffix", [".SGY", ".SEGY", ".Segy", ".Zarr", ".ZARR"])
def test_suffixes_in_capitals(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"LINE{suffix}"
    write_survey(line(), path)
    np.testing.assert_array_equal(read_survey(path)["pressure"], line()["pressure"])


def test_one_trace_and_one_sample(tmp_path: Path) -> None:
    read = read_segy(written(tmp_path, line().isel(shot=[1], receiver=[2])))
    assert dict(read.sizes) == {"shot": 1, "receiver": 1, "time": N_SAMPLES}
    np.testing.assert_array_equal(read["pressure"], line()["pressure"][[1], [2]])
    path = tmp_path / "one.segy"
    spec = segyio.spec()
    spec.format, spec.tracecount, spec.samples = 5, 1, np.zeros(1)
    with segyio.create(path, spec) as file:
        file.header[0] = {Field.FieldRecord: 1, Field.TRACE_SAMPLE_INTERVAL: 4000, Field.GroupX: 25}
        file.trace[0] = np.ones(1, np.float32)
    read = read_segy(path)
    assert dict(read.sizes) == {"shot": 1, "receiver": 1, "time": 1}
    with pytest.raises(ShapeError, match="two or more times"):
        Survey.from_arrays({**survey_arrays(read), "wavelet": np.ones(1)})


def test_big_endian_pressure_is_written(tmp_path: Path) -> None:
    dataset = line()
    dataset["pressure"] = dataset["pressure"].astype(">f4")
    read = read_segy(written(tmp_path, dataset))
    np.testing.assert_array_equal(read["pressure"], line()["pressure"])


# --- what is refused -----------------------------------------------------------------------------

BAD_HEADERS = {
    "angles": ({Field.CoordinateUnits: 2}, {}, InputError, "angles"),
    "another component": (
        {Field.TraceIdentificationCode: np.where(TRACES == 5, 12, 1)},
        {},
        InputError,
        "1 of 12 traces.*not pressure.*identification 12",
    ),
    "two dt": ({Field.TRACE_SAMPLE_INTERVAL: 1000}, {}, InputError, "1000 us by its traces, 2000"),
    "changing dt": ({Field.TRACE_SAMPLE_INTERVAL: 1000 + TRACES}, {}, InputError, "one value"),
    "no dt": (
        {Field.TRACE_SAMPLE_INTERVAL: 0},
        {segyio.BinField.Interval: 0},
        InputError,
        "one positive number",
    ),
    "n_samples": ({Field.TRACE_SAMPLE_COUNT: 160}, {}, InputError, "160 by its traces, 50"),
    "delays": ({Field.DelayRecordingTime: TRACES}, {}, InputError, "recording delay"),
    "delay scaled": (
        {Field.DelayRecordingTime: 5, Field.ScalarTraceHeader: -10},
        {},
        InputError,
        "time scalar -10",
    ),
    "cubits": ({}, {segyio.BinField.MeasurementSystem: 7}, InputError, "MeasurementSystem 7"),
}


@pytest.mark.parametrize(
    ("headers", "binary", "error", "match"), BAD_HEADERS.values(), ids=BAD_HEADERS
)
def test_bad_headers(
    tmp_path: Path,
    headers: dict[int, object],
    binary: dict[int, int],
    error: type[Exception],
    match: str,
) -> None:
    with pytest.raises(error, match=match):
        read_segy(edited(tmp_path, headers, binary))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_segy(tmp_path / "none.segy")
    path = tmp_path / "bad.segy"
    whole = written(tmp_path).read_bytes()
    for content in (b"", b"text", whole[:100], whole[:3600]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"holds no traces; got \d+ bytes; expected.*3600"):
            read_segy(path)
    for content in (bytes(5000), b"text " * 1000, whole[:-10], whole[:3700]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as SEG-Y"):
            read_segy(path)


def test_bad_samples(tmp_path: Path) -> None:
    path = written(tmp_path)
    with segyio.open(path, "r+", ignore_geometry=True) as file:
        file.trace[6] = np.where(np.arange(N_SAMPLES) == 3, np.nan, 1).astype(np.float32)
        file.trace[8] = np.full(N_SAMPLES, np.inf, np.float32)
    with pytest.raises(NonFiniteError, match="2 of 12 traces, the first number 7"):
        read_segy(path)


BAD_DATASETS = {
    "float64": (lambda ds: ds.astype("float64"), DTypeError, "float32"),
    "no pressure": (lambda ds: ds.drop_vars("pressure"), InputError, "Add the traces"),
    "wavelet": (
        lambda ds: ds.assign(wavelet=("time", np.ones(N_SAMPLES))),
        InputError,
        r"drop_vars\(\['wavelet'\]\)",
    ),
    "dt": (lambda ds: ds.assign_coords(time=ds.time * 1.0003), InputError, "whole microseconds"),
    "dt long": (lambda ds: ds.assign_coords(time=ds.time * 20), InputError, "do(es)? not fit"),
    "time uneven": (lambda ds: ds.isel(time=[0, 1, 3]), InputError, "uniform steps"),
    "one sample": (lambda ds: ds.isel(time=[0]), ShapeError, "2 or more"),
    "shot names": (lambda ds: ds.assign_coords(shot=["a", "b", "c"]), InputError, "record numbers"),
    "shots twice": (lambda ds: ds.assign_coords(shot=[1, 1, 2]), InputError, "each once"),
    "no source": (lambda ds: ds.drop_vars("source_x"), InputError, "source_x"),
}


@pytest.mark.parametrize(("spoil", "error", "match"), BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_bad_datasets(tmp_path: Path, spoil, error, match) -> None:
    with pytest.raises(error, match=match):
        write_segy(spoil(line()), tmp_path / "line.segy")
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_overwritten_unasked(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="a file"):
        write_segy(line(moving=True), path)
    assert path.read_bytes() == before
    write_segy(line(moving=True), path, overwrite=True)
    assert read_segy(path)["receiver_x"].dims == ("shot", "receiver")
    (tmp_path / "folder.segy").mkdir()
    with pytest.raises(OutputExistsError, match="a folder"):
        write_segy(line(), tmp_path / "folder.segy", overwrite=True)
    with pytest.raises(InputError, match="cannot write into"):
        write_segy(line(), tmp_path / "nowhere" / "line.segy")
