r"""Zero-phase filters of traces and wavelets, differentiable by torch.

The response :math:`1 / (1 + (f / f_c)^{2n})` is that of a Butterworth filter of order ``n`` run
forward and backward: one half at the corner ``f_c``, no phase. It is applied by FFT to traces that
are zero before and after; cut to the samples given, that is a symmetric linear map.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invdiff.errors import InputError
from invdiff.fwi.misfit.base import check_positive

__all__ = ["bandpass", "check_band", "lowpass"]

Traces = TypeVar("Traces", Tensor, NDArray[np.floating])


def lowpass(traces: Traces, frequency: float, dt: float, *, order: int = 4) -> Traces:
    """Traces without what lies above a frequency.

    Args:
        traces: real, ``(..., time)``: data or wavelets, of torch or numpy.
        frequency: corner in Hz, where the amplitude is halved.
        dt: sampling interval in s.
        order: of the Butterworth filter; the slope is ``12 order`` dB an octave.

    Returns:
        As ``traces``, with its dtype and shape.

    Raises:
        InputError: a frequency, interval or order that is not positive, or a frequency that the
            sampling cannot hold.
    """
    return bandpass(traces, 0.0, frequency, dt=dt, order=order)


def bandpass(traces: Traces, low: float, high: float, *, dt: float, order: int = 4) -> Traces:
    """Traces between two frequencies.

    Args:
        traces: real, ``(..., time)``: data or wavelets, of torch or numpy.
        low: lower corner in Hz; 0 for none.
        high: upper corner in Hz.
        dt: sampling interval in s.
        order: of both Butterworth filters.

    Returns:
        As ``traces``, with its dtype and shape.

    Raises:
        InputError: as :func:`lowpass`, or corners that are not in order.
    """
    check_band(low, high, dt=dt, order=order)
    if isinstance(traces, Tensor):
        return _filtered(traces, low, high, dt=dt, order=order)
    filtered: NDArray[np.floating] = _filtered(
        torch.from_numpy(np.array(traces)), low, high, dt=dt, order=order
    ).numpy()
    return filtered


def _filtered(traces: Tensor, low: float, high: float, *, dt: float, order: int) -> Tensor:
    n = traces.shape[-1]
    # As many zeros as samples: what the filter smears over one end must not enter at the other.
    f = torch.fft.rfftfreq(2 * n, dt, dtype=torch.float64, device=traces.device)
    response = 1 / (1 + (f / high) ** (2 * order))
    if low > 0:
        response = response * (1 - 1 / (1 + (f / low) ** (2 * order)))
    spectrum = torch.fft.rfft(traces, 2 * n)
    filtered: Tensor = torch.fft.irfft(spectrum * response.to(traces.dtype), 2 * n)[..., :n]
    return filtered


def check_band(low: float, high: float, *, dt: float, order: int) -> None:
    """A band that traces sampled at ``dt`` can hold.

    Raises:
        InputError: it is none.
    """
    check_positive(dt, "sampling interval dt")
    nyquist = 0.5 / dt
    if not 0 <= low < high < nyquist:
        raise InputError(
            "no such frequency band",
            got=f"{low} to {high} Hz at dt={dt} s",
            expected=f"0 <= low < high < {nyquist:g} Hz, half the sampling rate",
            hint="Frequencies are in Hz, dt in s (not ms).",
        )
    if order < 1 or order != int(order):
        raise InputError("no such filter order", got=order, expected="a whole number >= 1")
