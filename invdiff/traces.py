"""Weights of seismic traces as plain arrays: dead traces, near offsets, large amplitudes."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import DataWarning, InputError, NonFiniteError

__all__ = ["LiveTraces", "amplitude_weights", "is_far", "live_traces", "local_power"]

Floats = NDArray[np.floating[Any]]


class LiveTraces(NamedTuple):
    """Traces whose dead samples have no weight.

    Attributes:
        values: Traces ``(shot, receiver, time)``; samples that were left out are zero.
        weights: Weights, broadcastable to the traces, 0 for what was left out; None if nothing was.
        notes: How many traces and samples were left out, such as ``{"dead_traces": 3}``.
    """

    values: Floats
    weights: Floats | None
    notes: dict[str, int]


def live_traces(traces: Floats, weights: Floats | None = None) -> LiveTraces:
    """Give weight zero to traces and samples that were not recorded, and warn of them.

    A trace is dead if all of its samples are equal, zero for instance, or NaN. NaN at the end of a
    live trace is padding. Counted as data they would require a model that sends no waves there.

    Args:
        traces: Traces ``(shot, receiver, time)``, float32 or float64.
        weights: Weights, broadcastable to ``traces``; what they already leave out is not reported.

    Raises:
        NonFiniteError: There is Inf, or NaN that is followed by numbers.
        InputError: All traces are dead.

    Warns:
        DataWarning: Traces or samples were left out; the message gives their number.

    >>> traces = np.array([[[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [5.0, 4.0, np.nan]]])
    >>> with warnings.catch_warnings(action="ignore"):
    ...     live = live_traces(traces)
    >>> live.weights
    array([[[1., 1., 1.],
            [0., 0., 0.],
            [1., 1., 0.]]])
    >>> live.notes
    {'dead_traces': 1, 'padded_samples': 1}
    """
    is_number = ~np.isnan(traces)
    _check_finite(traces, is_number)
    high = np.where(is_number, traces, -np.inf).max(-1)
    low = np.where(is_number, traces, np.inf).min(-1)
    is_dead = ~(high > low)
    is_live = is_number & ~is_dead[..., None]
    if not is_live.any():
        raise InputError(
            "all traces are dead",
            got=f"{is_dead.size} traces, each constant or NaN",
            expected="traces that recorded waves",
            hint="Check that the right variable was read, and its scale.",
        )
    if is_live.all():
        return LiveTraces(traces, weights, {})
    values = np.where(is_live, traces, 0).astype(traces.dtype)
    counts = np.ones((), traces.dtype) if weights is None else weights
    counted = np.broadcast_to(counts != 0, traces.shape)
    reported = is_dead & counted.any(-1)
    padded = counted & ~is_number & ~is_dead[..., None]
    notes = {"dead_traces": int(reported.sum()), "padded_samples": int(padded.sum())}
    notes = {name: n for name, n in notes.items() if n}
    if notes:
        warnings.warn(_message(reported, notes), DataWarning, stacklevel=3)
    return LiveTraces(values, counts * is_live, notes)


def amplitude_weights(
    live: LiveTraces, noise_std: float, *, dt: float, relative: float = 0.05, window: float = 0.1
) -> NDArray[np.float32]:
    """Weights for modelling errors that grow with the amplitude, of the shape of the traces.

    See `invdiff.fwi.amplitude_weights`, which takes labelled traces. They are multiplied by the
    weights of the live traces.

    Args:
        live: Traces ``(shot, receiver, time)`` and their weights.
        noise_std: Standard deviation of the noise of a sample, in the units of the traces.
        dt: Sampling interval, s.
        relative: Error of the modelling as a share of the amplitude.
        window: Length of the window over which the power is averaged, s.

    Raises:
        InputError: An error or the window is not positive.
    """
    if not (noise_std > 0 <= relative and window > 0):
        raise InputError(
            "the settings of weights by amplitude are out of range",
            got={"noise_std": noise_std, "relative": relative, "window": window},
            expected="noise_std > 0, relative >= 0, window > 0",
        )
    power = local_power(live.values, dt=dt, window=window)
    weights = 1 / np.sqrt(1 + power * (relative / noise_std) ** 2)
    weights = weights if live.weights is None else weights * live.weights
    return np.asarray(weights, np.float32)


def local_power(traces: Floats, *, dt: float, window: float) -> NDArray[np.float64]:
    """Mean square of the envelope over a moving window, of the shape of the traces.

    Args:
        traces: Traces with time as the last axis.
        dt: Sampling interval, s.
        window: Length of the window, s.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import hilbert

    squares = np.abs(hilbert(traces.astype(np.float64), axis=-1)) ** 2
    n = max(1, round(window / dt))
    return np.asarray(uniform_filter1d(squares, n, axis=-1, mode="nearest"))


def is_far(sources: Floats, receivers: Floats, offset: float) -> NDArray[np.bool_]:
    """Which traces ``(shot, receiver)`` are at least ``offset`` away from their source.

    Args:
        sources: Positions ``(shot, 2)``, m.
        receivers: Positions ``(receiver, 2)`` or ``(shot, receiver, 2)``, m.
        offset: Distance from the source, m.
    """
    distance = ((sources[:, None] - receivers) ** 2).sum(-1)
    return np.asarray(distance >= offset**2)


def _check_finite(traces: Floats, is_number: NDArray[np.bool_]) -> None:
    n_infinite = int(np.isinf(traces).sum())
    if n_infinite:
        raise NonFiniteError(
            "traces hold Inf",
            got=f"{n_infinite} of {traces.size} samples",
            expected="finite values",
            hint="Replace them, or set the whole trace to NaN to leave it out.",
        )
    length = is_number.sum(-1, keepdims=True)
    broken = (is_number != (np.arange(traces.shape[-1]) < length)).any(-1)
    if broken.any():
        raise NonFiniteError(
            "NaN within traces",
            got=f"{int(broken.sum())} of {broken.size} traces with numbers after a NaN, the first"
            f" at {tuple(np.argwhere(broken)[0].tolist())}",
            expected="NaN at the end of a trace only, or in all of it",
            hint="Interpolate the gaps, or set the whole trace to NaN to leave it out.",
        )


def _message(reported: NDArray[np.bool_], notes: dict[str, int]) -> str:
    parts = []
    if "dead_traces" in notes:
        shots, counts = np.unique(np.nonzero(reported)[0], return_counts=True)
        where = ", ".join(f"{n} of shot {s}" for s, n in zip(shots[:4], counts[:4], strict=True))
        where += ", ..." if len(shots) > 4 else ""
        parts.append(f"{notes['dead_traces']} of {reported.size} traces are dead ({where})")
    if "padded_samples" in notes:
        parts.append(f"{notes['padded_samples']} samples at the ends of traces are NaN")
    return f"{' and '.join(parts)}: they get weight zero and are left out of the misfit."
