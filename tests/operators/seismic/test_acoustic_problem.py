"""From a line and a start to a problem: what is weighted, left out, and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff.errors import (
    DataWarning,
    InputError,
    InvdiffError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)
from invdiff.fwi import amplitude_weights, near_offset_mute
from invdiff.io import survey_dataset
from invdiff.operators.seismic import Boundary, Survey, acoustic_problem, ricker

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

SHAPE, NOISE = (12, 30), 0.1
SHOTS, RECEIVERS, N_SAMPLES, DT = 3, 7, 120, 2e-3


def recorded(**changes: Any) -> xr.Dataset:
    """A line whose traces are noise: nothing is solved here."""
    x = np.linspace(20.0, 260.0, RECEIVERS)
    survey = Survey(
        [(10.0, s) for s in (60.0, 140.0, 220.0)],
        np.stack([np.full_like(x, 10.0), x], 1),
        ricker(15.0, DT, N_SAMPLES),
        DT,
    )
    pressure = np.random.default_rng(0).standard_normal((SHOTS, RECEIVERS, N_SAMPLES))
    arrays = survey.to_arrays() | changes
    return survey_dataset(arrays, pressure.astype(np.float32), noise_std=NOISE)


def smooth(**changes: Any) -> xr.DataArray:
    values = np.full(SHAPE, 2000.0) + 10 * np.arange(SHAPE[0])[:, None]
    axes = {dim: 10.0 * np.arange(n) for dim, n in zip("zx", SHAPE, strict=True)} | changes
    return xr.DataArray(values, axes, ("z", "x"), "velocity", {"units": "m s-1"})


def test_a_problem_holds_operator_traces_noise_weights_and_start() -> None:
    line = recorded()
    problem = acoustic_problem(line, smooth(), bounds=(1500, 3000), boundary=Boundary(10))
    assert problem.operator.domain.shape == SHAPE
    assert problem.operator.bounds == (1500, 3000)
    assert problem.operator.boundary == Boundary(10)
    assert problem.operator.survey == Survey.from_arrays(line_arrays(line))
    assert problem.noise_std == NOISE
    np.testing.assert_array_equal(problem.data, line["pressure"])
    np.testing.assert_array_equal(problem.start, smooth().astype(np.float32))
    assert {t.dtype for t in (problem.data, problem.start, problem.weights)} == {torch.float32}
    by_hand = near_offset_mute(line, 25.0) * amplitude_weights(line["pressure"], NOISE)
    np.testing.assert_array_equal(problem.weights, by_hand.transpose("shot", "receiver", "time"))
    assert problem.notes == {"muted_traces": int((near_offset_mute(line, 25.0) == 0).sum())}
    alike = acoustic_problem(line, smooth(), mute=0, relative_error=0)
    assert bool((alike.weights == 1).all())
    assert alike.notes == {}


def line_arrays(line: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(name): line[name].values for name in line.variables if name != "shot"}


def test_arrays_and_datasets_in_any_order_give_the_same() -> None:
    line = recorded()
    one = acoustic_problem(line, smooth())
    plain = {"velocity": smooth().values, "z": smooth()["z"].values, "x": smooth()["x"].values}
    others = (
        acoustic_problem(line.transpose("time", "receiver", "shot"), smooth().T),
        acoustic_problem(line_arrays(line), plain, noise_std=NOISE),
        acoustic_problem(line, smooth().to_dataset()),
        acoustic_problem(
            line.assign(pressure=line["pressure"].astype(">f8")), smooth().astype(">f8")
        ),
    )
    for other in others:
        for name in ("data", "weights", "start"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert other.operator.survey == one.operator.survey
        assert other.notes == one.notes


def test_a_wavelet_is_made_where_there_is_none() -> None:
    line = recorded().drop_vars("wavelet")
    problem = acoustic_problem(line, smooth(), ricker=15)
    np.testing.assert_array_equal(problem.operator.survey.wavelet, ricker(15.0, DT, N_SAMPLES))
    assert problem.notes["wavelet"] == "Ricker of 15 Hz"


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_dead_traces_are_left_out_and_told(value: float) -> None:
    """Three of the receivers, and one shot."""
    line = recorded()
    line["pressure"][:, [0, 3]] = value
    line["pressure"][2] = value
    line["pressure"][0, 5, 100:] = np.nan
    with pytest.warns(DataWarning, match=r"11 of 21 traces are dead.*and 20 samples") as told:
        problem = acoustic_problem(line, smooth())
    assert len(told) == 1
    live = recorded()["pressure"].values.astype(bool)
    live[:, [0, 3]], live[2], live[0, 5, 100:] = False, False, False
    far = near_offset_mute(line, 25.0).values[..., None]
    np.testing.assert_array_equal(problem.weights != 0, live & (far != 0))
    np.testing.assert_array_equal(problem.data[~torch.from_numpy(live)], 0)
    assert problem.notes["dead_traces"] == 11
    assert problem.notes["padded_samples"] == 20


Spoil = Callable[[xr.Dataset, xr.DataArray], tuple[Any, Any]]
WRONG_KINDS: dict[str, tuple[Spoil, str]] = {
    "path of a line": (lambda d, m: ("line.segy", m), "invdiff.read_survey"),
    "traces": (lambda d, m: (d["pressure"], m), "got DataArray"),
    "path of a start": (lambda d, m: (d, "smooth.zarr"), "invdiff.io.read_velocity"),
    "array": (lambda d, m: (d, m.values), "got ndarray"),
    "swapped": (lambda d, m: (m, d), "the line is not a Dataset"),
    "another variable": (lambda d, m: (d, m.to_dataset(name="vp")), "arrays velocity, z and x"),
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_wrong_kinds(case: str) -> None:
    spoil, match = WRONG_KINDS[case]
    line, start = spoil(recorded(), smooth())
    with pytest.raises(InputError, match=match):
        acoustic_problem(line, start)


BAD: dict[str, tuple[Spoil, dict[str, Any], type[InvdiffError], str]] = {
    "no traces": (lambda d, m: (d.drop_vars("pressure"), m), {}, InputError, "no traces"),
    "two wavelets": (lambda d, m: (d, m), {"ricker": 15}, InputError, "wavelet already"),
    "wavelet twice": (
        lambda d, m: (d, m), {"wavelet": np.ones(9)}, InputError, "Leave out wavelet=...",
    ),
    "both wavelets": (
        lambda d, m: (d.drop_vars("wavelet"), m), {"wavelet": np.ones(9), "ricker": 15}, InputError,
        "two wavelets",
    ),
    "delay alone": (
        lambda d, m: (d.drop_vars("wavelet"), m), {"delay": 0.1}, InputError, "without ricker",
    ),
    "another step": (
        lambda d, m: (d.drop_vars("wavelet"), m),
        {"wavelet": xr.DataArray(np.ones(9), {"time": 1e-3 * np.arange(9)}, ("time",))}, InputError,
        "0.001 s and 0.002 s",
    ),
    "a start between samples": (
        lambda d, m: (d.assign_coords(time=d.time + 5e-4), m), {}, InputError, "between two",
    ),
    "another length": (
        lambda d, m: (d.drop_vars("wavelet").isel(time=slice(99)), m),
        {"wavelet": np.ones((2, 9))}, ShapeError, "wavelet",
    ),
    "negative noise": (lambda d, m: (d, m), {"noise_std": -1.0}, NoiseLevelError, "noise_std"),
    "noise of text": (lambda d, m: (d, m), {"noise_std": "low"}, NoiseLevelError, "'low'"),
    "km/s": (lambda d, m: (d, m / 1000), {}, InputError, "multiply it by 1000"),
    "too slow": (
        lambda d, m: (d, m), {"bounds": (2050, 3000)}, InputError, "got 2000 to 2110.*bounds=",
    ),
    "bounds in km/s": (lambda d, m: (d, m), {"bounds": (1.5, 4.5)}, InputError, "km/s"),
    "no axes": (lambda d, m: (d, m.drop_vars("x")), {}, InputError, r"coordinate \['x'\]"),
    "other dims": (lambda d, m: (d, m.rename(x="y").assign_coords(x=0.0)), {}, ShapeError, "y"),
    "NaN": (lambda d, m: (d, m.where(m.x > 50)), {}, NonFiniteError, "starting model"),
    "UTM": (
        lambda d, m: (
            d.assign_coords(source_x=d.source_x + 5e5, receiver_x=d.receiver_x + 5e5), m
        ),
        {}, InputError, "subtracting 500020 m",
    ),
    "km": (lambda d, m: (d, m.assign_coords(z=m.z / 1e3, x=m.x / 1e3)), {}, InputError, "km"),
    "units": (
        lambda d, m: (d.assign_coords(time=d.time.assign_attrs(units="ms")), m), {}, InputError,
        "SI",
    ),
    "trace": (lambda d, m: (d.rename(receiver="trace"), m), {}, ShapeError, "trace"),
    "Inf": (lambda d, m: (d.assign(pressure=d.pressure / 0), m), {}, NonFiniteError, "Inf"),
    "gap": (
        lambda d, m: (d.assign(pressure=d.pressure.where(d.time > 0.1)), m), {}, NonFiniteError,
        "NaN within traces",
    ),
    "all dead": (lambda d, m: (d.assign(pressure=0 * d.pressure), m), {}, InputError, "all traces"),
    "all muted": (lambda d, m: (d, m), {"mute": 1e4}, InputError, "mute=10000 m"),
    "threads": (lambda d, m: (d, m), {"n_threads": 1.5}, InputError, "not an integer"),
    "one sample": (
        lambda d, m: (d.isel(time=[0]).drop_vars("wavelet"), m), {"ricker": 15}, ShapeError,
        "time is not an axis",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    spoil, settings, error, match = BAD[case]
    with np.errstate(divide="ignore"):
        line, start = spoil(recorded(), smooth())
    if "pressure" in line:
        line["pressure"].attrs["noise_std"] = NOISE
    with pytest.raises(error, match=match):
        acoustic_problem(line, start, **settings)
