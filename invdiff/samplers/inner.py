"""Inner kernels of decoupled annealing: draws from a Gaussian times terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from invdiff.conditioning.laplace import Laplace
from invdiff.conditioning.update import GaussianUpdate, Slope, gaussian_update
from invdiff.covariance import Covariance, NoCovariance, SpectralCovariance
from invdiff.errors import UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.linalg import squared_norm
from invdiff.needs import Needs, suits
from invdiff.noise import StepNoise
from invdiff.protocols import Term

__all__ = [
    "ExactGaussian",
    "GaussNewton",
    "InnerKernel",
    "Target",
    "gradient",
    "isotropic",
]


def isotropic(grid: Grid, std: float, *, device: torch.device) -> SpectralCovariance:
    """``std^2 I`` on a grid."""
    power = torch.full(grid.shape, std**2, dtype=grid.real_dtype, device=device)
    return SpectralCovariance(power, is_complex=grid.is_complex)


def gradient(terms: Sequence[Term], x: Tensor, x_t: Tensor, *, t: Tensor) -> Tensor:
    """Gradient of the sum of terms at ``x``, ``(batch, *shape)``; closed form for linear data."""
    total, others = torch.zeros_like(x), []
    for term in terms:
        if isinstance(term, Gaussian) and term.is_linear:
            total = total + term.pullback(term.residual(x))
        else:
            others.append(term)
    slope = Slope.of(others, x, NoCovariance(), x_t=x_t, t=t)
    return total if slope is None else total + slope.gradient


@dataclass(frozen=True, eq=False)
class Target:
    """``N(mean, covariance)`` times the exponentials of terms.

    Args:
        mean: Mean of the Gaussian, ``(batch, *shape)``.
        covariance: Covariance of the fields before the data.
        terms: Terms of a posterior.
        x_t: Noisy fields ``(batch, *shape)``, for terms that depend on them.
        t: Time of the noisy fields, a scalar.
    """

    mean: Tensor
    covariance: Covariance
    terms: Sequence[Term]
    x_t: Tensor
    t: Tensor

    def gaussian(self, solver: Laplace) -> GaussianUpdate:
        """The Gaussian around the mode; terms other than likelihoods enter to first order."""
        return solver.given(self.mean, self.covariance, self.terms, x_t=self.x_t, t=self.t)

    def log_density(self, u: Tensor) -> Tensor:
        """``-|u|^2 / 2`` (``-|u|^2`` for complex fields) plus the terms, ``(batch,)``."""
        x = self.mean + self.covariance.sqrt(u)
        total = -(1.0 if self.mean.is_complex() else 0.5) * squared_norm(u)
        for term in self.terms:
            total = total + term.log_prob(x, self.x_t, self.t)
        return total

    def slope(self, u: Tensor) -> Tensor:
        """Gradient ``-u + L^H grad sum_i term_i`` of the log-density, of the shape of ``u``."""
        x = self.mean + self.covariance.sqrt(u)
        return self.covariance.sqrt_adjoint(gradient(self.terms, x, self.x_t, t=self.t)) - u


class InnerKernel(Protocol):
    """Draws one field per member from a target."""

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse terms that this kernel cannot use."""
        ...

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """Fields ``(batch, *shape)``, one draw of the target per member."""
        ...


@dataclass(frozen=True)
class ExactGaussian:
    """The Gaussian update by linear Gaussian data, as an inner kernel.

    Assumptions: linear operators and Gaussian noise; then exact to ``tolerance``. Cost: one solve
    per draw; no network pass.

    Args:
        tolerance: Largest error of the solve, in standard deviations of any linear functional of
            the draw.
        max_iterations: Largest number of conjugate-gradient steps of the solve.
    """

    tolerance: float = 0.5
    max_iterations: int = 300

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse all terms but linear Gaussian likelihoods.

        Raises:
            UnsupportedError: There are other terms.
        """
        if not suits(Needs.LINEAR_GAUSSIAN, terms):
            raise UnsupportedError(
                "ExactGaussian needs linear Gaussian data",
                got=list(terms),
                expected="linear operators and Gaussian noise",
                hint="Use DAPS(kernel=GaussNewton()), or the kernels Langevin() or HMC().",
            )

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """One draw per member, ``(batch, *grid.shape)``: perturb the data and solve."""
        return gaussian_update(
            target.mean,
            target.covariance,
            [term for term in target.terms if isinstance(term, Gaussian)],
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        ).draw(grid, noise)


@dataclass(frozen=True)
class GaussNewton:
    """A draw of the Gaussian around the mode (Laplace's approximation), as an inner kernel.

    Assumptions: exact for linear Gaussian data, biased by the curvature of other terms; the chains
    `Langevin` and `HMC`, which start from this Gaussian, remove that bias. Cost: one evaluation of
    the operator and one solve per Gauss-Newton step, and one solve for the draw; no network pass.

    Args:
        solver: Solver that finds the mode.
    """

    solver: Laplace = field(default_factory=Laplace)

    def check(self, terms: Sequence[Term]) -> None:
        """Accept any terms: those that cannot be differentiated are refused by the sampler."""

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """One draw per member of the Gaussian around the mode, ``(batch, *grid.shape)``."""
        return target.gaussian(self.solver).draw(grid, noise)
