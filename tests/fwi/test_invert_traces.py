"""Weights of traces: against the errors they stand for."""

import numpy as np
import pytest
import xarray as xr

from invdiff.errors import InputError
from invdiff.fwi import amplitude_weights

NOISE = 0.1


def tones() -> xr.DataArray:
    """A loud trace, a quiet one and none, of 20 Hz at 1 kHz: their envelope is constant."""
    time = np.arange(400) * 1e-3
    wave = np.sin(2 * np.pi * 20 * time)
    traces = np.stack([100.0 * wave, NOISE * wave, 0 * wave])[None]
    return xr.DataArray(traces, {"time": time}, ("shot", "receiver", "time"), "pressure")


def test_weights_are_noise_over_the_error_of_a_sample() -> None:
    weights = amplitude_weights(tones(), NOISE, relative=0.05)
    expected = NOISE / np.sqrt(NOISE**2 + (0.05 * np.array([100.0, NOISE, 0.0])) ** 2)
    assert weights.dims == ("shot", "receiver", "time")
    np.testing.assert_allclose(weights, np.tile(expected[None, :, None], (1, 1, 400)), rtol=1e-5)


def test_traces_with_such_errors_have_a_chi_square_of_one() -> None:
    """Weighted residuals over the noise are standard normal: their variance to 3 / sqrt(n / 2)."""
    y = tones().isel(receiver=[0, 1]).isel(time=np.zeros(20000, int) + 12)  # the same amplitude
    y = y.assign_coords(time=np.arange(20000) * 1e-3)
    amplitude = np.array([100.0, NOISE])[None, :, None]
    std = np.sqrt(NOISE**2 + (0.05 * amplitude) ** 2)
    error = std * np.random.default_rng(0).standard_normal(y.shape)
    constant = y.copy(data=np.broadcast_to(amplitude, y.shape))  # its envelope is itself
    residual = amplitude_weights(constant, NOISE, relative=0.05) * error / NOISE
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
    with pytest.raises(InputError, match="no weights by amplitude"):
        amplitude_weights(tones(), given.pop("noise_std"), **given)
