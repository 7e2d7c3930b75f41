"""Weights of traces: against the errors they stand for."""

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import invert
from invdiff.errors import DataWarning, InputError, NonFiniteError
from invdiff.fwi import LBFGS, amplitude_weights, live_traces
from invdiff.protocols import Problem
from tests.support.linear_waves import waves_problem

NOISE = 0.1


def tones(n: int = 400) -> xr.DataArray:
    """A loud trace, a quiet and a silent one of 20 Hz at 1 kHz: their envelope is constant."""
    time = np.arange(n) * 1e-3
    wave = np.sin(2 * np.pi * 20 * time)
    traces = np.stack([100.0 * wave, NOISE * wave, 1e-9 * wave])[None]
    return xr.DataArray(traces, {"time": time}, ("shot", "receiver", "time"), "pressure")


def test_weights_are_noise_over_the_error_of_a_sample() -> None:
    weights = amplitude_weights(tones(), NOISE, relative=0.05)
    expected = NOISE / np.sqrt(NOISE**2 + (0.05 * np.array([100.0, NOISE, 0.0])) ** 2)
    assert weights.dims == ("shot", "receiver", "time")
    np.testing.assert_allclose(weights, np.tile(expected[None, :, None], (1, 1, 400)), rtol=1e-5)


def test_traces_with_such_errors_have_a_chi_square_of_one() -> None:
    """Weighted residuals over the noise are standard normal: their variance to 3 / sqrt(n / 2)."""
    y = tones(n=20_000).isel(receiver=[0, 1])
    amplitude = np.array([100.0, NOISE])[None, :, None]
    std = np.sqrt(NOISE**2 + (0.05 * amplitude) ** 2)
    error = std * np.random.default_rng(0).standard_normal(y.shape)
    residual = amplitude_weights(y, NOISE, relative=0.05) * error / NOISE
    np.testing.assert_allclose(residual.var("time"), 1.0, atol=3 / 10000**0.5)


def test_the_window_smooths_the_amplitude() -> None:
    y = tones()
    y[0, 0, 200:] = 0
    narrow, wide = (amplitude_weights(y, NOISE, window=w)[0, 0] for w in (0.001, 0.2))
    assert float(narrow[250]) > 2 * float(wide[250])


def test_no_relative_error_weights_all_alike() -> None:
    np.testing.assert_array_equal(amplitude_weights(tones(), NOISE, relative=0.0), 1.0)


@pytest.mark.parametrize(
    "settings", [{"noise_std": 0.0}, {"relative": -0.1}, {"window": 0.0}, {"noise_std": np.nan}]
)
def test_numbers_that_make_no_weights_are_refused(settings: dict[str, float]) -> None:
    given = {"noise_std": NOISE} | settings
    with pytest.raises(InputError, match="weights by amplitude"):
        amplitude_weights(tones(), given.pop("noise_std"), **given)


# ---------------------------------------------------------------- dead traces


def recorded() -> xr.DataArray:
    """Two shots of five receivers, 40 samples, all live."""
    values = np.random.default_rng(1).standard_normal((2, 5, 40))
    return xr.DataArray(values, {"time": np.arange(40) * 1e-3}, ("shot", "receiver", "time"))


DEAD = {"zero": 0.0, "constant": -3.5, "NaN": np.nan}


@pytest.mark.parametrize("value", DEAD.values(), ids=DEAD)
def test_dead_traces_have_no_weight_and_are_told(value: float) -> None:
    y = recorded()
    y[1, [0, 3]] = value
    with pytest.warns(DataWarning, match=r"2 of 10 traces are dead \(2 of shot 1\)"):
        live, weights, notes = live_traces(y)
    expected = np.ones((2, 5, 40))
    expected[1, [0, 3]] = 0
    np.testing.assert_array_equal(weights, expected)
    np.testing.assert_array_equal(live, np.where(expected, y, 0))
    assert notes == {"dead_traces": 2}
    with pytest.warns(DataWarning):
        by_amplitude = amplitude_weights(y, NOISE)
    assert bool((by_amplitude == 0).equals(weights == 0))
    np.testing.assert_array_equal(by_amplitude[0], amplitude_weights(recorded(), NOISE)[0])


