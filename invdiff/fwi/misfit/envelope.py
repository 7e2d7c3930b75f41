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

    ``e(p)^2 = p^2 + H(p)^2`` with the Hilbert transform ``H``. The envelope holds frequencies that
    the trace lacks, down to zero, so that the basin is as wide as the wavelet, not half its period;
    phase is lost: use it first, then a misfit of waveforms.

    Args:
        power: ``k``; 2 is smooth everywhere, 1 weighs weak arrivals more.

    Raises:
        InputError: a power that is not finite and positive.

    References:
        Bozdag, Trampert and Tromp, Geophysical Journal International 185, 2011,
        doi 10.1111/j.1365-246X.2011.04970.x. Wu, Luo and Wu, Geophysics 79, 2014,
        doi 10.1190/geo2013-0294.1.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self.power, "power of the envelope")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """``(...)``, in units of the traces to ``2 power``."""
        check_traces(predicted, observed)
        residual = self._powered(predicted) - self._powered(observed)
        return residual.square().sum((-2, -1)) / 2

    def _powered(self, traces: Tensor) -> Tensor:
        square = squared_envelope(traces)
        if self.power == 2:
            return square
        # A root has no slope at zero: silence counts nothing and is left alone.
        sounds = square > torch.finfo(square.dtype).tiny
        return torch.where(sounds, torch.where(sounds, square, 1) ** (self.power / 2), 0)


def squared_envelope(traces: Tensor) -> Tensor:
    """``x^2 + H(x)^2`` along the last axis, periodic as ``scipy.signal.hilbert`` is."""
    quadrature = torch.fft.irfft(-1j * torch.fft.rfft(traces), traces.shape[-1])
    square: Tensor = traces.square() + quadrature.square()
    return square
