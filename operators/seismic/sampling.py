"""Which wave fields a gradient stores, and the low-pass that makes the stored ones enough."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.signal import firwin, kaiser_beta, kaiserord
from torch import Tensor

from invdiff.errors import InputError
from invdiff.operators.seismic.survey import Survey

__all__ = ["Sampling", "highest_frequency"]

_ENERGY = 1e-12  # of a wavelet, which its band may leave out by default
_MOST_ENERGY = 1e-6  # and where the fields' distance is asked for
_ATTENUATION = 130.0  # dB, of what lies beyond the band
_ROOM = 1.0  # width of the filter's transition by default, over the highest frequency
_LEAST_ROOM = 0.25


@dataclass(frozen=True, eq=False)
class Sampling:
    r"""The time steps whose wave fields a gradient stores.

    A gradient is a sum over time of products of the wave field ``u`` and of the adjoint field
    ``w``, which the derivative of the misfit by the data drives. The medium does not change with
    time, so that only the frequencies of ``u`` matter in ``w``, and these are the wavelet's,
    ``f <= f_max``. The data's noise has all frequencies. Once what drives ``w`` is low-passed to
    ``f_stop``, the products end at ``f_max + f_stop``, and every ``k``-th of them suffices::

        sum_t u(t) w''(t) = k sum_j u(j k dt) w''(j k dt)   where   k dt (f_max + f_stop) <= 1

    to the accuracy of the filter (1e-6). The low-pass has zero phase and lasts beyond the end of
    the data by half its length, so that both fields are continued for as long.

    Args:
        every: time steps between two stored fields, ``k``. One stores them all, without a filter.
        taps: of the low-pass, an odd number, symmetric.
    """

    every: int = 1
    taps: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, survey: Survey, *, every: int | None = None) -> Sampling:
        """The sampling for a survey at the time step of the solver.

        Args:
            survey: its wavelets and time step.
            every: time steps between two stored fields; by default as many as leave the low-pass
                a transition as wide as the band of the wavelets. A wavelet that is noisy or cut off
                has no band, and all fields are stored by default; a number given here may leave out
                a millionth of its energy, which the gradient then lacks.

        Raises:
            InputError: fields stored so rarely that they do not hold the waves.
        """
        f_max, dt = highest_frequency(survey), survey.dt
        if every is None:
            every = max(1, int(1 / (dt * (2 + _ROOM) * f_max)))
        if every == 1:
            return cls()
        f_held = 1 / (dt * (2 + _LEAST_ROOM) * every)
        f_least = highest_frequency(survey, energy=_MOST_ENERGY)
        if f_held < f_least:
            raise InputError(
                "the stored wave fields are too sparse in time for the bandwidth of the wavelet",
                got=f"snapshot = {every}: fields {every * dt:g} s apart, waves of {f_least:.3g} Hz",
                expected=f"snapshot <= {max(1, int(every * f_held / f_least))}",
                hint="Leave it out for the default.",
            )
        f_max = min(f_max, f_held)
        width = 1 / (every * dt) - 2 * f_max
        n_taps, _ = kaiserord(_ATTENUATION, 2 * dt * width)
        window = ("kaiser", kaiser_beta(_ATTENUATION))
        taps = firwin(n_taps | 1, f_max + width / 2, window=window, fs=1 / dt)
        return cls(every, taps)

    @cached_property
    def n_beyond(self) -> int:
        """Time steps that the low-pass lasts beyond the end of the data."""
        return 0 if self.taps is None else len(self.taps) // 2

    def limited(self, slope: Tensor, stride: int) -> Tensor:
        """What drives the adjoint field, at the time step of the solver.

        Args:
            slope: derivative of a misfit by the data, ``(..., n_samples)``.
            stride: time steps of the solver per sample of the data.

        Returns:
            ``(..., (n_samples - 1) * stride + 1 + n_beyond)``.
        """
        n = (slope.shape[-1] - 1) * stride + 1
        driving = slope.new_zeros((*slope.shape[:-1], n))
        driving[..., ::stride] = slope
        if self.taps is None:
            return driving
        length = next_fast_len(n + 2 * self.n_beyond, real=True)
        kernel = torch.as_tensor(self.taps, dtype=slope.dtype, device=slope.device)
        product = torch.fft.rfft(driving, length) * torch.fft.rfft(kernel, length)
        filtered: Tensor = torch.fft.irfft(product, length)
        return filtered[..., self.n_beyond : n + 2 * self.n_beyond]


def highest_frequency(survey: Survey, energy: float = _ENERGY) -> float:
    """Frequency that no wavelet exceeds but for this part of its energy, Hz.

    Each wavelet is zero before and after its samples: one that is cut off has all frequencies.
    """
    wavelets = np.atleast_2d(np.asarray(survey.wavelet, np.float64))
    power = np.abs(np.fft.rfft(wavelets, 2 * survey.n_samples, axis=1)) ** 2
    above = np.cumsum(power[:, ::-1], axis=1)[:, ::-1]
    is_reached = (above > energy * power.sum(1, keepdims=True)).any(0)
    frequency = np.fft.rfftfreq(2 * survey.n_samples, survey.dt)
    return float(frequency[max(1, int(is_reached.sum()) - 1)])
