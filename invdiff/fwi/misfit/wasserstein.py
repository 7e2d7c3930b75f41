"""Optimal transport between traces that were made positive and brought to unit mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invdiff.fwi.misfit.base import Misfit, check_positive, check_traces

__all__ = ["Exponential", "Positive", "Shifted", "Softplus", "Wasserstein"]

# Share of each mass that is spread evenly in time: distribution functions must rise everywhere.
EVEN_SHARE = 1e-6


class Positive(Protocol):
    """A map that makes traces positive, pointwise and increasing.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import Positive, Wasserstein
        >>> def squared(traces):  # an own one, of traces that are nowhere negative
        ...     return traces.square()
        >>> isinstance(Wasserstein(dt=0.01, positive=squared), Wasserstein)
        True
    """

    def __call__(self, traces: Tensor) -> Tensor:
        """Values ``>= 0`` of traces that are in units of the peak of the observed trace."""
        ...


@dataclass(frozen=True)
class Softplus:
    """The map ``log(1 + exp(b x))``: linear for peaks, small for troughs.

    Args:
        sharpness: The factor ``b``, positive, for traces whose observed peak is 1.

    Raises:
        InputError: ``sharpness`` is not finite and positive.

    References:
        Engquist and Yang, Communications on Pure and Applied Mathematics 75, 2022,
        arXiv 2002.00031.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import Softplus
        >>> Softplus()(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([4.5399e-05, 6.9315e-01, 1.0000e+01])
    """

    sharpness: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self.sharpness, "the sharpness")

    def __call__(self, traces: Tensor) -> Tensor:
        """The softplus of the traces, of their shape."""
        return torch.nn.functional.softplus(self.sharpness * traces)


@dataclass(frozen=True)
class Exponential:
    """The map ``exp(b x)``: the highest peaks dominate.

    It overflows for predictions far above the data.

    Args:
        sharpness: The factor ``b``, positive, for traces whose observed peak is 1.

    Raises:
        InputError: ``sharpness`` is not finite and positive.

    References:
        Qiu, Ramos-Martinez, Valenciano, Yang and Engquist, SEG Technical Program, 2017,
        doi 10.1190/segam2017-17681930.1.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import Exponential
        >>> Exponential()(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([ 0.0498,  1.0000, 20.0855])
    """

    sharpness: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self.sharpness, "the sharpness")

    def __call__(self, traces: Tensor) -> Tensor:
        """The exponential of the traces, of their shape."""
        return torch.exp(self.sharpness * traces)


@dataclass(frozen=True)
class Shifted:
    """The map ``max(x + c, 0)``: the linear normalisation.

    Its basin of attraction is narrower and its gradient nearest to that of :class:`L2`.

    Args:
        offset: The offset ``c``, positive, for traces whose observed peak is 1. Predictions below
            ``-c`` are cut off and have no gradient.

    Raises:
        InputError: ``offset`` is not finite and positive.

    References:
        Yang, Engquist, Sun and Hamfeldt, Geophysics 83, 2018, doi 10.1190/geo2016-0663.1.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import Shifted
        >>> Shifted(offset=2.0)(torch.tensor([-3.0, 0.0, 1.0]))
        tensor([0., 2., 3.])
    """

    offset: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self.offset, "the offset")

    def __call__(self, traces: Tensor) -> Tensor:
        """The shifted traces, of their shape, cut off at zero."""
        return torch.relu(traces + self.offset)


@dataclass(frozen=True)
class Wasserstein(Misfit):
    r"""The quadratic Wasserstein distance, trace by trace, :math:`\sum_r W_2^2(p_r, d_r)`.

    Traces are divided by the peak of the observed one, made positive and brought to unit mass, as
    densities that are constant over each sample. Between two densities on a line the cheapest
    transport keeps the order, so that its cost follows exactly from the quantile functions,
    :math:`W_2^2 = \int_0^1 (F^{-1} - G^{-1})^2 dq`. A separate arrival that is late by
    :math:`\tau` costs :math:`\tau^2` times its share of the mass, whatever its period, as long as
    its mass exceeds that of the background which it passes. Little of the sign of the traces and of
    their absolute amplitudes is kept. An observed trace that is zero
    counts 0. Arithmetic is in double precision; the result has the dtype of the traces. Cost: a
    sort of the samples of each trace.

    Args:
        dt: The sampling interval in s.
        positive: The map that makes the traces positive.

    Raises:
        InputError: The interval is not finite and positive.

    References:
        Yang, Engquist, Sun and Hamfeldt, Geophysics 83, 2018, doi 10.1190/geo2016-0663.1.

    Examples:
        >>> import torch
        >>> from invdiff.fwi.misfit import Wasserstein
        >>> observed = torch.zeros(1, 200)
        >>> observed[0, 60] = 1.0
        >>> misfit = Wasserstein(dt=0.01, positive=torch.square)
        >>> late = [float(misfit(observed.roll(shift), observed)) for shift in (5, 10, 20)]
        >>> [round(value / late[0]) for value in late]  # quadratic in the shift
        [1, 4, 16]
    """

    dt: float
    positive: Positive = Softplus()

    def __post_init__(self) -> None:
        check_positive(self.dt, "the sampling interval dt")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """The misfit of each shot, ``(...)``, in s^2."""
        check_traces(predicted, observed)
        observed = observed.expand_as(predicted)
        peak = observed.abs().amax(-1, keepdim=True).double()
        lives = peak > 0
        unit = torch.where(lives, peak, 1)
        cost = _transport(self._distribution(predicted / unit), self._distribution(observed / unit))
        return torch.where(lives[..., 0], self.dt**2 * cost, 0).sum(-1).to(predicted.dtype)

    def _distribution(self, traces: Tensor) -> Tensor:
        """Cumulative mass at the edges of the samples, ``(..., time + 1)``, from 0 to 1."""
        mass = self.positive(traces) + torch.finfo(traces.dtype).tiny
        n = traces.shape[-1]
        mass = (1 - EVEN_SHARE) * mass / mass.sum(-1, keepdim=True) + EVEN_SHARE / n
        inner = mass.cumsum(-1)[..., :-1]
        return torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0)), (0, 1), value=1.0)


def _transport(f: Tensor, g: Tensor) -> Tensor:
    """``W_2^2`` in samples squared of piecewise linear distributions ``(..., time + 1)``."""
    levels = torch.cat([f, g], -1).sort(-1).values
    # Between neighbouring levels both quantile functions are linear, and so is their difference.
    lag = _quantiles(f, levels) - _quantiles(g, levels)
    left, right = lag[..., :-1], lag[..., 1:]
    return (levels.diff() * (left**2 + left * right + right**2)).sum(-1) / 3


def _quantiles(f: Tensor, levels: Tensor) -> Tensor:
    """Edges, counted in samples, below which the share ``levels`` of the mass lies."""
    right = torch.searchsorted(f.detach(), levels.detach()).clamp(1, f.shape[-1] - 1)
    below, above = f.gather(-1, right - 1), f.gather(-1, right)
    return right - 1 + (levels - below) / (above - below)
