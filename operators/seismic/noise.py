"""The noise level of seismic traces, from what they recorded before the first arrivals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import NoiseLevelError
from invdiff.operators.seismic.source import dominant_frequency
from invdiff.traces import LiveTraces

__all__ = ["NoiseEstimate", "noise_before_arrivals"]

Floats = NDArray[np.floating[Any]]

_LEAST = 100  # samples: the estimate is then good to 12 %
_ONSET = 5.0  # standard deviations that noise reaches once in two million samples
_SILENCE = 1e-5  # of the largest amplitude: below are rounding and dispersion, no noise
_MAD = 1.4826  # standard deviation of a normal variable over its median absolute value


class NoiseEstimate(NamedTuple):
    """A noise level, and the number of samples that it was estimated from."""

    std: float
    n_samples: int


def noise_before_arrivals(
    live: LiveTraces, offsets: NDArray[np.float64], *, time: Floats, v_max: float
) -> NoiseEstimate:
    r"""Standard deviation of the noise of a sample, from the samples before the first arrivals.

    No wave arrives before :math:`h / v_\max` at the offset :math:`h` if the source acts from time
    zero on. The level is :math:`1.4826\,\mathrm{median}|y|` over the samples before that in all
    live traces together; it is taken twice, the second time only up to a period before the first
    sample of a trace beyond five standard deviations, such as the onset of a wavelet that begins
    before time zero. The period is that of the dominant frequency. Zeros at the start of a trace
    are a mute and do not count.

    Assumptions: noise about zero, alike in all traces and at all times. Noise that depends on the
    trace, or that the source makes, is not seen. The relative standard error is
    :math:`1.17 / \sqrt n` for :math:`n` independent samples.

    Args:
        live: Traces ``(shot, receiver, time)`` and their weights.
        offsets: Distance of source and receiver, ``(shot, receiver)``, m.
        time: Of the samples, ``(time,)``, s; the source acts at zero.
        v_max: Highest velocity of a model, m/s.

    Raises:
        NoiseLevelError: Too few samples before the first arrivals, or no noise in them.

    >>> traces = np.random.default_rng(0).normal(0, 0.3, (1, 5, 400))
    >>> traces[..., 200:] += np.sin(np.arange(200))
    >>> live, time = LiveTraces(traces, None, {}), 2e-3 * np.arange(400)
    >>> found = noise_before_arrivals(live, np.full((1, 5), 1000.0), time=time, v_max=2500.0)
    >>> round(found.std, 2), found.n_samples
    (0.3, 1000)
    """
    traces = live.values
    usable = traces != 0
    usable = np.maximum.accumulate(usable, axis=-1)
    if live.weights is not None:
        usable = usable & (np.broadcast_to(live.weights, traces.shape) != 0)
    time = np.asarray(time, np.float64)
    before = usable & (time < offsets[..., None] / v_max)
    if not before.any() and (time < offsets[..., None] / v_max).any():
        raise _silence("zeros", float(np.abs(traces).max()))
    is_loud = np.abs(traces) > _ONSET * _std(traces, before)
    onset = np.where(is_loud.any(-1), time[is_loud.argmax(-1)], np.inf)
    dt = float(time[-1] - time[0]) / (len(time) - 1)
    quiet = before & (time < onset[..., None] - 1 / dominant_frequency(traces, dt))
    std, peak = _std(traces, quiet), float(np.abs(traces).max())
    if std <= _SILENCE * peak:
        raise _silence(f"{std:.3g} in {int(quiet.sum())} samples", peak)
    return NoiseEstimate(std, int(quiet.sum()))


def _silence(found: str, peak: float) -> NoiseLevelError:
    return NoiseLevelError(
        "no noise is found before the first arrivals",
        got=found,
        expected=f"more than {_SILENCE * peak:.3g}, {_SILENCE:g} of the largest amplitude",
        hint="For data without noise, or muted, give noise_std=..., the error of the modelling: a"
        " few percent of their standard deviation.",
    )


def _std(traces: Floats, chosen: NDArray[np.bool_]) -> float:
    n = int(chosen.sum())
    if n < _LEAST:
        raise NoiseLevelError(
            "too few samples before the first arrivals to estimate the noise",
            got=f"{n} that are not muted",
            expected=f"{_LEAST} or more",
            hint="Give noise_std=..., in the units of pressure: of data without noise the error of"
            " the modelling, a few percent of their standard deviation. A smaller highest"
            " velocity, bounds=(LOW, HIGH), leaves more samples.",
        )
    return float(_MAD * np.median(np.abs(traces[chosen])))
