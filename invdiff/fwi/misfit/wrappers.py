"""Misfits of traces that are weighted or filtered first; they wrap any misfit and each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from invdiff.errors import NonFiniteError, ShapeError
from invdiff.fwi.misfit.base import Misfit, check_traces
from invdiff.fwi.misfit.filters import bandpass, check_band

__all__ = ["Filtered", "Masked"]


@dataclass(frozen=True, eq=False)
class Masked(Misfit):
    """A misfit of weighted traces, ``misfit(w p, w d)``: mutes, dead traces, windows, tapers.

    Args:
        misfit: The misfit of the weighted traces.
        weights: The weights ``w``, broadcastable to ``(shot, receiver, time)``, such as
            ``(shot, receiver, 1)`` or ``(receiver, 1)``; with three axes the first is that of the
            shots. A weight of 0 leaves a sample out.

    Raises:
        NonFiniteError: The weights hold NaN or Inf.
        ShapeError: The weights have more than three axes.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import L2, Masked
        >>> predicted, observed = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)  # shot, receiver, time
        >>> weights = torch.tensor([1.0, 1.0, 0.0])[:, None]  # without the third receiver
        >>> Masked(L2(), weights)(predicted, observed)
        tensor([4., 4.])
    """

    misfit: Misfit
    weights: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.weights.ndim > 3:
            raise ShapeError(
                "the weights have too many axes",
                got=tuple(self.weights.shape),
                expected="broadcastable to (shot, receiver, time)",
            )
        if not self.weights.isfinite().all():
            raise NonFiniteError("the weights hold NaN or Inf", expected="finite weights")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in units of the wrapped misfit.

        Raises:
            ShapeError: The weights do not fit the traces; others as the wrapped misfit.
        """
        check_traces(predicted, observed)
        weights = self.weights.to(predicted)
        shape = tuple(predicted.shape)
        pairs = zip(reversed(weights.shape), reversed(shape), strict=False)
        if weights.ndim > len(shape) or any(w not in (1, n) for w, n in pairs):
            raise ShapeError(
                "the weights do not fit the traces",
                got=f"weights {tuple(weights.shape)}, traces {shape}",
                expected="broadcastable to (shot, receiver, time)",
                hint="For some of the shots use misfit.shots(indices).",
            )
        return self.misfit(weights * predicted, weights * observed)

    def shots(self, indices: Sequence[int]) -> Self:
        """The misfit of some of the shots, with their weights."""
        has_shots = self.weights.ndim == 3 and self.weights.shape[0] > 1
        weights = self.weights[list(indices)] if has_shots else self.weights
        return replace(self, misfit=self.misfit.shots(indices), weights=weights)


@dataclass(frozen=True)
class Filtered(Misfit):
    """A misfit in a frequency band: both traces pass the same zero-phase filter (:func:`bandpass`).

    Filtering traces is filtering the wavelet, since the medium is linear. Frequency continuation
    starts with a low ``frequency``, whose half period exceeds the errors in time of the starting
    model, and goes up. Cost: two FFTs of twice the samples per trace and filter.

    Args:
        misfit: The misfit of the filtered traces.
        frequency: The upper corner in Hz, where the amplitude is halved.
        dt: The sampling interval in s.
        low: The lower corner in Hz; 0 for none.
        order: The order of the Butterworth filters.

    Raises:
        InputError: The sampling cannot hold the band.

    References:
        Bunks, Saleck, Zaleski and Chavent, Geophysics 60, 1995, doi 10.1190/1.1443880.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import L2, Filtered
        >>> t = torch.arange(400) * 0.005
        >>> fast = torch.sin(2 * torch.pi * 40 * t)[None]  # 40 Hz
        >>> misfit = Filtered(L2(), frequency=10.0, dt=0.005)
        >>> bool(misfit(fast, 0 * fast) < 1e-3 * L2()(fast, 0 * fast))
        True
    """

    misfit: Misfit
    frequency: float
    dt: float
    low: float = field(default=0.0, kw_only=True)
    order: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        check_band(self.low, self.frequency, dt=self.dt, order=self.order)

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in units of the wrapped misfit."""
        check_traces(predicted, observed)
        return self.misfit(self._band(predicted), self._band(observed))

    def shots(self, indices: Sequence[int]) -> Self:
        """The misfit of some of the shots, with the wrapped misfit of those."""
        return replace(self, misfit=self.misfit.shots(indices))

    def _band(self, traces: Tensor) -> Tensor:
        return bandpass(traces, self.low, self.frequency, dt=self.dt, order=self.order)
