"""Checks of a starting model, a wavelet and the units of the data by the first prediction."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import DataWarning
from invdiff.fwi.diagnose import cycle_skipping
from invdiff.fwi.misfit import Misfit
from invdiff.fwi.misfit.source import with_fitted_source
from invdiff.protocols import WaveOperator

__all__ = ["amplitude_factor", "check_start"]

_OFF = 2.0  # factor between the amplitudes of data and prediction that is warned of
_IN_PHASE = 0.8  # correlation above which least squares finds the amplitude
_AUDIBLE = 2.0  # energy over that of the noise above which the lag of a trace is one of waves
_LATE = 0.125  # common lag, in periods, above which a warning is given
_ALIKE = 0.7  # correlation above which a common lag is one
_SKIPPED = 0.05  # share of the traces above which a start is called cycle-skipped


def check_start(
    operator: WaveOperator,
    x: Tensor,
    y: Tensor,
    *,
    noise_std: float | Tensor,
    weights: Tensor | None = None,
    frequency: float | None = None,
    misfit: Misfit | None = None,
) -> dict[str, float]:
    """Warn before a long run if its first prediction and the data cannot be brought together.

    Either their amplitudes differ, or more than a few traces are off by more than half a period.
    Cost: one forward solve per shot.

    Args:
        operator: Operator that predicts the traces.
        x: Starting model ``(nz, nx)``, m/s.
        y: Data ``(shot, receiver, time)``, finite.
        noise_std: Standard deviation of a sample, a number or broadcastable to ``y``.
        weights: Weights, broadcastable to ``y``; 0 leaves samples out.
        frequency: Corner of the low-pass of the first stage, Hz; by default the peak of the mean
            spectrum of the prediction.
        misfit: The misfit of the traces, which may fit their source first.

    Returns:
        ``amplitude_factor``, of the data over the prediction; ``wavelet_lag``, s, by which the
        data are later in all traces alike, if they are; and ``cycle_skipped``, the share of the
        traces above the noise. Values that cannot be determined are left out.

    Warns:
        DataWarning: Amplitudes differ by more than a factor of two, all traces are off by the same
            time, or some by more than half a period.
    """
    with torch.no_grad():
        predicted = with_fitted_source(misfit, operator(x[None])[0], y).cpu().double()
    y = y.cpu()
    w = torch.ones(()) if weights is None else weights.cpu()
    std = noise_std.cpu() if isinstance(noise_std, Tensor) else noise_std
    p, d = (w.double() * traces.double() for traces in (predicted, y))
    noise = (w * std * torch.ones_like(y)).double()
    notes: dict[str, float] = {}
    factor = amplitude_factor(p, d, noise)
    if factor is not None:
        notes["amplitude_factor"] = factor
        _warn_of_amplitude(factor)
    time = operator.range.coords.get("time")
    if factor is None or time is None:
        return notes
    dt = float(time[-1] - time[0]) / (len(time) - 1)
    frequency = _peak(p, dt) if frequency is None else frequency
    if frequency is None:
        return notes
    grid = operator.range.with_dtype(torch.float64)
    # A wrong polarity has its own warning: it is not a lag.
    pair = (grid.to_dataarray(traces, "pressure") for traces in (np.sign(factor) * p, d))
    found = cycle_skipping(*pair, dt=dt, frequency=frequency)
    notes |= _common_lag(np.sign(factor) * p, d, dt=dt, frequency=frequency)
    is_audible = (d.square().sum(-1) > _AUDIBLE * noise.square().sum(-1)).numpy()
    if not is_audible.any():
        return notes
    notes["cycle_skipped"] = float(found["is_skipped"].values[is_audible].mean())
    if notes["cycle_skipped"] > _SKIPPED:
        _warn_of_skipping(notes["cycle_skipped"], frequency)
    return notes


def amplitude_factor(predicted: Tensor, observed: Tensor, noise: Tensor) -> float | None:
    r"""The factor by which the prediction must be multiplied to have the amplitude of the data.

    Least squares, :math:`a = \langle p, d \rangle / \langle p, p \rangle`, where they are in phase;
    noise of the data does not bias it. A prediction that is out of phase, as that of a
    cycle-skipped start is, makes it too small. There the ratio of the energies,
    :math:`\sqrt{(|d|^2 - |s|^2) / |p|^2}` without that of the noise ``s``, replaces it; it has no
    sign.

    Args:
        predicted: Weighted traces ``p`` of the prediction.
        observed: Weighted traces ``d`` of the data.
        noise: Standard deviation ``s`` of each sample, weighted alike.

    Returns:
        The factor; None where the prediction or the data are zero.

    >>> wave = torch.sin(torch.linspace(0, 20, 200))
    >>> round(amplitude_factor(wave, -3 * wave, torch.zeros(200)), 4)
    -3.0
    """
    energy = [float(traces.double().square().sum()) for traces in (predicted, observed, noise)]
    p, d, s = energy
    if p == 0 or d == 0:
        return None
    product = float((predicted.double() * observed.double()).sum())
    coherent, energetic = product / p, (d / p) ** 0.5
    if abs(coherent) >= _IN_PHASE * energetic:
        return coherent
    # Of noisy data it is only known that their signal is not stronger than they are.
    denoised = (max(d - s, 0.0) / p) ** 0.5
    within = min(max(denoised, 1.0), energetic) if s > 0 else denoised
    return float(max(within, abs(coherent)))


def _warn_of_amplitude(factor: float) -> None:
    if factor == 0 or not np.isfinite(factor) or 1 / _OFF <= factor <= _OFF:
        return
    if factor < 0:
        what = f"The data have the opposite sign of the first prediction (factor {factor:.3g})"
    else:
        what = f"The data are {factor:.3g} times as large as the first prediction"
    warnings.warn(
        f"{what}, so that no model can explain them. If wavelet and data are in different units,"
        f" multiply the wavelet by {factor:.3g}, or the data and their noise level by"
        f" {1 / factor:.3g}.",
        DataWarning,
        stacklevel=4,
    )


def _common_lag(p: Tensor, d: Tensor, *, dt: float, frequency: float) -> dict[str, float]:
    """The lag of all traces alike, if moving the prediction by it makes it resemble the data.

    An error of the model delays far traces more than near ones, one of the wavelet all alike.
    """
    n = p.shape[-1]
    spectra = [torch.fft.rfft(traces, 2 * n) for traces in (p, d)]
    product = torch.fft.irfft((spectra[0].conj() * spectra[1]).sum((0, 1)), 2 * n)
    product = product / (p.norm() * d.norm()).clamp_min(torch.finfo(p.dtype).tiny)
    best = int(product.argmax())
    lag = (best if best < n else best - 2 * n) * dt
    if abs(lag) < _LATE / frequency or product[best] < max(_ALIKE, 2 * float(product[0])):
        return {}
    warnings.warn(
        f"All traces are {abs(lag):.3g} s {'later' if lag > 0 else 'earlier'} than the first"
        f" prediction: shifting it by that raises the correlation from {float(product[0]):.2f} to"
        f" {float(product[best]):.2f}. Shift the wavelet, such as by delay=..., or leave it out to"
        " have it estimated.",
        DataWarning,
        stacklevel=4,
    )
    return {"wavelet_lag": lag}


def _warn_of_skipping(fraction: float, frequency: float) -> None:
    warnings.warn(
        f"The starting model is cycle-skipped: its prediction of {fraction:.0%} of the traces is"
        f" off by more than half a period ({0.5 / frequency:.3g} s) at {frequency:.3g} Hz, so that"
        " the inversion may end in a wrong minimum. Start with lower frequencies or from a better"
        " model.",
        DataWarning,
        stacklevel=4,
    )


def _peak(traces: Tensor, dt: float) -> float | None:
    """Frequency in Hz, between zero and Nyquist, of the highest mean amplitude spectrum."""
    spectrum = np.abs(np.fft.rfft(traces.numpy(), axis=-1)).mean((0, 1))
    frequency = np.fft.rfftfreq(traces.shape[-1], dt)
    inner = (frequency > 0) & (frequency < 0.5 / dt)
    if not inner.any() or not spectrum[inner].any():
        return None
    return float(frequency[inner][spectrum[inner].argmax()])
