"""Acoustic waves through velocity models: pressure at receivers, as a torch operator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.operators.seismic.boundary import Boundary
from invdiff.operators.seismic.inputs import (
    check_below_surface,
    check_bounds,
    check_density,
    check_domain,
    check_velocity,
    check_weights,
)
from invdiff.operators.seismic.propagator import (
    Devito,
    Engine,
    Misfit,
    Setting,
    fused_gradient,
)
from invdiff.operators.seismic.survey import Survey

__all__ = ["Acoustic", "gardner"]


class Acoustic:
    r"""Pressure of acoustic waves at the receivers, a nonlinear operator of the velocity.

    It solves the wave equation of constant density, or that of a given density::

        1/v^2 p_tt - lap p = f(t) delta(x - x_s)
        rho_0/(rho v^2) p_tt - div(rho_0/rho grad p) = f(t) delta(x - x_s),  rho_0 = 1000 kg/m^3

    from rest, for a wavelet ``f`` at each source ``x_s`` in turn, and records ``p`` at the shot's
    receivers. Gradients follow by the adjoint-state method (Plessix 2006,
    doi 10.1111/j.1365-246X.2006.02978.x), ``dJ/dm = -sum_t p w_tt`` for ``m = 1/v^2``, with the
    adjoint field ``w`` driven by the residual; they are those of the discrete equations, exactly
    where every wave field is stored (``snapshot=1``) and to 1e-6 by default.

    Assumptions: two dimensions, isotropic, no attenuation, line sources, a wavelet in the units of
    the data. As a rule of thumb finite differences of order eight need three cells or more per
    shortest wavelength. Time step and length of the data follow from the upper velocity bound
    and not from the model at hand.

    Cost: one solve per model and shot; two for :meth:`misfit_and_gradient`, three through torch's
    autograd. A gradient stores one wave field per shot at work.

    Args:
        survey: sources, receivers and wavelet.
        domain: grid of the models: dims ``("z", "x")`` with coordinates in m, evenly spaced, of the
            same origin as the positions of the survey.
        bounds: lowest and highest velocity that a model may have, m/s. Models outside are refused.
        boundary: absorbing layers, and whether the top is a free surface.
        density: kg/m^3, ``(nz, nx)``, or a function from velocities to densities ``(batch, nz,
            nx)`` such as :func:`gardner`; constant by default.
        engine: solver of the wave equation, ``Devito()`` by default or ``Deepwave()``.

    Raises:
        InputError: bounds, positions or spacing that cannot be used, or a time step that violates
            the CFL condition.
        ShapeError: a domain that is not a section, or a density of another shape.
        MissingDependencyError: the engine, or its compiler, is not installed.
    """

    def __init__(
        self,
        survey: Survey,
        domain: Grid,
        *,
        bounds: tuple[float, float],
        boundary: Boundary | None = None,
        density: Tensor | Callable[[Tensor], Tensor] | None = None,
        engine: Engine | None = None,
    ) -> None:
        survey.check_on(domain)
        check_domain(domain)
        check_bounds(bounds)
        boundary = boundary or Boundary()
        if boundary.is_free_surface:
            check_below_surface(survey, float(domain.coords["z"][0]))
        if isinstance(density, Tensor):
            check_density(density, domain.shape)
        self.survey, self.domain, self.bounds, self.boundary = survey, domain, bounds, boundary
        self.density, self.engine = density, engine or Devito()
        setting = Setting(survey, domain, bounds, boundary, density is not None)
        self.propagator = self.engine.propagator(setting)
        self.weights: NDArray[np.float64] | None = None

    @property
    def range(self) -> Grid:
        """Grid of the data, ``(shot, receiver, time)``."""
        grid = self.survey.data_grid(self.domain.dtype)
        if self.weights is None:
            return grid
        return Grid(grid.dims, (len(self.weights), *grid.shape[1:]), grid.dtype, grid.coords)

    @property
    def n_data(self) -> int:
        """Number of samples of the data, all shots and receivers together."""
        return self.range.size

    @property
    def n_shots(self) -> int:
        """Number of shots: the solves that the data of one model take."""
        return self.range.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Pressure ``(batch, shot, receiver, time)`` of velocities ``(batch, nz, nx)``.

        Raises:
            InputError: velocities outside the bounds, or in km/s.
            NonFiniteError: NaN or Inf.
            ShapeError: models that do not lie on the domain.
        """
        self.check(x)
        return self.propagator.data(x, self._density(x))

    def misfit_and_gradient(
        self, x: Tensor, y: Tensor, *, misfit: Misfit | None = None
    ) -> tuple[Tensor, Tensor]:
        """Misfit between data and prediction, and its gradient, for two solves per shot.

        Args:
            x: velocities ``(batch, nz, nx)``.
            y: data, ``(shot, receiver, time)``, or with a leading batch.
            misfit: of the traces ``(1, receiver, time)`` of a shot, differentiable by torch; by
                default half the squared residual. One with the method ``shots``, as those of
                `invdiff.fwi.misfit`, is given several shots at once where the engine solves for
                them together, and returns one value for each.

        Raises:
            InputError, NonFiniteError, ShapeError: models as in a call; data that do not fit, or
                not one value per shot.

        Returns:
            Sums over shots ``(batch,)``, double precision, and gradients ``(batch, nz, nx)``.
        """
        self.check(x)
        return fused_gradient(
            self.propagator, x, y, grid=self.range, misfit=misfit, density=self._density
        )

    def shots(self, indices: Sequence[int] | NDArray[Any]) -> Acoustic:
        """The operator of some of the shots; nothing is compiled again."""
        if self.weights is not None:
            raise InputError(
                "encoded shots cannot be chosen from", hint="Choose before encoding them."
            )
        return self._with(self.survey.shots(indices), None)

    def encoded(self, weights: NDArray[np.float64]) -> Acoustic:
        """The operator of simultaneous sources: ``weights[s, i]`` times source ``i`` in shot ``s``.

        Its data are ``einsum("sj,jrt->srt", weights, y)`` of data ``y``.

        Args:
            weights: ``(n_encoded, n_shots)``; random signs keep cross-talk unbiased (Krebs et al.
                2009, Geophysics 74(6)).

        Raises:
            InputError: a spread that moves with its shots, which cannot be summed.
            ShapeError: weights for another number of shots, or a row of zeros.
            NonFiniteError: NaN or Inf.
        """
        weights = np.asarray(weights, np.float64)
        if not self.survey.is_fixed_spread:
            raise InputError(
                "shots with receivers of their own cannot be summed",
                got="a moving spread", expected="receivers that all shots share",
            )  # fmt: skip
        check_weights(weights, self.survey.n_shots)
        return self._with(self.survey, weights)

    def _with(self, survey: Survey, weights: NDArray[np.float64] | None) -> Acoustic:
        other = copy.copy(self)
        other.survey, other.weights = survey, weights
        has_density = self.density is not None
        setting = Setting(survey, self.domain, self.bounds, self.boundary, has_density, weights)
        other.propagator = self.propagator.on(setting)
        return other

    def check(self, x: Tensor) -> None:
        """Refuse models ``(batch, nz, nx)`` that are not finite or outside the bounds."""
        self.domain.check(x, name="velocity")
        check_velocity(x, self.bounds)

    def _density(self, x: Tensor) -> Tensor | None:
        if self.density is None:
            return None
        if isinstance(self.density, Tensor):
            return self.density.to(x.device).expand_as(x)
        density = self.density(x)
        check_density(density, tuple(x.shape))
        return density

    @property
    def settings(self) -> Mapping[str, object]:
        """What identifies it: all but the compiled solver, which follows from these."""
        names = ("survey", "domain", "bounds", "boundary", "density", "weights", "engine")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        n_z, n_x = self.domain.shape
        return f"Acoustic({self.survey!r}, {n_z}x{n_x}, bounds={self.bounds}, {self.engine!r})"


def gardner(velocity: Tensor) -> Tensor:
    """Density ``310 v^0.25`` in kg/m^3 of sediments with velocity ``v`` in m/s.

    References:
        Gardner, Gardner & Gregory (1974), Geophysics 39(6).

    >>> import torch
    >>> gardner(torch.tensor([1500.0, 3000.0])).round()
    tensor([1929., 2294.])
    """
    return 310.0 * velocity**0.25
