"""Noise before the first arrivals, and wavelets: estimated, early, late, of zero phase."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff.errors import DataWarning, NoiseLevelError
from invdiff.fwi.start import check_start
from invdiff.io import survey_dataset
from invdiff.operators.seismic import Acoustic, Boundary, Survey, acoustic_problem, ricker
from invdiff.operators.seismic.noise import noise_before_arrivals
from invdiff.operators.seismic.wavelets import Wavelet, on_one_axis
from invdiff.protocols import Problem
from invdiff.traces import LiveTraces
from tests.support.seismic_cases import domain

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

SHAPE, DT, N, F, NOISE = (30, 50), 2e-3, 200, 15.0, 2e-3
SETTINGS = {"bounds": (1500.0, 3500.0), "boundary": Boundary(12)}
LEAD = 50  # samples before time zero


def start() -> xr.DataArray:
    """A gradient in depth, m/s."""
    axes = {dim: 10.0 * np.arange(n) for dim, n in zip("zx", SHAPE, strict=True)}
    values = np.full(SHAPE, 2000.0, np.float32) + 2 * axes["z"][:, None].astype(np.float32)
    return xr.DataArray(values, axes, ("z", "x"), "velocity")


@cache
def clean(delay: float) -> np.ndarray:
    """Traces of the start from 0.1 s before time zero on, of a Ricker wavelet with this delay."""
    x = np.arange(20.0, 480.0, 20.0)
    receivers = np.stack([np.full_like(x, 10.0), x], 1)
    wavelet = ricker(F, DT, N + LEAD, delay=delay + LEAD * DT)
    survey = Survey([(10.0, s) for s in (100.0, 400.0)], receivers, wavelet, DT)
    operator = Acoustic(survey, domain(SHAPE, torch.float32), **SETTINGS)
    with torch.no_grad():
        return operator(torch.from_numpy(start().values)[None])[0].numpy()


def recorded(delay: float, *, noise: float = NOISE, first: int = 0) -> xr.Dataset:
    """The traces from sample ``first`` on, without wavelet and noise level."""
    x = np.arange(20.0, 480.0, 20.0)
    traces = clean(delay)[..., LEAD + first :]
    noisy = traces + noise * np.random.default_rng(0).standard_normal(traces.shape)
    arrays = {
        "source_z": np.full(2, 10.0),
        "source_x": np.array([100.0, 400.0]),
        "receiver_z": np.full_like(x, 10.0),
        "receiver_x": x,
        "time": (first + np.arange(traces.shape[-1])) * DT,
    }
    return survey_dataset(arrays, noisy.astype(np.float32))


def chi_square(problem: Problem) -> float:
    """Of the start, per sample."""
    with torch.no_grad():
        residual = problem.operator(problem.start[None])[0] - problem.data
    squares = (problem.weights * residual / problem.noise_std).square().sum()
    return float(squares / problem.weights.square().sum())


# --- noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.1, 0.03, 0.0])
@pytest.mark.parametrize("noise", [5e-4, 2e-3, 1e-2])
def test_the_noise_of_a_line_is_found(noise: float, delay: float) -> None:
    line = recorded(delay, noise=noise)
    problem = acoustic_problem(line, start(), ricker=F, delay=delay, **SETTINGS)
    note = str(problem.notes["noise_source"])
    n = int(note.split()[2])
    assert note == f"estimated from {n} samples before the first arrivals"
    assert n > 150
    assert problem.noise_std == pytest.approx(noise, rel=4 * 1.17 / n**0.5)


def test_waves_before_the_first_arrivals_do_not_count() -> None:
    """A time zero that is wrong by 40 ms: signal in half of the windows of some traces."""
    line = recorded(0.1)
    early = line.assign_coords(time=line["time"]).isel(time=slice(60, None))
    early = early.assign_coords(time=np.arange(early.sizes["time"]) * DT)
    problem = acoustic_problem(early, start(), ricker=F, **SETTINGS)
    assert problem.noise_std == pytest.approx(NOISE, rel=0.15)


def test_a_level_that_is_given_or_stored_is_taken() -> None:
    line = recorded(0.1)
    line["pressure"].attrs["noise_std"] = 0.7
    stored = acoustic_problem(line, start(), ricker=F, **SETTINGS)
    given = acoustic_problem(line, start(), ricker=F, noise_std=0.8, **SETTINGS)
    assert (stored.noise_std, given.noise_std) == (0.7, 0.8)
    assert "noise_source" not in {**stored.notes, **given.notes}


def test_silence_and_too_few_samples_are_told() -> None:
    with pytest.raises(NoiseLevelError, match=r"no noise is found.*noise_std=\.\.\."):
        acoustic_problem(recorded(0.1, noise=0.0), start(), ricker=F, **SETTINGS)
    fast = SETTINGS | {"bounds": (1500.0, 60_000.0)}
    with pytest.raises(NoiseLevelError, match="too few samples before the first arrivals"):
        acoustic_problem(recorded(0.1).isel(receiver=slice(3)), start(), ricker=F, **fast)


def test_mutes_and_dead_traces_do_not_lower_the_level() -> None:
    rng, time = np.random.default_rng(1), DT * np.arange(400)
    traces = rng.normal(0, 3.0, (2, 6, 400))
    traces[:, ::2, :100] = 0
    weights = np.ones_like(traces)
    weights[0, 1] = 0
    traces[0, 1] = 1e-3
    found = noise_before_arrivals(
        LiveTraces(traces, weights, {}), np.full((2, 6), 1000.0), time=time, v_max=2500.0
    )
    assert found.n_samples == 6 * 100 + 5 * 200
    assert found.std == pytest.approx(3.0, rel=4 * 1.17 / found.n_samples**0.5)


# --- wavelets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.1, 0.03, 0.0])
def test_the_wavelet_is_found_wherever_it_peaks(delay: float) -> None:
    problem = acoustic_problem(recorded(delay), start(), noise_std=NOISE, **SETTINGS)
    survey = problem.operator.survey
    truth = ricker(F, DT, survey.n_samples, delay=delay - problem.notes["modelled_from"])
    error = np.linalg.norm(survey.wavelet - truth) / np.linalg.norm(truth)
    assert error < 0.03
    assert "estimated by least squares from" in str(problem.notes["wavelet"])
    assert chi_square(problem) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("delay", [None, 0.03, 0.0, -0.02])
def test_a_ricker_wavelet_that_begins_early_is_not_cut_off(delay: float | None) -> None:
    true = 1.5 / F if delay is None else delay
    problem = acoustic_problem(
        recorded(true), start(), ricker=F, delay=delay, noise_std=NOISE, **SETTINGS
    )
    assert chi_square(problem) == pytest.approx(1, abs=0.05)
    assert float(problem.operator.survey.wavelet.max()) == pytest.approx(1, abs=1e-2)
    assert abs(problem.operator.survey.wavelet[0]) < 1e-6
    if delay is None:
        assert "modelled_from" not in problem.notes
        assert problem.data.shape[-1] == N
    else:
        assert problem.notes["wavelet"] == f"Ricker of 15 Hz, peak at {delay:g} s"


@pytest.mark.parametrize("first", [-20, 30])
def test_recordings_that_start_before_or_after_the_source(first: int) -> None:
    line = recorded(0.1, first=first)
    problem = acoustic_problem(line, start(), ricker=F, delay=0.1, noise_std=NOISE, **SETTINGS)
    assert chi_square(problem) == pytest.approx(1, abs=0.05)
    n_before = max(first, 0)
    assert not bool(problem.weights[..., :n_before].any())
    assert problem.data.shape[-1] == line.sizes["time"] + n_before


def test_wavelets_that_are_given() -> None:
    wave = ricker(F, DT, 101, delay=0.1)  # as of time zero
    line = recorded(0.1)
    one = acoustic_problem(line, start(), wavelet=wave, noise_std=NOISE, **SETTINGS)
    both = acoustic_problem(
        line, start(), wavelet=np.stack([wave, wave]), noise_std=NOISE, **SETTINGS
    )
    assert chi_square(one) == chi_square(both) == pytest.approx(1, abs=0.05)
    early = xr.DataArray(
        ricker(F, DT, 101, delay=0.1), {"time": DT * (np.arange(101) - 50)}, ("time",)
    )
    zero = acoustic_problem(recorded(0.0), start(), wavelet=early, noise_std=NOISE, **SETTINGS)
    assert chi_square(zero) == pytest.approx(1, abs=0.05)
    assert zero.notes["modelled_from"] == pytest.approx(-0.1)


def test_all_on_one_axis() -> None:
    """The wavelet and the data keep their times, whichever is first."""
    for first, begin in ((0, 0), (0, -3), (2, 0), (2, -3), (-4, 0), (-4, -3), (-2, -3)):
        arrays = {"time": (first + np.arange(8)) * DT, "pressure": np.zeros((1, 1, 8))}
        placed, n_before = on_one_axis(arrays, Wavelet(np.array([1.0, 2.0]), begin))
        origin = min(0, first, begin)
        assert n_before == first - origin
        assert len(placed["time"]) == 8 + n_before
        np.testing.assert_allclose(placed["time"], DT * np.arange(8 + n_before))
        assert list(np.flatnonzero(placed["wavelet"])) == [begin - origin, begin - origin + 1]


def test_a_line_without_waves_gives_no_wavelet_unsaid() -> None:
    line = recorded(0.1)
    line["pressure"].values[:] = np.random.default_rng(0).standard_normal(line["pressure"].shape)
    with pytest.warns(DataWarning, match="explains little of the data"):
        acoustic_problem(line, start(), **SETTINGS)


def test_a_wavelet_that_is_late_is_told() -> None:
    problem = acoustic_problem(
        recorded(0.1), start(), ricker=F, delay=0.072, noise_std=NOISE, **SETTINGS
    )
    told = {"noise_std": NOISE, "weights": problem.weights}
    with pytest.warns(DataWarning) as messages:
        notes = check_start(problem.operator, problem.start, problem.data, **told)
    assert any("All traces are 0.028 s later" in str(one.message) for one in messages)
    assert notes["wavelet_lag"] == pytest.approx(0.028, abs=DT)
    right = acoustic_problem(recorded(0.1), start(), ricker=F, noise_std=NOISE, **SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = check_start(right.operator, right.start, right.data, noise_std=NOISE)
    assert "wavelet_lag" not in notes


def test_positions_and_traces_are_the_same_with_an_estimated_wavelet() -> None:
    known = acoustic_problem(recorded(0.1), start(), ricker=F, noise_std=NOISE, **SETTINGS)
    found = acoustic_problem(recorded(0.1), start(), noise_std=NOISE, **SETTINGS)
    n_before = found.data.shape[-1] - N
    assert torch.equal(found.data[..., n_before:], known.data)
    assert torch.equal(found.weights[..., n_before:], known.weights)
    assert not bool(found.weights[..., :n_before].any())
    one, other = known.operator.survey, found.operator.survey
    assert replace(other, wavelet=one.wavelet) == one
