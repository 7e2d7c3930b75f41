"""Zero-phase filters of traces and wavelets, differentiable by torch."""

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
    """Remove the frequencies above a corner.

    The response :math:`1 / (1 + (f / f_c)^{2n})` is that of a Butterworth filter of order ``n`` run
    forward and backward: one half at the corner :math:`f_c`, without phase. It is applied by FFT to
    traces that are zero before and after, and cut to the given samples, which makes it a symmetric
    linear map. Cost: two FFTs of twice the samples per trace.

    Args:
        traces: Real traces or wavelets, ``(..., time)``, of torch or numpy.
        frequency: The corner in Hz, where the amplitude is halved.
        dt: The sampling interval in s.
        order: The order of the Butterworth filter; the slope is ``12 order`` dB per octave.

    Returns:
        The filtered traces, with the dtype and shape of ``traces``.

    Raises:
        InputError: The frequency, interval or order is not positive, or the frequency is above the
            Nyquist frequency.

    Examples:
        >>> import numpy as np
        >>> from invdiff.fwi.misfit import lowpass
        >>> t = np.arange(400) * 0.005
        >>> traces = np.sin(2 * np.pi * 5 * t) + np.sin(2 * np.pi * 40 * t)
        >>> filtered = lowpass(traces, 15.0, dt=0.005)
        >>> error = filtered - np.sin(2 * np.pi * 5 * t)
        >>> bool(np.abs(error[50:-50]).max() < 0.01)  # the 40 Hz are gone
        True
    """
    return bandpass(traces, 0.0, frequency, dt=dt, order=order)


def bandpass(traces: Traces, low: float, high: float, *, dt: float, order: int = 4) -> Traces:
    """Keep the frequencies between two corners.

    The response is that of :func:`lowpass` at the upper corner times one minus that at the lower.

    Args:
        traces: Real traces or wavelets, ``(..., time)``, of torch or numpy.
        low: The lower corner in Hz; 0 for none.
        high: The upper corner in Hz.
        dt: The sampling interval in s.
        order: The order of both Butterworth filters.

    Returns:
        The filtered traces, with the dtype and shape of ``traces``.

    Raises:
        InputError: As :func:`lowpass`, or the corners are not in increasing order.

    Examples:
        >>> import numpy as np
        >>> from invdiff.fwi.misfit import bandpass
        >>> constant = np.ones(200)
        >>> filtered = bandpass(constant, 5.0, 30.0, dt=0.005)
        >>> bool(abs(filtered[100]) < 0.01)
        True
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
    # As many zeros as samples, so that nothing wraps around from one end to the other.
    f = torch.fft.rfftfreq(2 * n, dt, dtype=torch.float64, device=traces.device)
    response = 1 / (1 + (f / high) ** (2 * order))
    if low > 0:
        response = response * (1 - 1 / (1 + (f / low) ** (2 * order)))
    spectrum = torch.fft.rfft(traces, 2 * n)
    filtered: Tensor = torch.fft.irfft(spectrum * response.to(traces.dtype), 2 * n)[..., :n]
    return filtered


def check_band(low: float, high: float, *, dt: float, order: int) -> None:
    """Check that traces sampled at ``dt`` can hold a frequency band.

    Raises:
        InputError: They cannot.
    """
    check_positive(dt, "the sampling interval dt")
    nyquist = 0.5 / dt
    if not 0 <= low < high < nyquist:
        raise InputError(
            "the frequency band is out of range",
            got=f"{low} to {high} Hz at dt={dt} s",
            expected=f"0 <= low < high < {nyquist:g} Hz, half the sampling rate",
            hint="Frequencies are in Hz, dt in s (not ms).",
        )
    if order < 1 or order != int(order):
        raise InputError("the filter order is out of range", got=order, expected="an integer >= 1")
