"""Misfit of envelopes: how much energy arrives when, whatever its phase."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.fwi.misfit.base import Misfit, check_positive, check_traces

__all__ = ["Envelope", "squared_envelope"]


@dataclass(frozen=True)
class Envelope(Misfit):
    r"""Least squares of envelopes, :math:`\frac12 \sum (e(p)^k - e(d)^k)^2`.

    The envelope is :math:`e(p)^2 = p^2 + H(p)^2` with the Hilbert transform :math:`H`. It holds
    frequencies that the trace lacks, down to zero, so that the basin of attraction is as wide as
    the wavelet instead of half its period. The phase is lost: use it first, then a misfit of
    waveforms. Cost: two FFTs per trace.

    Args:
        power: The exponent ``k``, positive; 2 is smooth everywhere, 1 weights weak arrivals more.

    Raises:
        InputError: ``power`` is not finite and positive.

    References:
        Bozdag, Trampert and Tromp, Geophysical Journal International 185, 2011,
        doi 10.1111/j.1365-246X.2011.04970.x. Wu, Luo and Wu, Geophysics 79, 2014,
        doi 10.1190/geo2013-0294.1.

    Examples:
        >>> import math
        >>> import torch
        >>> from invdiff.fwi.misfit import L2, Envelope
        >>> phase = 2 * math.pi * torch.arange(64) / 16  # four periods
        >>> observed, predicted = phase.sin()[None], phase.cos()[None]
        >>> round(float(Envelope()(predicted, observed)), 3)  # the phase does not count
        0.0
        >>> round(float(L2()(predicted, observed)), 3)
        32.0
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self.power, "the power of the envelope")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in units of the traces to the power ``2 k``."""
        check_traces(predicted, observed)
        residual = self._powered(predicted) - self._powered(observed)
        return residual.square().sum((-2, -1)) / 2

    def _powered(self, traces: Tensor) -> Tensor:
        square = squared_envelope(traces)
        if self.power == 2:
            return square
        # A root has no derivative at zero: silent samples count 0 and get no gradient.
        sounds = square > torch.finfo(square.dtype).tiny
        return torch.where(sounds, torch.where(sounds, square, 1) ** (self.power / 2), 0)


def squared_envelope(traces: Tensor) -> Tensor:
    """``x^2 + H(x)^2`` along the last axis, periodic as in ``scipy.signal.hilbert``."""
    quadrature = torch.fft.irfft(-1j * torch.fft.rfft(traces), traces.shape[-1])
    square: Tensor = traces.square() + quadrature.square()
    return square
