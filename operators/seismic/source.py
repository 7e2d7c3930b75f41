"""The wavelet of the source, estimated from the data by least squares."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invdiff.errors import DataWarning, InputError
from invdiff.operators.seismic.acoustic import Acoustic

__all__ = ["SourceEstimate", "dominant_frequency", "estimate_wavelet"]

Floats = NDArray[np.float64]

_RIDGE = 1e-4  # of the mean energy of the unknowns
_MOST_TRACES = 1000
_EXPLAINED = 0.5  # of the energy: below it a wavelet is doubtful


class SourceEstimate(NamedTuple):
    """A wavelet, and how well it explains the data.

    Attributes:
        wavelet: ``(n_samples,)`` on the time axis of the operator.
        explained: Share of the energy of the weighted traces that its prediction explains.
        n_traces: Number of traces that were fitted.
    """

    wavelet: Floats
    explained: float
    n_traces: int

    @property
    def verdict(self) -> str:
        """How it was found, in words."""
        return (
            f"estimated by least squares from {self.n_traces} traces, of whose energy it explains"
            f" {max(self.explained, 0):.0%}"
        )


def estimate_wavelet(
    operator: Acoustic, x: Tensor, y: Tensor, *, weights: Tensor | None = None, length: float
) -> SourceEstimate:
    r"""The source wavelet with which a model explains the data best.

    Waves are linear in their source: with the filter :math:`h` of the operator's own wavelet
    :math:`s` the data are :math:`h * p`, where :math:`p` is what the operator predicts. The filter

    .. math:: h = \arg\min \sum_i \|w_i (h * p_i - d_i)\|^2 + \varepsilon \|h\|^2

    over all traces :math:`i` has a closed form (Pratt 1999); here in time, for a filter that is
    causal and of limited length, which a division of spectra is not. The wavelet is :math:`h * s`.

    Assumptions: one source for all shots; a model that explains the arrivals that carry most of the
    energy. The wavelet takes up what the model does not explain alike in all traces, a time shift
    above all: a start that is too slow gives a wavelet that is too early. Amplitudes of source and
    receivers cannot be told apart. Cost: one solve per shot, and a least-squares problem of
    ``length`` unknowns. Of more than a thousand traces every n-th is fitted.

    Args:
        operator: With a guess of the wavelet: a short pulse whose band holds that of the data.
        x: Model ``(nz, nx)``, m/s.
        y: Data, on the operator's range.
        weights: Of the data, broadcastable to them; 0 leaves samples out.
        length: Of the filter, s.

    Raises:
        InputError: A length shorter than a sample, or data or prediction without energy.

    Warns:
        DataWarning: The prediction explains less than half of the energy.

    References:
        Pratt (1999), Seismic waveform inversion in the frequency domain, part 1, Geophysics 64(3),
        doi 10.1190/1.1444597

    >>> from invdiff import Grid
    >>> from invdiff.operators.seismic import Boundary, Survey, ricker
    >>> receivers = [(10.0, 20.0 * i) for i in range(11)]
    >>> axes = {dim: 10.0 * np.arange(21) for dim in ("z", "x")}
    >>> domain = Grid(("z", "x"), (21, 21), torch.float32, axes, "m s-1")
    >>> def waves(wavelet):
    ...     survey = Survey([(10.0, 100.0)], receivers, wavelet, 0.002)
    ...     return Acoustic(survey, domain, bounds=(1400.0, 3000.0), boundary=Boundary(10))
    >>> truth, guess = 3 * ricker(15.0, 0.002, 150, delay=0.12), ricker(30.0, 0.002, 150)
    >>> model = torch.full((21, 21), 2000.0)
    >>> data = waves(truth)(model[None])[0]
    >>> found = estimate_wavelet(waves(guess), model, data, length=0.2)
    >>> bool(np.abs(found.wavelet - truth).max() < 0.03 * 3), round(found.explained, 2)
    (True, 1.0)
    """
    survey = operator.survey
    n_taps = round(length / survey.dt)
    if not 1 <= n_taps <= survey.n_samples:
        raise InputError(
            "the length of the wavelet is out of range",
            got=f"{length:g} s",
            expected=f"from a sample, {survey.dt:g} s, to the data, {survey.duration:g} s",
        )
    with torch.no_grad():
        predicted = operator(x[None])[0].double().flatten(0, 1).numpy()
    w = np.ones(1) if weights is None else weights.double().expand(y.shape).flatten(0, 1).numpy()
    observed = y.double().flatten(0, 1).numpy()
    w = np.broadcast_to(w, observed.shape)
    live = np.flatnonzero((w * observed).any(-1) & predicted.any(-1))
    if not live.size:
        raise InputError(
            "no trace constrains the wavelet",
            got=f"{len(observed)} traces, without weight or without energy where waves are",
            expected="a live trace that the waves of the model reach",
            hint="Check positions and amplitudes, or give a wavelet.",
        )
    chosen = live[:: -(-len(live) // _MOST_TRACES)]
    p, d, w = predicted[chosen], observed[chosen], w[chosen]
    taps = _filter(p, d, w, n_taps)
    residual = w * (_convolved(p, taps) - d)
    guess = np.atleast_2d(survey.wavelet)[0]
    found = SourceEstimate(
        np.convolve(guess, taps)[: survey.n_samples],
        1 - float((residual**2).sum() / ((w * d) ** 2).sum()),
        len(chosen),
    )
    if found.explained < _EXPLAINED:
        warnings.warn(
            f"The wavelet was {found.verdict}: the model explains little of the data, or they are"
            " mostly noise. Give a wavelet, or start from a better model.",
            DataWarning,
            stacklevel=3,
        )
    return found


def dominant_frequency(traces: NDArray[np.floating], dt: float) -> float:
    """The frequency at which the mean amplitude spectrum of traces is highest, Hz.

    The spectrum is averaged over 2 Hz: noise has peaks, and a wavelet is broad.

    Args:
        traces: ``(..., time)``.
        dt: Sampling interval, s.

    >>> time = np.arange(500) * 2e-3
    >>> burst = np.sin(2 * np.pi * 20 * time) * np.exp(-(((time - 0.5) / 0.1) ** 2))
    >>> round(dominant_frequency(burst, 2e-3))
    20
    """
    from scipy.ndimage import uniform_filter1d

    n = traces.shape[-1]
    spectrum = np.abs(np.fft.rfft(traces, 2 * n, axis=-1)) ** 2
    power = spectrum.reshape(-1, spectrum.shape[-1]).mean(0)
    frequency = np.fft.rfftfreq(2 * n, dt)
    smooth = uniform_filter1d(power, max(1, round(4 * n * dt)), mode="nearest")  # 2 Hz
    return float(frequency[1:-1][smooth[1:-1].argmax()])


def _filter(p: Floats, d: Floats, w: Floats, n_taps: int) -> Floats:
    """The causal filter by its normal equations, trace by trace."""
    from scipy.linalg import solve

    normal, right = np.zeros((n_taps, n_taps)), np.zeros(n_taps)
    for predicted, observed, weight in zip(p, d, w, strict=True):
        columns = weight[:, None] * _delayed(predicted, n_taps)
        normal += columns.T @ columns
        right += columns.T @ (weight * observed)
    normal[np.diag_indices(n_taps)] += _RIDGE * np.trace(normal) / n_taps
    taps: Floats = solve(normal, right, assume_a="pos")
    return taps


def _delayed(trace: Floats, n_taps: int) -> Floats:
    """A trace, later by 0, 1, ... samples, ``(time, n_taps)``."""
    padded = np.concatenate([np.zeros(n_taps - 1), trace])
    return np.lib.stride_tricks.sliding_window_view(padded, n_taps)[:, ::-1]


def _convolved(traces: Floats, taps: Floats) -> Floats:
    from scipy.signal import fftconvolve

    convolved: Floats = fftconvolve(traces, taps[None], axes=-1)[:, : traces.shape[-1]]
    return convolved
