r"""Hamiltonian chains for what has no closed form: inner kernels accepted or rejected.

They start from the Gaussian around the mode of ``N(m, C)`` times the terms (Gauss-Newton) and move
in the metric of its precision ``K``; each move is accepted or rejected (Metropolis), so that any
number of them leaves the target as it is. With ``C = L L^H``, ``x = m + L u`` and
``g = -u + L^H grad sum_i log p_i(x)``, a leapfrog step of size ``h`` is::

    p += h g / 2,   u += h K^-1 p,   p += h g / 2,   p ~ N(0, K) at the start

(Neal 2011, arXiv 1206.1901; Girolami & Calderhead 2011, doi 10.1111/j.1467-9868.2010.00765.x, with
the metric held fixed). Any differentiable terms. Exact as the moves grow in number, and at once for
linear Gaussian data; slow between modes that lie apart. For complex fields gradients are half of
torch's, whose parts each have half the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invdiff.conditioning.base import data_streams
from invdiff.conditioning.laplace import Laplace
from invdiff.conditioning.update import GaussianUpdate
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.linalg import inner, per_member
from invdiff.noise import MOVE_SIZE, StepNoise, Stream
from invdiff.protocols import Term
from invdiff.samplers.inner import Target

__all__ = ["HMC", "Langevin"]


def _accurate() -> Laplace:
    """Solves good enough for a chain to be reversible."""
    return Laplace(tolerance=1e-3)


@dataclass(frozen=True)
class HMC:
    """Hamiltonian chain from the Gaussian around the mode, in its metric, accepted or rejected.

    Exact as ``steps`` grow, and at any number for linear Gaussian data. Cost: that of
    :class:`GaussNewton`, then a gradient of the terms and a solve a leapfrog step.

    Args:
        steps: moves of the chain.
        leapfrog: steps of a move.
        step_size: of those, in units of the local spread; stable below 2 there.
        solver: of the mode and the metric.

    Raises:
        InputError: no steps, or a step size outside (0, 2).
    """

    steps: int = 4
    leapfrog: int = 3
    step_size: float = 0.5
    solver: Laplace = field(default_factory=_accurate)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.leapfrog < 1 or not 0 < self.step_size < 2:
            raise InputError(
                "not a chain", got=self, expected="steps, leapfrog >= 1 and 0 < step_size < 2"
            )

    def check(self, terms: Sequence[Term]) -> None:
        """Any differentiable terms."""

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """The end of the chain."""
        metric = target.gaussian(self.solver)
        start = metric.solve(_momentum(metric, grid, noise, first=Stream.MOVE))
        u = metric.coordinates() + start  # a draw of the Gaussian itself
        value, slope = target.log_density(u), target.slope(u)
        for k in range(1, self.steps + 1):
            first = Stream.MOVE + k * MOVE_SIZE
            p = _momentum(metric, grid, noise, first=first)
            new_u, new_p, new_slope = self._leapfrog(target, metric, u, p=p, slope=slope)
            new_value = target.log_density(new_u)
            gain = new_value - _kinetic(metric, new_p) - value + _kinetic(metric, p)
            uniform = torch.special.ndtr(noise(Grid(("u",), (1,), torch.float64), first)[:, 0])
            accept = uniform.log() < gain  # never where the gain is NaN
            keep = per_member(accept, u)
            u, slope = torch.where(keep, new_u, u), torch.where(keep, new_slope, slope)
            value = torch.where(accept, new_value, value)
        return target.mean + target.covariance.sqrt(u)

    def _leapfrog(
        self, target: Target, metric: GaussianUpdate, u: Tensor, *, p: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates, momentum and slope after one move."""
        for _ in range(self.leapfrog):
            p = p + self.step_size / 2 * slope
            u = u + self.step_size * metric.solve(p)
            slope = target.slope(u)
            p = p + self.step_size / 2 * slope
        return u, p, slope


def _momentum(metric: GaussianUpdate, grid: Grid, noise: StepNoise, *, first: int) -> Tensor:
    """``p ~ N(0, K)``: ``e + L^H sum_i A_i^H W_i^H e_i``, no root of ``K`` needed."""
    covariance = metric.covariance
    p = covariance.coordinates(noise(grid, first + 1).to(metric.mean.dtype))
    data = data_streams(metric.models, noise, first=first + 2)
    for model, e in zip(metric.models, data, strict=True):
        p = p + covariance.sqrt_adjoint(model.pullback(e))
    return p


def _kinetic(metric: GaussianUpdate, p: Tensor) -> Tensor:
    """``p^H K^-1 p / 2``, without the 1/2 for complex fields."""
    half = 1.0 if metric.mean.is_complex() else 0.5
    return half * inner(p, metric.solve(p))


@dataclass(frozen=True)
class Langevin:
    """Metropolis-adjusted Langevin (MALA): HMC of one leapfrog step a move.

    A Langevin step of time ``step_size^2 / 2`` (Roberts & Tweedie 1996), adjusted where the paper's
    100 plain steps are not. Cost: that of :class:`GaussNewton`, then a gradient and a solve a step.

    Args:
        steps: moves of the chain.
        step_size: in units of the local spread.
        solver: of the mode and the metric.
    """

    steps: int = 8
    step_size: float = 0.8
    solver: Laplace = field(default_factory=_accurate)

    def __post_init__(self) -> None:
        HMC(self.steps, 1, self.step_size)  # refuses bad settings

    def check(self, terms: Sequence[Term]) -> None:
        """Any differentiable terms."""

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """The end of the chain."""
        chain = HMC(self.steps, 1, self.step_size, solver=self.solver)
        return chain.draw(target, grid, noise)