def test_nan_at_the_end_of_a_trace_is_padding() -> None:
    y = recorded()
    y[0, 2, 30:] = np.nan
    with pytest.warns(DataWarning, match="10 samples at the ends of traces are NaN"):
        live, weights, notes = live_traces(y.transpose("time", "shot", "receiver"))
    np.testing.assert_array_equal(weights, np.isfinite(y))
    np.testing.assert_array_equal(live, y.fillna(0))
    assert notes == {"padded_samples": 10}


def test_what_weights_leave_out_is_not_told_again() -> None:
    y = recorded()
    y[:, 4] = 0
    mute = xr.DataArray(np.array([1.0, 0.5, 1, 1, 0]), dims="receiver")
    _, weights, notes = live_traces(y, mute)
    np.testing.assert_array_equal(weights, np.broadcast_to(mute.values[None, :, None], y.shape))
    assert notes == {}


def test_live_traces_are_left_alone() -> None:
    y, mute = recorded(), xr.DataArray(np.ones(5), dims="receiver")
    live, weights, notes = live_traces(y, mute)
    xr.testing.assert_identical(live, y)
    xr.testing.assert_identical(weights, mute)
    assert notes == {}
    assert live_traces(y)[1] is None


@pytest.mark.parametrize(
    ("place", "value", "error", "match"),
    [
        ((0, 1, 3), np.inf, NonFiniteError, "Inf"),
        ((0, 1, slice(10)), np.nan, NonFiniteError, r"first at \(0, 1\)"),
        ((0, 1, 20), np.nan, NonFiniteError, "1 of 10 traces with numbers after a NaN"),
        ((slice(None), slice(None), slice(None)), 0.0, InputError, "all traces are dead"),
    ],
)
def test_gaps_and_infinite_samples_are_refused(
    place: tuple[object, ...], value: float, error: type[InputError], match: str
) -> None:
    y = recorded()
    y[place] = value
    with pytest.raises(error, match=match):
        live_traces(y)


# ---------------------------------------------------------------- in the verb


@pytest.mark.parametrize("value", DEAD.values(), ids=DEAD)
def test_an_inversion_is_that_of_the_live_traces(value: float) -> None:
    """Bits of a run in which weights leave out what was dead or padded."""
    waves = waves_problem(n_shots=3)
    settings = {"start": waves.start, "seed": 0, "realizations": 2, "method": LBFGS(4)}
    keep = xr.ones_like(waves.y.drop_attrs())
    keep[0, 2], keep[1], keep[2, 3, 6:] = 0, 0, 0
    expected = invert(waves.y, waves.operator, weights=keep, **settings)
    spoiled = waves.y.copy(deep=True)
    spoiled[0, 2], spoiled[1], spoiled[2, 3, 6:] = value, value, np.nan
    with pytest.warns(DataWarning, match=r"7 of 18 traces are dead \(1 of shot 0, 6 of shot 1\)"):
        found = invert(spoiled, waves.operator, **settings)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert found.attrs["invdiff_dead_traces"] == 7
    assert found.attrs["invdiff_padded_samples"] == 4


def test_dead_traces_of_a_problem_are_left_out_too() -> None:
    """A Problem that a user made: those of a builder have weights already."""
    waves = waves_problem(n_shots=3)
    settings = {"seed": 0, "realizations": 1, "method": LBFGS(4)}
    keep = xr.ones_like(waves.y.drop_attrs())
    keep[0, 2], keep[1] = 0, 0
    expected = invert(waves.y, waves.operator, start=waves.start, weights=keep, **settings)
    data = torch.from_numpy(np.where(keep.values == 0, 0.0, waves.y.values))
    start = torch.from_numpy(waves.start.values)
    problem = Problem(waves.operator, data, waves.y.attrs["noise_std"], start=start)
    with pytest.warns(DataWarning, match="7 of 18 traces are dead"):
        found = invert(problem, **settings)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert found.attrs["invdiff_dead_traces"] == 7
