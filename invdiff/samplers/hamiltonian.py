"""Hamiltonian chains as inner kernels of decoupled annealing."""

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
    """A solver accurate enough for a chain to be reversible."""
    return Laplace(tolerance=0.05)


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo in the metric of the Gaussian around the mode.

    The chain starts from a draw of that Gaussian, the Laplace approximation of ``N(m, C)`` times
    the terms by Gauss-Newton, and moves in the metric of its precision ``K``. With ``C = L L^H``,
    ``x = m + L u`` and ``g = -u + L^H grad sum_i log p_i(x)``, a leapfrog step of size ``h`` is::

        p += h g / 2,   u += h K^-1 p,   p += h g / 2,   p ~ N(0, K) at the start of a move

    Each move is accepted or rejected (Metropolis), so that any number of moves leaves the target
    invariant (Neal 2011, arXiv 1206.1901; Girolami & Calderhead 2011, doi
    10.1111/j.1467-9868.2010.00765.x, with the metric held fixed). For complex fields the gradient
    is half of torch's, since each part has half of the noise.

    Assumptions: any differentiable terms. Exact as ``steps`` grow, and with any number of them for
    linear Gaussian data; slow between separate modes.

    Cost: that of `GaussNewton`, then one gradient of the terms and one solve per leapfrog step; no
    network pass.

    Args:
        steps: Number of moves of the chain.
        leapfrog: Number of leapfrog steps of a move.
        step_size: Size of a leapfrog step in units of the local spread; stable below 2.
        solver: Solver that finds the mode and applies the inverse metric.

    Raises:
        InputError: There are no steps, or the step size lies outside (0, 2).
    """

    steps: int = 4
    leapfrog: int = 3
    step_size: float = 0.5
    solver: Laplace = field(default_factory=_accurate)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.leapfrog < 1 or not 0 < self.step_size < 2:
            raise InputError(
                "the settings of a chain are out of range",
                got=self,
                expected="steps, leapfrog >= 1 and 0 < step_size < 2",
            )

    def check(self, terms: Sequence[Term]) -> None:
        """Accept any terms: those that cannot be differentiated are refused by the sampler."""

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """Fields at the end of the chain, ``(batch, *grid.shape)``."""
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
    """``p ~ N(0, K)`` as ``e + L^H sum_i A_i^H W_i^H e_i``: no root of ``K`` is needed."""
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
    """Metropolis-adjusted Langevin chain (MALA): `HMC` with one leapfrog step per move.

    A Langevin step of time ``step_size^2 / 2`` (Roberts & Tweedie 1996, doi 10.2307/3318418),
    adjusted, whereas the 100 steps of the DAPS paper are not. Assumptions: those of `HMC`. Cost:
    that of `GaussNewton`, then one gradient of the terms and one solve per step; no network pass.

    Args:
        steps: Number of moves of the chain.
        step_size: Size of a step in units of the local spread; stable below 2.
        solver: Solver that finds the mode and applies the inverse metric.

    Raises:
        InputError: There are no steps, or the step size lies outside (0, 2).
    """

    steps: int = 8
    step_size: float = 0.8
    solver: Laplace = field(default_factory=_accurate)

    def __post_init__(self) -> None:
        HMC(self.steps, 1, self.step_size)  # refuses bad settings

    def check(self, terms: Sequence[Term]) -> None:
        """Accept any terms: those that cannot be differentiated are refused by the sampler."""

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """Fields at the end of the chain, ``(batch, *grid.shape)``."""
        chain = HMC(self.steps, 1, self.step_size, solver=self.solver)
        return chain.draw(target, grid, noise)
