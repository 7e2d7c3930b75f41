"""Misfits of traces that were weighted or filtered first; they wrap any misfit and each other."""

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
        misfit: of the weighted traces.
        weights: broadcastable to ``(shot, receiver, time)``, such as ``(shot, receiver, 1)`` or
            ``(receiver, 1)``; with three axes the first is that of the shots. 0 leaves out.

    Raises:
        NonFiniteError: NaN or Inf in the weights.
        ShapeError: more than three axes.
    """

    misfit: Misfit
    weights: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.weights.ndim > 3:
            raise ShapeError(
                "weights with too many axes",
                got=tuple(self.weights.shape),
                expected="broadcastable to (shot, receiver, time)",
            )
        if not self.weights.isfinite().all():
            raise NonFiniteError("the weights hold NaN or Inf", expected="finite weights")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """``(...)``, in units of the wrapped misfit.

        Raises:
            ShapeError: weights that do not fit the traces; others as the wrapped misfit.
        """
        check_traces(predicted, observed)
        weights = self.weights.to(predicted)
        shape = tuple(predicted.shape)
        pairs = zip(reversed(weights.shape), reversed(shape), strict=False)
        if weights.ndim > len(shape) or any(w not in (1, n) for w, n in pairs):
            raise ShapeError(
                "weights do not fit the traces",
                got=f"weights {tuple(weights.shape)}, traces {shape}",
                expected="broadcastable to (shot, receiver, time)",
                hint="For some of the shots take misfit.shots(indices).",
            )
        return self.misfit(weights * predicted, weights * observed)

    def shots(self, indices: Sequence[int]) -> Self:
        """With the weights of those shots."""
        has_shots = self.weights.ndim == 3 and self.weights.shape[0] > 1
        weights = self.weights[list(indices)] if has_shots else self.weights
        return replace(self, misfit=self.misfit.shots(indices), weights=weights)


@dataclass(frozen=True)
class Filtered(Misfit):
    """A misfit in a frequency band: the same zero-phase filter on both (see :func:`lowpass`).

    Filtering traces is filtering the wavelet: the medium is linear. Frequency continuation starts
    with a low ``frequency``, whose half period holds the errors of the starting model, and goes up.

    Args:
        misfit: of the filtered traces.
        frequency: upper corner in Hz, where the amplitude is halved.
        dt: sampling interval in s.
        low: lower corner in Hz; 0 for none.
        order: of the Butterworth filters.

    Raises:
        InputError: a band that the sampling cannot hold.

    References:
        Bunks, Saleck, Zaleski and Chavent, Geophysics 60, 1995, doi 10.1190/1.1443880.
    """

    misfit: Misfit
    frequency: float
    dt: float
    low: float = field(default=0.0, kw_only=True)
    order: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        check_band(self.low, self.frequency, dt=self.dt, order=self.order)

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """``(...)``, in units of the wrapped misfit."""
        check_traces(predicted, observed)
        return self.misfit(self._band(predicted), self._band(observed))

    def shots(self, indices: Sequence[int]) -> Self:
        """With the wrapped misfit of those shots."""
        return replace(self, misfit=self.misfit.shots(indices))

    def _band(self, traces: Tensor) -> Tensor:
        return bandpass(traces, self.low, self.frequency, dt=self.dt, order=self.order)
