"""Diagnostics of traces: cycle skipping and data fit."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar

from invdiff.arguments import as_number
from invdiff.errors import InputError, NoiseLevelError, ShapeError
from invdiff.fwi.diagnose._labels import aligned, matched
from invdiff.fwi.misfit import lowpass
from invdiff.traces import local_power

__all__ = ["cycle_skipping", "data_fit", "relative_error"]

TRACES = ("shot", "receiver", "time")


def cycle_skipping(
    predicted: xr.DataArray, observed: xr.DataArray, *, dt: float, frequency: float
) -> xr.Dataset:
    r"""Find traces that are off by more than half a period: least squares leads to a wrong cycle.

    The lag of a trace is where the cross-correlation of the low-passed pair is highest,
    :math:`\arg\max_\tau \int p(t + \tau) d(t) dt`; it is positive where the prediction is late.
    The strongest arrival decides: mute the direct wave to evaluate later arrivals. Cost: a few FFTs
    per trace.

    Args:
        predicted: The predicted traces ``(shot, receiver, time)``, such as those of the starting
            model.
        observed: The observed traces, on the same labels.
        dt: The sampling interval in s.
        frequency: The corner of the low-pass filter in Hz, that of the band about to be inverted.

    Returns:
        ``lag(shot, receiver)`` in s and ``correlation`` there, between -1 and 1, both NaN for dead
        traces; ``is_skipped(shot, receiver)``; the ``fraction`` of live traces that are skipped,
        and ``energy_fraction``, the same weighted by observed energy. Attributes: ``verdict``, a
        sentence, and ``half_period`` in s.

    Raises:
        ShapeError: Dims or labels do not match.
        NonFiniteError: NaN or Inf in the traces.
        InputError: A frequency that the sampling cannot hold, a ``dt`` other than the interval of
            the labels of ``time``, or dead traces alone.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.fwi.diagnose import cycle_skipping
        >>> t = np.arange(400) * 0.002
        >>> pulse = np.exp(-(((t - 0.3) / 0.02) ** 2))[None, None]
        >>> observed = xr.DataArray(pulse, dims=("shot", "receiver", "time"))
        >>> late = observed.roll(time=100)  # by 0.2 s
        >>> print(cycle_skipping(late, observed, dt=0.002, frequency=10.0).attrs["verdict"])
        Cycle-skipped: 100% of the traces with 100% of the energy are off by more than half a
        period (0.05 s) at 10 Hz; start lower in frequency, ...
    """
    predicted, observed = matched(predicted, observed, TRACES)
    _check_interval(observed, dt)
    n = observed.sizes["time"]
    p, d = (lowpass(field.values.astype(float), frequency, dt) for field in (predicted, observed))
    half_period = 0.5 / frequency
    # As many zeros as samples, so that the correlation does not wrap around.
    spectra = [np.fft.rfft(traces, 2 * n) for traces in (p, d)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj(), 2 * n)
    best = correlation.argmax(-1)
    energy, norm = (d**2).sum(-1), np.sqrt((p**2).sum(-1) * (d**2).sum(-1))
    lives = norm > 0
    if not lives.any():
        raise InputError(
            "there is no live trace to evaluate",
            got="dead traces alone",
            expected="live traces",
            hint="Check mutes and weights.",
        )
    peak = correlation.max(-1) / np.where(lives, norm, 1)
    lag = np.where(lives, np.where(best < n, best, best - 2 * n) * dt, np.nan)
    skipped = lives & (np.abs(lag) > half_period)
    fraction = float(skipped.sum() / lives.sum())
    energy_fraction = float(energy[skipped].sum() / energy[lives].sum())
    dims = TRACES[:2]
    result = xr.Dataset(
        {
            "lag": (dims, lag, {"units": "s", "long_name": "lag of the prediction"}),
            "correlation": (dims, np.where(lives, peak, np.nan), {"units": "1"}),
            "is_skipped": (dims, skipped),
            "fraction": ((), fraction, {"units": "1"}),
            "energy_fraction": ((), energy_fraction, {"units": "1"}),
        },
        coords={name: observed[name] for name in dims if name in observed.coords},
    )
    sentence = _verdict(fraction, energy_fraction, frequency, half_period=half_period)
    return result.assign_attrs(verdict=sentence, half_period=half_period, frequency=frequency)


def data_fit(
    predicted: xr.DataArray, observed: xr.DataArray, *, noise_std: float | xr.DataArray
) -> xr.Dataset:
    r"""How well traces are explained, in total, by shot and by receiver.

    :math:`\chi^2/n = \mathrm{mean}\, |p - d|^2 / s^2` is 1 where the prediction is right up to
    the noise, more where signal is left, less where noise was fitted; ``rel_l2`` is
    :math:`|p-d|/|d|`.

    Args:
        predicted: The predicted traces ``(shot, receiver, time)``.
        observed: The observed traces, on the same labels.
        noise_std: The standard deviation of the noise in units of the traces: a number, or values
            by shot, receiver or both.

    Returns:
        ``chi2``, ``chi2_shot(shot)``, ``chi2_receiver(receiver)``, and ``rel_l2`` in the same three
        forms, NaN where nothing was observed.

    Raises:
        ShapeError: Dims or labels of the traces or the noise do not match.
        NonFiniteError: NaN or Inf in the traces.
        NoiseLevelError: A noise level is not finite and positive.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.fwi.diagnose import data_fit
        >>> dims = ("shot", "receiver", "time")
        >>> predicted = xr.DataArray(np.ones((2, 3, 50)), dims=dims)
        >>> fit = data_fit(predicted, predicted + 0.2, noise_std=0.1)
        >>> round(float(fit["chi2"]), 3), fit["chi2_shot"].values.round(3)
        (4.0, array([4., 4.]))
    """
    predicted, observed = matched(predicted, observed, TRACES)
    level = xr.DataArray(noise_std)
    if not set(level.dims) <= set(TRACES):
        raise ShapeError(
            "the noise level has dims that the traces lack",
            got=level.dims,
            expected=f"some of {TRACES}",
        )
    _, level = aligned(observed, level)
    if not bool(((level > 0) & np.isfinite(level)).all()):
        raise NoiseLevelError(
            "the noise level is not positive", got=noise_std, expected="finite, > 0"
        )
    predicted, observed = predicted.astype(float), observed.astype(float)
    residual = predicted - observed
    chi2 = ((residual / level) ** 2).transpose(*TRACES)
    fit = xr.Dataset()
    for suffix, dims in {
        "": TRACES,
        "_shot": ("receiver", "time"),
        "_receiver": ("shot", "time"),
    }.items():
        energy = (observed**2).sum(dims)
        fit["chi2" + suffix] = chi2.mean(dims)
        fit["rel_l2" + suffix] = ((residual**2).sum(dims) / energy.where(energy > 0)) ** 0.5
    for field in fit.values():
        field.attrs = {"units": "1"}
    return fit


def relative_error(
    predicted: xr.DataArray,
    observed: xr.DataArray,
    *,
    noise_std: float,
    weights: xr.DataArray | None = None,
    window: float = 0.1,
) -> float:
    r"""Error of the modelling as a share of the amplitude, learned from the residual of a fit.

    The :math:`r` of maximum likelihood where a residual has the variance
    :math:`\sigma^2 + (r e)^2`, with the amplitude :math:`e` of `invdiff.fwi.amplitude_weights`::

        argmin_r sum_i log(s^2 + r^2 e_i^2) + (p_i - d_i)^2 / (s^2 + r^2 e_i^2)

    Weights made with it, and a second inversion with these, take errors for what they are that a
    first inversion had to explain by the model: of density, attenuation or the wavelet. It is a
    lower bound: errors that the fit has followed are not in its residual.

    Args:
        predicted: The traces ``(shot, receiver, time)`` that the fit predicts.
        observed: The observed traces, on the same labels, ``time`` in s.
        noise_std: The standard deviation of the noise in units of the traces.
        weights: Weights over any dims of the traces; samples where they are 0 do not count.
        window: Length of the window of the amplitude, s.

    Returns:
        The share, between 1e-4 and 10; 0 where the noise alone explains the residual.

    Raises:
        ShapeError: Dims or labels do not match.
        NonFiniteError: NaN or Inf in the traces.
        NoiseLevelError: The noise level is not finite and positive.
        InputError: Weights that leave no data, or no label of ``time``.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.fwi.diagnose import relative_error
        >>> time = np.arange(4000) * 1e-3
        >>> wave, turned = (f(200 * time) * np.exp(-time) for f in (np.sin, np.cos))
        >>> dims = ("shot", "receiver", "time")
        >>> observed = xr.DataArray(wave[None, None], {"time": time}, dims)
        >>> predicted = observed + 0.1 * turned  # a little early
        >>> round(relative_error(predicted, observed, noise_std=1e-3), 2)
        0.07
    """
    predicted, observed = matched(predicted, observed, TRACES)
    if not (np.isfinite(noise_std) and noise_std > 0):
        raise NoiseLevelError(
            "the noise level is not positive", got=noise_std, expected="finite, > 0"
        )
    time = _times(observed)
    counted = np.ones(observed.shape, bool)
    if weights is not None:
        _, weights = aligned(observed, weights)
        counted = (weights != 0).broadcast_like(observed).transpose(*TRACES).values
    if not counted.any():
        raise InputError("the weights leave no data", got="all 0", expected="some that are not")
    dt = (time[-1] - time[0]) / (len(time) - 1)
    power = local_power(observed.values, dt=dt, window=as_number("window", window))
    power = power[counted] / noise_std**2
    residual = (predicted - observed).values.astype(float)
    squares = (residual[counted] / noise_std) ** 2

    def deviance(log_share: float) -> float:
        variance = 1 + np.exp(2 * log_share) * power
        return float(np.mean(np.log(variance) + squares / variance))

    least, most = np.log(1e-4), np.log(10.0)
    # The deviance of small shares is flat: bracket the minimum on a grid first.
    grid = np.linspace(least, most, 47)
    best = int(np.argmin([deviance(share) for share in grid]))
    if best == 0:
        return 0.0
    bounds = grid[best - 1], grid[min(best + 1, len(grid) - 1)]
    return float(np.exp(minimize_scalar(deviance, bounds=bounds, method="bounded").x))


def _times(traces: xr.DataArray) -> np.ndarray:
    if "time" not in traces.coords or traces.sizes["time"] < 2:
        raise InputError(
            "the traces have no times",
            got=f"coordinates {[str(name) for name in traces.coords]}",
            expected="a coordinate time in s, two samples or more",
        )
    return np.asarray(traces["time"].values, float)


def _verdict(
    fraction: float, energy_fraction: float, frequency: float, *, half_period: float
) -> str:
    share = f"{fraction:.0%} of the traces with {energy_fraction:.0%} of the energy"
    limit = f"half a period ({half_period:.3g} s) at {frequency:g} Hz"
    if fraction == 0:
        return f"Not cycle-skipped: no trace is off by more than {limit}."
    advice = "start lower in frequency, from a better model, or with Envelope or Wasserstein"
    return f"Cycle-skipped: {share} are off by more than {limit}; {advice}."


def _check_interval(traces: xr.DataArray, dt: float) -> None:
    if "time" not in traces.coords or traces.sizes["time"] < 2:
        return
    intervals = np.diff(traces["time"].values)
    if not np.allclose(intervals, dt, rtol=1e-3, atol=0):
        raise InputError(
            "dt is not the interval of the labels of time",
            got=f"dt={dt}, labels {intervals.min():g} to {intervals.max():g} apart",
            expected="the same interval, in s",
        )
