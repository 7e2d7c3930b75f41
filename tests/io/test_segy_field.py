"""SEG-Y as it comes from the field: formats, several files, shot numbers, crooked lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from invdiff.errors import DataWarning, DTypeError, InputError
from invdiff.io import read_segy, read_survey, survey_dataset, write_segy, write_survey
from invdiff.io.line import on_best_line

segyio = pytest.importorskip("segyio")
pytestmark = pytest.mark.seismic

Field = segyio.TraceField
N_RECEIVERS, N_SAMPLES = 5, 20
RECEIVER_X = 100.0 * np.arange(N_RECEIVERS)
DTYPES = {1: "f4", 2: "i4", 3: "i2", 5: "f4", 6: "f8", 8: "i1", 10: "u4", 11: "u2", 16: "u1"}


def traces(n_shots: int = 3, *, dtype: str = "f4") -> np.ndarray:
    """Integers of -100 ... 100, or from zero where there are no others."""
    low = 0 if dtype.startswith("u") else -100
    shape = (n_shots * N_RECEIVERS, N_SAMPLES)
    return np.random.default_rng(0).integers(low, 101, shape).astype(dtype)


def written(
    path: Path,
    samples: np.ndarray,
    headers: dict[int, object] | None = None,
    *,
    format: int = 5,
    source_x: np.ndarray | None = None,
    record: object = None,
) -> Path:
    """A file of shots of five receivers along x, 100 m apart, with other headers where given."""
    n_shots = len(samples) // N_RECEIVERS
    source_x = 50.0 + 100 * np.arange(n_shots) if source_x is None else source_x
    columns = {
        Field.FieldRecord: np.repeat(np.arange(1, n_shots + 1), N_RECEIVERS)
        if record is None
        else record,
        Field.SourceX: np.repeat(source_x, N_RECEIVERS) * 100,
        Field.GroupX: np.tile(RECEIVER_X, n_shots) * 100,
        Field.SourceGroupScalar: -100,
        Field.TRACE_SAMPLE_INTERVAL: 2000,
        **(headers or {}),
    }
    spec = segyio.spec()
    spec.format, spec.tracecount, spec.samples = format, len(samples), 2.0 * np.arange(N_SAMPLES)
    with segyio.create(path, spec) as file:
        file.bin.update({segyio.BinField.Interval: 2000})
        for i, values in enumerate(samples):
            file.header[i] = {
                key: int(np.broadcast_to(column, len(samples))[i])
                for key, column in columns.items()
            }
            file.trace[i] = values
    return path


# --- sample formats ------------------------------------------------------------------------------


@pytest.mark.parametrize("format", DTYPES)
def test_integers_and_floats_of_all_sizes_are_read_exactly(tmp_path: Path, format: int) -> None:
    samples = traces(dtype=DTYPES[format])
    read = read_segy(written(tmp_path / "line.sgy", samples, format=format))
    expected = samples.reshape(3, N_RECEIVERS, N_SAMPLES)
    np.testing.assert_array_equal(read["pressure"], expected)
    assert read["pressure"].dtype == (np.float64 if format == 6 else np.float32)


def test_weighting_factors_are_powers_of_two(tmp_path: Path) -> None:
    samples, weight = traces(dtype="i2"), np.arange(15) % 4
    factors = {Field.TraceWeightingFactor: weight}
    read = read_segy(written(tmp_path / "line.sgy", samples, factors, format=3))
    np.testing.assert_array_equal(
        read["pressure"].values.reshape(15, -1), samples * 2.0 ** -weight[:, None]
    )
    bad = {Field.TraceWeightingFactor: -3}
    with pytest.raises(InputError, match=r"weighting factors.*got -3 to -3"):
        read_segy(written(tmp_path / "bad.sgy", samples, bad, format=3))


def test_large_integers_are_held_in_double_precision_or_refused(tmp_path: Path) -> None:
    samples = traces(dtype="i4")
    samples[0, 0] = 2**24 + 1
    read = read_segy(written(tmp_path / "line.sgy", samples, format=2))
    assert read["pressure"].dtype == np.float64
    np.testing.assert_array_equal(read["pressure"].values.reshape(15, -1), samples)
    long = traces(dtype="i8")
    long[0, 0] = 2**53 + 1
    with pytest.raises(DTypeError, match="53 bits"):
        read_segy(written(tmp_path / "long.sgy", long, format=9))


@pytest.mark.parametrize(
    ("code", "error", "match"),
    [
        (4, DTypeError, "format 4, fixed point with gain"),
        (7, DTypeError, "format 7"),
        (0, InputError, "sample format 0"),
        (99, InputError, "sample format 99"),
    ],
)
def test_other_formats_are_not_taken_for_floats(
    tmp_path: Path, code: int, error: type[Exception], match: str
) -> None:
    path = written(tmp_path / "line.sgy", traces())
    content = bytearray(path.read_bytes())
    content[3224:3226] = code.to_bytes(2, "big")
    path.write_bytes(content)
    with pytest.raises(error, match=match):
        read_segy(path)


def test_a_number_of_samples_that_the_size_contradicts_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "cut.sgy", traces(), {Field.TRACE_SAMPLE_COUNT: 1500})
    with pytest.warns(DataWarning, match="said to have 1500 samples.*have 20"):
        assert read_segy(path).sizes["time"] == N_SAMPLES


def test_degrees_that_are_none_are_lengths(tmp_path: Path) -> None:
    shift = {Field.CoordinateUnits: 3, Field.GroupX: np.tile(RECEIVER_X + 300, 3) * 100}
    with pytest.warns(DataWarning, match="degrees, but reach 700"):
        read = read_segy(written(tmp_path / "line.sgy", traces(), shift))
    np.testing.assert_array_equal(read["receiver_x"], RECEIVER_X + 300)


# --- shots and files -----------------------------------------------------------------------------


def test_one_file_a_shot(tmp_path: Path) -> None:
    samples = traces()
    whole = read_segy(written(tmp_path / "whole.sgy", samples))
    paths = [
        written(
            tmp_path / f"shot{i}.sgy",
            samples[i * N_RECEIVERS : (i + 1) * N_RECEIVERS],
            source_x=np.array([50.0 + 100 * i]),
            record=i + 1,
        )
        for i in range(3)
    ]
    joined = read_survey(paths)
    assert joined.attrs["source"] == "shot0.sgy, shot1.sgy, shot2.sgy"
    assert joined.drop_attrs().identical(whole.drop_attrs())
    # Numbered from one in each file, as modelling codes do: told apart by their sources.
    same = [written(p, samples[:5], source_x=np.array([float(i)]), record=1)
            for i, p in enumerate(paths)]  # fmt: skip
    joined = read_survey(same)
    assert joined.attrs["shots_by"] == "source position"
    np.testing.assert_array_equal(joined["shot"], [1, 2, 3])
    np.testing.assert_array_equal(joined["source_x"], [0, 1, 2])


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a.sgy", traces()), written(tmp_path / "b.sgy", traces())
    with pytest.raises(InputError, match=r"two files hold the same shot; got a.sgy, b.sgy"):
        read_survey([one, other])
    with pytest.raises(InputError, match=r"given twice; got a.sgy"):
        read_survey([one, one])
    with pytest.raises(InputError, match="no files"):
        read_survey([])
    with pytest.raises(InputError, match="only SEG-Y files can be joined"):
        read_survey([one, tmp_path / "line.zarr"])
    shifted = written(tmp_path / "c.sgy", traces(), {Field.DelayRecordingTime: 8}, record=7)
    with pytest.raises(InputError, match=r"recording delays; got 8 ms in c.sgy, 0 ms in a.sgy"):
        read_survey([one, shifted])


def test_a_shot_cut_in_two_files_is_put_together(tmp_path: Path) -> None:
    samples = traces(2)
    first = {Field.GroupX: np.tile(RECEIVER_X, 2) * 100}
    second = {Field.GroupX: np.tile(RECEIVER_X + 500, 2) * 100}
    paths = [written(tmp_path / f"{i}.sgy", samples, columns)
             for i, columns in enumerate((first, second))]  # fmt: skip
    read = read_survey(paths)
    assert dict(read.sizes) == {"shot": 2, "receiver": 10, "time": N_SAMPLES}
    np.testing.assert_array_equal(read["receiver_x"], 100.0 * np.arange(10))


@pytest.mark.parametrize(
    ("record", "energy", "by", "numbers"),
    [
        (np.repeat([7, 8, 9], 5), 0, "FieldRecord", [7, 8, 9]),
        (0, np.repeat([101, 103, 102], 5), "EnergySourcePoint", [101, 103, 102]),
        (0, 0, "source position", [1, 2, 3]),
        (1, np.repeat([4, 4, 5], 5), "source position", [1, 2, 3]),
    ],
)
def test_shots_are_told_apart_by_the_header_that_does(
    tmp_path: Path, record: object, energy: object, by: str, numbers: list[int]
) -> None:
    headers = {Field.EnergySourcePoint: energy}
    read = read_segy(written(tmp_path / "line.sgy", traces(), headers, record=record))
    assert read.attrs["shots_by"] == by
    np.testing.assert_array_equal(read["shot"], numbers)
    np.testing.assert_array_equal(read["source_x"], [50, 150, 250])
    np.testing.assert_array_equal(read["pressure"].values.reshape(15, -1), traces())


# --- lines that are not along x ------------------------------------------------------------------


def placed(source: np.ndarray, receiver: np.ndarray) -> dict[int, object]:
    """Headers of positions ``(x, y)`` to the centimetre, those of receivers by trace."""
    source = np.repeat(source, N_RECEIVERS, axis=0)
    fields = (Field.SourceX, Field.SourceY, Field.GroupX, Field.GroupY)
    columns = np.concatenate([source, receiver], axis=1).T
    return dict(zip(fields, np.rint(columns * 100).astype(int), strict=True))


@pytest.mark.parametrize("angle", [-60.0, 0.0, 30.0, 90.0, 170.0])
def test_a_wobbling_rotated_line_becomes_its_best_line(tmp_path: Path, angle: float) -> None:
    rng, turn = np.random.default_rng(1), np.deg2rad(angle)
    basis = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    source, receiver = 50.0 + 100 * np.arange(3), np.tile(RECEIVER_X, 3)
    wobble = np.tile(rng.uniform(-2, 2, N_RECEIVERS), 3)
    headers = placed(
        np.stack([source, np.zeros(3)], 1) @ basis + [4e5, 6e6],
        np.stack([receiver, wobble], 1) @ basis + [4e5, 6e6],
    )
    with pytest.warns(DataWarning, match="projected onto the best straight line"):
        read = read_segy(written(tmp_path / "line.sgy", traces(), headers))
    # Distances along the line are kept, to the wobble's second order and the rounding to 1 cm.
    sign = -1 if angle in (-60.0, 170.0) else 1  # a line points to growing x, or y if it is steeper
    for name, truth in (("source_x", source), ("receiver_x", RECEIVER_X)):
        found = read[name].values - float(read["receiver_x"][0])
        np.testing.assert_allclose(sign * found, truth, atol=0.05)
    attrs = read.attrs
    assert (attrs["line_azimuth"] - angle + 90) % 180 - 90 == pytest.approx(0, abs=0.6)
    assert 0 < attrs["off_line_rms"] < attrs["off_line_max"] < 4
    assert 0 < attrs["offset_error"] < 0.1
    assert "line_y" not in attrs


def test_the_line_is_that_of_total_least_squares() -> None:
    """Against the eigenvector of the scatter matrix, and with distances from the first x."""
    rng = np.random.default_rng(0)
    x = np.linspace(200, 1200, 30)
    places = np.stack([x, 0.3 * x + rng.normal(0, 2, 30)], 1)
    with pytest.warns(DataWarning):
        line = on_best_line(places[:1], places, "line")
    values, vectors = np.linalg.eigh(np.cov(places.T))
    direction = vectors[:, 1] * np.sign(vectors[0, 1])
    np.testing.assert_allclose(np.diff(line.receiver), np.diff(places @ direction), atol=1e-9)
    assert line.receiver[0] == pytest.approx(200)
    assert line.notes["off_line_rms"] == pytest.approx(np.sqrt(values[0] * 29 / 30), rel=1e-9)
    errors = np.abs(line.source - line.receiver) - np.linalg.norm(places[:1] - places, axis=1)
    assert line.notes["offset_error"] == pytest.approx(np.abs(errors).max())


def test_a_line_along_x_keeps_its_bits(tmp_path: Path) -> None:
    headers = {Field.SourceY: 51_250, Field.GroupY: 51_250}
    read = read_segy(written(tmp_path / "line.sgy", traces(), headers))
    np.testing.assert_array_equal(read["receiver_x"], RECEIVER_X)
    assert read.attrs["line_y"] == 512.5
    assert not {"line_azimuth", "off_line_max"} & set(read.attrs)


def test_a_survey_of_two_dimensions_is_no_line(tmp_path: Path) -> None:
    headers = {Field.GroupY: np.tile([0, 0, 0, 8000, 0], 3)}
    with pytest.raises(InputError, match=r"is not a line; got.* m off the best line.*5% of its"):
        read_segy(written(tmp_path / "line.sgy", traces(), headers))


# --- positions that cannot be --------------------------------------------------------------------

GROUP = np.tile(RECEIVER_X, 3) * 100
COINCIDENT = {
    "no geometry": ({Field.SourceX: 0, Field.GroupX: 0}, "all sources and receivers.*no geometry"),
    "stack": ({Field.SourceX: GROUP, Field.GroupX: GROUP}, "each source.*stacked section"),
    "stack above": (
        {Field.SourceX: GROUP, Field.GroupX: GROUP, Field.SourceDepth: 5}, "each source"
    ),
    "receivers": ({Field.GroupX: 5000}, "receivers of each shot.*GroupX"),
    "unset": ({Field.SourceX: 100 * np.arange(1, 16), Field.GroupX: 0}, "have no positions"),
    "scalar": ({Field.SourceGroupScalar: 82}, "SourceGroupScalar.*got 82"),
}  # fmt: skip


@pytest.mark.parametrize("case", COINCIDENT)
def test_coincident_positions_are_refused(tmp_path: Path, case: str) -> None:
    headers, match = COINCIDENT[case]
    with pytest.raises(InputError, match=match):
        read_segy(written(tmp_path / "line.sgy", traces(), headers))


def test_a_zarr_line_of_coincident_positions_is_refused(tmp_path: Path) -> None:
    arrays = {name: np.zeros(4) for name in ("receiver_z", "receiver_x")}
    arrays |= {"source_z": np.zeros(1), "source_x": np.zeros(1), "time": np.arange(9) * 2e-3}
    write_survey(survey_dataset(arrays, np.ones((1, 4, 9), np.float32)), tmp_path / "line.zarr")
    with pytest.raises(InputError, match=r"line.zarr are at the same place"):
        read_survey(tmp_path / "line.zarr")


def test_a_projected_line_is_written_along_x(tmp_path: Path) -> None:
    headers = {Field.GroupY: np.tile([0, 100, -100, 100, 0], 3)}
    with pytest.warns(DataWarning, match="best straight line"):
        read = read_segy(written(tmp_path / "line.sgy", traces(), headers))
    write_segy(read, tmp_path / "straight.sgy")
    again = read_segy(tmp_path / "straight.sgy")
    np.testing.assert_allclose(again["receiver_x"], read["receiver_x"], atol=1e-3)
    assert again.attrs["line_y"] == 0


def far_away(y: float) -> tuple[np.ndarray, np.ndarray]:
    """A line along x whose coordinates are those of a national grid."""
    along = 50.0 + 100 * np.arange(3), np.tile(RECEIVER_X, 3)
    source, receiver = (np.stack([x + 4e5, np.full(len(x), y)], 1) for x in along)
    return source, receiver


def test_a_station_without_coordinates_does_not_turn_the_line(tmp_path: Path) -> None:
    """One receiver at zero would, far from the others, decide on the direction alone."""
    source, receiver = far_away(y=3e4)
    receiver[4::5] = 0
    with pytest.raises(InputError, match=r"one station turns the line.*\[0.0, 0.0\]"):
        read_segy(written(tmp_path / "line.sgy", traces(), placed(source, receiver)))


def test_dead_traces_without_coordinates_are_left_out(tmp_path: Path) -> None:
    headers, samples = placed(*far_away(y=6e6)), traces()
    for values in headers.values():
        values[7] = 0
    headers[Field.TraceIdentificationCode] = np.where(np.arange(15) == 7, 2, 1)
    with pytest.warns(DataWarning, match="1 .*dead"):
        read = read_segy(written(tmp_path / "line.sgy", samples, headers))
    assert read["pressure"].shape[:2] == (3, 5)
    assert np.isnan(read["pressure"][1, 2]).all()
    np.testing.assert_allclose(read["receiver_x"], 4e5 + RECEIVER_X)
    assert read.attrs["dead_traces"] == 1
