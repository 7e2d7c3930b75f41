r"""Optimal transport between traces that were made positive, of unit mass.

Between two densities on a line the cheapest transport keeps the order, so its cost is known in
closed form from the quantile functions, :math:`W_2^2 = \int_0^1 (F^{-1} - G^{-1})^2 dq`.
"""

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
    """Makes traces positive, pointwise and increasing."""

    def __call__(self, traces: Tensor) -> Tensor:
        """``>= 0``; ``traces`` are in units of the peak of the observed trace."""
        ...


@dataclass(frozen=True)
class Softplus:
    """``log(1 + exp(b x))``: linear for peaks, small for troughs.

    Args:
        sharpness: ``b``, for traces whose observed peak is 1.

    Raises:
        InputError: a sharpness that is not finite and positive.

    References:
        Engquist and Yang, Communications on Pure and Applied Mathematics 75, 2022,
        arXiv 2002.00031.
    """

    sharpness: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self.sharpness, "sharpness")

    def __call__(self, traces: Tensor) -> Tensor:
        """As the formula."""
        return torch.nn.functional.softplus(self.sharpness * traces)


@dataclass(frozen=True)
class Exponential:
    """``exp(b x)``: the highest peaks decide. Overflows for a prediction far above the data.

    Args:
        sharpness: ``b``, for traces whose observed peak is 1.

    Raises:
        InputError: a sharpness that is not finite and positive.

    References:
        Qiu, Ramos-Martinez, Valenciano, Yang and Engquist, SEG Technical Program, 2017,
        doi 10.1190/segam2017-17681930.1.
    """

    sharpness: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self.sharpness, "sharpness")

    def __call__(self, traces: Tensor) -> Tensor:
        """As the formula."""
        return torch.exp(self.sharpness * traces)


@dataclass(frozen=True)
class Shifted:
    """``max(x + c, 0)``: the linear normalisation; narrower basin, gradient nearest to L2's.

    Args:
        offset: ``c``, for traces whose observed peak is 1; below what a prediction undershoots it
            cuts, without a gradient there.

    Raises:
        InputError: an offset that is not finite and positive.

    References:
        Yang, Engquist, Sun and Hamfeldt, Geophysics 83, 2018, doi 10.1190/geo2016-0663.1.
    """

    offset: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self.offset, "offset")

    def __call__(self, traces: Tensor) -> Tensor:
        """As the formula."""
        return torch.relu(traces + self.offset)


@dataclass(frozen=True)
class Wasserstein(Misfit):
    r"""Quadratic Wasserstein distance trace by trace, :math:`\sum_r W_2^2(p_r, d_r)`, in s^2.

    Traces are divided by the peak of the observed one, made positive and brought to unit mass, as
    densities that are constant over each sample; for those :math:`W_2^2` is exact. An arrival of
    its own that is late by ``tau`` costs ``tau^2`` times its share of the mass, whatever its
    period. Of the sign of the traces and their absolute amplitudes little is kept. A trace that was
    observed dead counts 0. Arithmetic in double precision; the result has the traces' dtype.

    Args:
        dt: sampling interval in s.
        positive: what makes the traces positive.

    Raises:
        InputError: an interval that is not finite and positive.

    References:
        Yang, Engquist, Sun and Hamfeldt, Geophysics 83, 2018, doi 10.1190/geo2016-0663.1.
    """

    dt: float
    positive: Positive = Softplus()

    def __post_init__(self) -> None:
        check_positive(self.dt, "sampling interval dt")

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """``(...)``, in s^2."""
        check_traces(predicted, observed)
        observed = observed.expand_as(predicted)
        peak = observed.abs().amax(-1, keepdim=True).double()
        lives = peak > 0
        unit = torch.where(lives, peak, 1)
        cost = _transport(self._distribution(predicted / unit), self._distribution(observed / unit))
        return torch.where(lives[..., 0], self.dt**2 * cost, 0).sum(-1).to(predicted.dtype)

    def _distribution(self, traces: Tensor) -> Tensor:
        """Cumulated mass at the edges of the samples, ``(..., time + 1)``, from 0 to 1."""
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
