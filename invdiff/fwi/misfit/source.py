"""A misfit that fits the source of each shot, whatever the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.fwi.misfit.base import Misfit, check_positive, check_traces
from invdiff.fwi.misfit.wrappers import Filtered, Masked

__all__ = ["SourceFitted", "with_fitted_source"]


@dataclass(frozen=True)
class SourceFitted(Misfit):
    r"""A misfit of traces whose source is fitted first, shot by shot, at every evaluation.

    The prediction of a shot passes the filter that brings it next to the data,

    .. math:: h = \arg\min \|w (h * p - d)\|^2 + \varepsilon \|w p\|^2 \|h - \delta\|^2,

    of lags :math:`-\tau` to :math:`\tau`; the wavelet is then :math:`h` times that of the operator,
    and the misfit that of :math:`h * p`. The filter has a closed form, through which torch
    differentiates: the gradient is that of the misfit with the source eliminated (variable
    projection). For least squares the change of the filter adds nothing to it but for the term in
    :math:`\varepsilon`, by the envelope theorem; for other misfits it does.

    The filter takes up what the model does not explain alike in all traces of a shot: amplitude,
    and delays of up to :math:`\tau`. These and the velocity next to the source cannot be told
    apart, so that :math:`\tau` is to be no longer than the wavelet is uncertain. The weights
    :math:`w` are those of the masks inside, as those that `invdiff.invert` puts there. Cost: a
    least-squares problem of :math:`2 \tau / dt + 1` unknowns per evaluation, of as many copies of
    the traces.

    Args:
        misfit: The misfit of the traces with the fitted source.
        lag: The longest lag :math:`\tau`, s.
        dt: The sampling interval, s.
        ridge: The factor :math:`\varepsilon` that keeps the filter near a unit pulse where the data
            say nothing of it.

    Raises:
        InputError: Lag, interval or ridge are not positive.

    References:
        Pratt (1999), Seismic waveform inversion in the frequency domain, part 1, Geophysics 64(3),
        doi 10.1190/1.1444597; Aravkin and van Leeuwen (2012), Estimating nuisance parameters in
        inverse problems, Inverse Problems 28, doi 10.1088/0266-5611/28/11/115016.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import L2, SourceFitted
        >>> t = torch.arange(100, dtype=torch.float64) * 0.002
        >>> wave = lambda t_0: torch.exp(-(((t - t_0) / 0.01) ** 2))[None]
        >>> late = 2 * wave(0.108)  # of twice the amplitude, four samples late
        >>> misfit = SourceFitted(L2(), lag=0.02, dt=0.002)
        >>> bool(misfit(wave(0.1), late) < 1e-3 * L2()(wave(0.1), late))
        True
    """

    misfit: Misfit
    lag: float
    dt: float
    ridge: float = field(default=1e-3, kw_only=True)

    def __post_init__(self) -> None:
        check_positive(self.dt, "the sampling interval dt")
        check_positive(self.lag, "the longest lag")
        check_positive(self.ridge, "the ridge")
        if self.lag < self.dt:
            raise InputError(
                "the lag is shorter than a sample", got=f"{self.lag} s", expected=f"{self.dt} s"
            )

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in units of the wrapped misfit."""
        return self.misfit(self.fitted(predicted, observed), observed)

    def fitted(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The predicted traces ``(..., receiver, time)`` with the source fitted to the data.

        Raises:
            ShapeError, DTypeError: As the misfit.
        """
        check_traces(predicted, observed)
        n = round(self.lag / self.dt)
        peak = predicted.detach().abs().amax((-2, -1), keepdim=True)
        unit = predicted / torch.where(peak > 0, peak, 1)  # squares of small amplitudes underflow
        mask = _mask(self.misfit)
        w = (torch.ones(1) if mask is None else mask).to(predicted)[..., None]
        shifted = _shifted(unit, n)
        columns, missing = (w * shifted).double(), (w[..., 0] * (observed - predicted)).double()
        normal = torch.einsum("...rtk,...rtl->...kl", columns, columns)
        right = torch.einsum("...rtk,...rt->...k", columns, missing)
        energy = (w[..., 0] * unit).double().square().sum((-2, -1))
        stiff = self.ridge * torch.where(energy > 0, energy, 1)
        eye = torch.eye(2 * n + 1, dtype=torch.float64, device=predicted.device)
        system = normal + stiff[..., None, None] * eye
        change = torch.linalg.solve(system, right[..., None])[..., 0]
        return predicted + torch.einsum("...rtk,...k->...rt", shifted, change.to(predicted))

    def shots(self, indices: Sequence[int]) -> Self:
        """The misfit of some of the shots, with the wrapped misfit of those."""
        return replace(self, misfit=self.misfit.shots(indices))

    def masked(self, weights: Tensor) -> Self:
        """The same with weights inside: a weight that depends on time is no part of the source."""
        return replace(self, misfit=Masked(self.misfit, weights))


def with_fitted_source(misfit: Misfit | None, predicted: Tensor, observed: Tensor) -> Tensor:
    """Predicted traces as a misfit compares them: with the source that it fits, if it fits one.

    Args:
        misfit: Of all shots; None for one that fits no source.
        predicted: Predicted traces, ``(shot, receiver, time)``.
        observed: Observed traces, of the same shape.
    """
    while isinstance(misfit, Masked | Filtered):
        misfit = misfit.misfit
    return misfit.fitted(predicted, observed) if isinstance(misfit, SourceFitted) else predicted


def _shifted(traces: Tensor, n: int) -> Tensor:
    """Traces ``(..., time)`` delayed by ``-n ... n`` samples, ``(..., time, 2 n + 1)``."""
    padded = torch.nn.functional.pad(traces, (n, n))
    return padded.unfold(-1, 2 * n + 1, 1).flip(-1)


def _mask(misfit: Misfit) -> Tensor | None:
    """Product of the weights of the masks around a misfit; None without a mask."""
    weights = None
    while isinstance(misfit, Masked | Filtered):
        if isinstance(misfit, Masked):
            weights = misfit.weights if weights is None else weights * misfit.weights
        misfit = misfit.misfit
    return weights
