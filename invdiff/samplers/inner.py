r"""Draws from ``N(m, C)`` times terms: what an inner kernel of decoupled annealing is.

:class:`ExactGaussian` is the Gaussian update of linear Gaussian data. :class:`GaussNewton` takes
the Gaussian around the mode (Laplace's approximation): the same for such data, biased by the
curvature of others. Randomise-then-optimise would solve a nonlinear problem a draw and still need
weights to be exact, so what is nonlinear is left to the chains in ``hamiltonian``, which start from
that Gaussian. Cost: an operator evaluation and a solve an iteration, and a solve for the draw.
"""

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
    """Gradient of the sum of terms at ``x``: in closed form for linear Gaussian data."""
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
        mean: ``(batch, *shape)``.
        covariance: of the fields before the data.
        terms: of a posterior.
        x_t: what other terms than likelihoods may look at.
        t: its time.
    """

    mean: Tensor
    covariance: Covariance
    terms: Sequence[Term]
    x_t: Tensor
    t: Tensor

    def gaussian(self, solver: Laplace) -> GaussianUpdate:
        """The Gaussian around the mode; terms other than likelihoods to first order."""
        return solver.given(self.mean, self.covariance, self.terms, x_t=self.x_t, t=self.t)

    def log_density(self, u: Tensor) -> Tensor:
        """``-|u|^2 / 2`` (without the 1/2 for complex fields) and the terms, ``(batch,)``."""
        x = self.mean + self.covariance.sqrt(u)
        total = -(1.0 if self.mean.is_complex() else 0.5) * squared_norm(u)
        for term in self.terms:
            total = total + term.log_prob(x, self.x_t, self.t)
        return total

    def slope(self, u: Tensor) -> Tensor:
        """``-u + L^H grad``."""
        x = self.mean + self.covariance.sqrt(u)
        return self.covariance.sqrt_adjoint(gradient(self.terms, x, self.x_t, t=self.t)) - u


class InnerKernel(Protocol):
    """Draws one field a member from a target."""

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse terms that this kernel cannot use."""
        ...

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """Fields ``(batch, *shape)``."""
        ...


@dataclass(frozen=True)
class ExactGaussian:
    """The Gaussian update of linear Gaussian data, exact to ``tolerance``: one solve.

    Args:
        tolerance: error left by the solve, as a fraction of the draw's own spread.
        max_iterations: bound on its conjugate-gradient steps.
    """

    tolerance: float = 0.05
    max_iterations: int = 100

    def check(self, terms: Sequence[Term]) -> None:
        """Refuse all but linear Gaussian likelihoods.

        Raises:
            UnsupportedError: other terms.
        """
        if not suits(Needs.LINEAR_GAUSSIAN, terms):
            raise UnsupportedError(
                "ExactGaussian draws given linear Gaussian data alone",
                got=list(terms),
                expected="linear operators and Gaussian noise",
                hint="Take DAPS(kernel=GaussNewton()), Langevin() or HMC().",
            )

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """Perturb and solve."""
        return gaussian_update(
            target.mean,
            target.covariance,
            [term for term in target.terms if isinstance(term, Gaussian)],
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        ).draw(grid, noise)


@dataclass(frozen=True)
class GaussNewton:
    """Laplace's approximation: exact for linear Gaussian data, biased by curvature otherwise.

    Args:
        solver: finds the mode.
    """

    solver: Laplace = field(default_factory=Laplace)

    def check(self, terms: Sequence[Term]) -> None:
        """Any differentiable terms."""

    def draw(self, target: Target, grid: Grid, noise: StepNoise) -> Tensor:
        """A draw of the Gaussian around the mode."""
        return target.gaussian(self.solver).draw(grid, noise)
