"""Wavelets of a line: given, of Ricker, or a pulse to estimate them with; and their time axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from invdiff.errors import InputError, ShapeError
from invdiff.operators.seismic.source import dominant_frequency
from invdiff.operators.seismic.survey import ricker as ricker_wavelet
from invdiff.operators.seismic.survey import uniform_step

__all__ = ["Wavelet", "chosen_wavelet", "on_one_axis", "pulse", "sampling"]

Arrays = Mapping[str, NDArray[Any]]

_HALF = 1.5  # periods from the start of a Ricker wavelet, at 1e-8, to its peak


class Wavelet(NamedTuple):
    """A wavelet on the step of the data.

    Attributes:
        values: ``(n,)`` or ``(shot, n)``.
        first: Time of its first sample, in samples from time zero; negative before it.
        note: What it is, for the attributes of the result; empty where the line has it.
    """

    values: NDArray[np.floating[Any]]
    first: int = 0
    note: str = ""


def sampling(time: NDArray[Any]) -> tuple[float, int]:
    """The step of a time axis, s, and the time of its first sample in steps.

    Raises:
        ShapeError: No axis.
        InputError: Times that are not uniform, or do not pass through zero.
    """
    time = np.asarray(time)
    if time.ndim != 1 or len(time) < 2 or time[0] == 0:
        return uniform_step(time), 0
    step = uniform_step(time - time[0])
    first = float(time[0]) / step
    if abs(first - round(first)) > 1e-3:
        raise InputError(
            "the recording starts between two samples",
            got=f"{time[0]:g} s, steps of {step:g} s",
            expected="a whole number of steps from the time of the source, zero",
            hint="Resample the data onto multiples of their step.",
        )
    return step, round(first)


def chosen_wavelet(
    arrays: Arrays, wavelet: Any, *, ricker: float | None, delay: float | None
) -> Wavelet | None:
    """The wavelet of the line, the one given, or that of Ricker; None where there is none.

    Args:
        arrays: Those of the line, ``time`` among them.
        wavelet: Amplitudes ``(n,)`` or ``(shot, n)`` from time zero on, or a DataArray with its
            coordinate ``time``.
        ricker: Peak frequency, Hz.
        delay: Time of the peak of the Ricker wavelet, s.

    Raises:
        InputError: More than one, a delay alone, or another step than that of the data.
        ShapeError: A wavelet of other dims.
    """
    dt, first = sampling(arrays.get("time", np.zeros(0)))
    names = ["ricker"] * (ricker is not None) + ["wavelet"] * (wavelet is not None)
    said = f"ricker={ricker:g}" if ricker is not None else "wavelet=..."
    if "wavelet" in arrays and names:
        raise InputError(
            "the line has a wavelet already",
            got=f"{said}, and 'wavelet' in the line",
            expected="one of them",
            hint=f"Leave out {names[0]}=..., or drop the wavelet of the line.",
        )
    if len(names) > 1:
        raise InputError(
            "two wavelets are given", got="ricker=... and wavelet=...", expected="one of them"
        )
    if delay is not None and ricker is None:
        raise InputError(
            "the delay is that of a Ricker wavelet",
            got="delay=... without ricker=...",
            expected="both, or none",
            hint="Give the peak frequency: ricker=....",
        )
    if "wavelet" in arrays:
        return Wavelet(np.asarray(arrays["wavelet"]), first)
    if wavelet is not None:
        return _given(wavelet, dt)
    return None if ricker is None else _of_ricker(ricker, delay, dt, n=len(arrays["time"]))


def pulse(arrays: Arrays) -> tuple[Wavelet, float]:
    """A pulse from which a wavelet of the band of the data can be made, and the filter's length, s.

    A Ricker wavelet of twice their dominant frequency ``f``. It starts at ``-1.5 / f``, since a
    wavelet of zero phase does, and the filter ends 3 periods after time zero.
    """
    dt, _ = sampling(arrays.get("time", np.zeros(0)))
    traces = np.nan_to_num(np.asarray(arrays["pressure"], np.float32), posinf=0.0, neginf=0.0)
    n = traces.shape[-1]
    frequency = max(dominant_frequency(traces, dt), 2 * _HALF / (n * dt))
    above = min(2 * frequency, 0.2 / dt)
    lead = round(_HALF / frequency / dt)
    values = ricker_wavelet(above, dt, max(2, round(2 * _HALF / above / dt) + 1))
    return Wavelet(values, -lead), lead * dt + 3 / frequency


def on_one_axis(arrays: Arrays, wavelet: Wavelet) -> tuple[dict[str, NDArray[Any]], int]:
    """The arrays of a survey whose time axis holds the recording and the whole wavelet.

    It starts at the earliest of time zero, the first sample of the wavelet and that of the data.

    Returns:
        The arrays without the traces; and the number of samples before the first of the data, at
        which nothing was recorded.
    """
    dt, first = sampling(arrays.get("time", np.zeros(0)))
    start = min(0, first, wavelet.first)
    n_before = first - start
    n, at = len(arrays["time"]) + n_before, wavelet.first - start
    values = np.zeros((*wavelet.values.shape[:-1], n))
    # What is emitted after the end of the recording is not in the data.
    within = wavelet.values[..., : max(n - at, 0)]
    values[..., at : at + within.shape[-1]] = within
    time = arrays["time"] if start == first == 0 else np.arange(n) * dt
    others = {name: values for name, values in arrays.items() if name != "pressure"}
    return others | {"time": time, "wavelet": values}, n_before


def _given(wavelet: Any, dt: float) -> Wavelet:
    """A wavelet from its first sample on, at time zero unless its coordinate says otherwise."""
    first = 0
    if hasattr(wavelet, "dims"):
        if wavelet.dims not in (("time",), ("shot", "time")):
            raise ShapeError("the wavelet has other dims", got=wavelet.dims, expected="('time',)")
        if "time" in wavelet.coords:
            step, first = sampling(wavelet["time"].values)
            if abs(step - dt) > 1e-3 * dt:
                raise InputError(
                    "wavelet and data have different steps",
                    got=f"{step:g} s and {dt:g} s",
                    expected="the same",
                    hint="Resample the wavelet to the step of the data.",
                )
        wavelet = wavelet.values
    values = np.asarray(wavelet)
    if values.ndim not in (1, 2):
        raise ShapeError(
            "this is not a wavelet", got=f"shape {values.shape}", expected="(n,) or (shot, n)"
        )
    return Wavelet(values, first, "given")


def _of_ricker(frequency: float, delay: float | None, dt: float, *, n: int) -> Wavelet:
    """A Ricker wavelet; one that peaks early starts before time zero."""
    if delay is None:
        return Wavelet(ricker_wavelet(frequency, dt, n), 0, f"Ricker of {frequency:g} Hz")
    lead = max(0, int(np.ceil((_HALF / frequency - delay) / dt))) if frequency > 0 else 0
    values = ricker_wavelet(frequency, dt, n + lead, delay=delay + lead * dt)
    return Wavelet(values, -lead, f"Ricker of {frequency:g} Hz, peak at {delay:g} s")
