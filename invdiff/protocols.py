"""The protocols of operators, priors, models, terms, samplers; classes need not inherit them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from invdiff.covariance import Covariance
from invdiff.grid import Grid
from invdiff.noise import NoiseField, StepNoise
from invdiff.schedule import Schedule
from invdiff.spread import Spread

__all__ = [
    "BasePrior",
    "CompleteOperator",
    "LinearOperator",
    "Operator",
    "Prior",
    "Problem",
    "Sampler",
    "StepModel",
    "Term",
    "WaveOperator",
]


@runtime_checkable
class Operator(Protocol):
    """A forward operator ``A``: fields on ``domain`` to data on ``range``.

    Required are ``domain``, ``range`` and the call, written in torch so that it can be
    differentiated. Everything below is optional; the engine reads it through :func:`completed`,
    which fills in what is missing:

    ======================  ===================================  ===================================
    member                  meaning                              where it is missing
    ======================  ===================================  ===================================
    ``is_linear``           declares linearity                   linear if there is an ``adjoint``
    ``adjoint(y)``          ``A^H y`` under sum conj(a) b        torch's vjp, if ``is_linear``
    ``gram(x)``             ``A^H A x``                          ``adjoint(A(x))``
    ``gram_spectrum``       diagonal of ``F A^H A F^H``, real,   None: solves are preconditioned
                            ``domain.shape``, torch.fft order    without it
    ``is_circulant``        that diagonal is all of ``A^H A``    False
    ``measured``            booleans over the range              None: all values are measured
    ``n_data``              number of measured values            counted from ``measured``
    ``is_differentiable``   torch can differentiate the call     True
    ``to(device)``          a copy on another device             the operator stays where it is
    ``settings``            property: what identifies a run, by  its attributes
                            name; counters are left out
    ======================  ===================================  ===================================
    """

    @property
    def domain(self) -> Grid:
        """Grid of the fields."""
        ...

    @property
    def range(self) -> Grid:
        """Grid of the data."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Data ``(batch, *range.shape)`` of fields ``(batch, *domain.shape)``."""
        ...


@runtime_checkable
class LinearOperator(Operator, Protocol):
    """A linear operator: one with an adjoint under the inner product ``<a, b> = sum conj(a) b``."""

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: ``(batch, *range.shape)`` to ``(batch, *domain.shape)``."""
        ...


class CompleteOperator(LinearOperator, Protocol):
    """An operator with all optional parts; see :class:`Operator` for their meaning.

    ``adjoint``, ``gram`` and ``gram_spectrum`` may be used only where ``is_linear`` is true.
    """

    is_linear: bool
    is_differentiable: bool

    @property
    def n_data(self) -> int:
        """Number of measured values in the range: the number of terms of a chi-square."""
        ...

    @property
    def measured(self) -> Tensor | None:
        """Booleans over the range that mark the measured values; None if all are measured."""
        ...

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x``, ``(batch, *domain.shape)``, of fields of the same shape."""
        ...

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Diagonal of ``F A^H A F^H``, real, ``(*domain.shape)``; None where it is not known."""
        ...

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is diagonal in the DFT, so that ``gram_spectrum`` determines it."""
        ...


@runtime_checkable
class Prior(Protocol):
    """What is known of a field before the data: a denoiser that also gives its uncertainty.

    A class that derives from :class:`BasePrior` writes ``grid``, ``schedule`` and ``moments``, and
    inherits the rest. Optional members of any prior:

    ====================  ======================================  ================================
    member                meaning                                 where it is missing
    ====================  ======================================  ================================
    ``on(grid)``          the same prior on another grid          it must be built for the grid
    ``to(device)``        the same prior on another device        it stays where it is ``card``
    what it was trained on: name, data,     results name its repr
                          licence, ``sha256`` of the weights
    ``spread``            where its fields lie and how far they   samplers start about zero, and no
                          scatter: `invdiff.spread.Spread`      schedule is checked
    ``settings``          property: what identifies a run, by     its attributes
                          name; counters are left out
    ====================  ======================================  ================================
    """

    @property
    def grid(self) -> Grid:
        """Grid of the fields."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The noise levels of ``x_t = alpha(t) x_0 + sigma(t) eps``."""
        ...

    @property
    def needs_grad(self) -> bool:
        """Whether its moments use torch's differentiation, which excludes the inference mode."""
        ...

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t]`` and ``Cov[x_0 | x_t]``, for one network pass per member.

        Args:
            x_t: Noisy fields, ``(batch, *grid.shape)``.
            t: Time of the noisy fields, a scalar.
        """
        ...

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t]``, ``(batch, *grid.shape)``; the score follows by Tweedie's formula."""
        ...

    def covariance(self, x_t: Tensor, t: Tensor) -> Covariance:
        """``Cov[x_0 | x_t]`` as a linear operator on fields ``(batch, *grid.shape)``."""
        ...

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """One ``x_0`` per member, ``(batch, *grid.shape)``, from ``p(x_0 | x_t)``.

        By default a draw from the Gaussian with the moments. Samplers use it wherever they draw, so
        that a prior with a better approximation of ``p(x_0 | x_t)`` overrides it.
        """
        ...


class BasePrior(ABC):
    """A prior that is defined by its ``moments``; the other members follow from them.

    >>> import torch
    >>> from invdiff import Grid
    >>> from invdiff.covariance import SpectralCovariance
    >>> from invdiff.schedule import VE
    >>> class WhiteNoise(BasePrior):
    ...     "Independent standard normal values: E[x_0|x_t] = x_t / (1 + r^2), r = sigma / alpha."
    ...
    ...     def __init__(self, grid):
    ...         self.grid, self.schedule = grid, VE()
    ...
    ...     def moments(self, x_t, t):
    ...         alpha, ratio = self.levels(t)
    ...         variance = ratio**2 / (1 + ratio**2)
    ...         power = torch.full(self.grid.shape, variance)
    ...         return x_t / alpha / (1 + ratio**2), SpectralCovariance(power, is_complex=False)
    >>> prior = WhiteNoise(Grid(("y", "x"), (4, 4)))
    >>> prior.denoise(torch.ones(1, 4, 4), prior.schedule.time(torch.tensor(1.0)))[0, 0, 0]
    tensor(0.5000)
    """

    needs_grad: bool = False
    grid: Grid
    schedule: Schedule
    spread: Spread | None = None

    @abstractmethod
    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t]``, ``(batch, *grid.shape)``, and ``Cov[x_0 | x_t]``."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t]``, ``(batch, *grid.shape)``: the first of the moments."""
        return self.moments(x_t, t)[0]

    def covariance(self, x_t: Tensor, t: Tensor) -> Covariance:
        """``Cov[x_0 | x_t]``: the second of the moments."""
        return self.moments(x_t, t)[1]

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """``mean + L e`` per member, with ``L L^H`` the covariance and ``e`` white noise."""
        mean, covariance = self.moments(x_t, t)
        return mean + covariance.draw(noise(self.grid, 1).to(mean.dtype))

    def levels(self, t: Tensor) -> tuple[float, float]:
        """``alpha(t)`` and the noise-to-signal ratio ``sigma(t) / alpha(t)``."""
        alpha = float(self.schedule.alpha(t))
        return alpha, float(self.schedule.sigma(t)) / alpha


class Term(Protocol):
    """A differentiable log-density on fields: a likelihood, a penalty or a classifier."""

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Log-density of clean fields up to a constant, ``(batch,)``.

        Args:
            x_0: Clean fields, ``(batch, *grid.shape)``.
            x_t: Noisy fields, for terms that depend on them.
            t: Time of the noisy fields, a scalar.
        """
        ...


class Sampler(Protocol):
    """Draws members of a posterior, one step at a time; see `invdiff.samplers.base`.

    ``model`` is always an `invdiff.posterior.Posterior`; for a prior it has no terms.
    """

    @property
    def steps(self) -> int:
        """Number of steps of a run."""
        ...

    @property
    def couples_members(self) -> bool:
        """Whether members depend on each other, so that the whole ensemble is the unit of work."""
        ...

    @property
    def needs_grad(self) -> bool:
        """Whether it uses torch's differentiation, which excludes the inference mode."""
        ...

    def check(self, model: Any) -> None:
        """Refuse a posterior that this sampler cannot draw from."""
        ...

    def init(
        self, model: Any, noise: NoiseField, realizations: Sequence[int], *, device: torch.device
    ) -> Any:
        """The state before the first step."""
        ...

    def step(self, model: Any, noise: NoiseField, state: Any) -> Any:
        """The state after one more step; a pure function of its arguments."""
        ...


@runtime_checkable
class StepModel(Protocol):
    """A model of a flow that takes a state one time step ahead: ``x_(k+1) = M(x_k)``.

    Written in torch, so that it can be differentiated, for a batch of states that do not depend on
    each other. ``dt`` is in the unit of time of the model's equations. Optional are:

    ======================  ===================================  ===================================
    member                  meaning                              where it is missing
    ======================  ===================================  ===================================
    ``at(n)``               the model of the step after ``n``    the equations do not depend on time
                            steps, for those that depend on time
    ``is_differentiable``   torch can differentiate the step     True
    ``to(device)``          a copy on another device             the model stays where it is
    ``settings``            property: what identifies a run      its attributes
    ======================  ===================================  ===================================
    """

    @property
    def grid(self) -> Grid:
        """Grid of the states, with their units."""
        ...

    @property
    def dt(self) -> float:
        """Time step, positive."""
        ...

    def step(self, state: Tensor) -> Tensor:
        """States ``(batch, *grid.shape)`` one time step later, of states of the same shape."""
        ...


class WaveOperator(Protocol):
    """An operator with several shots, as `invdiff.operators.seismic.Acoustic`."""

    domain: Grid
    bounds: tuple[float, float]

    @property
    def range(self) -> Grid:
        """Grid of the data, ``(shot, receiver, time)``."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Data ``(batch, shot, receiver, time)`` of models: one solve per model and shot."""
        ...

    def misfit_and_gradient(self, x: Tensor, y: Tensor, *, misfit: Any) -> tuple[Tensor, Tensor]:
        """Misfits ``(batch,)`` and gradients, by a forward and an adjoint solve per shot."""
        ...

    def shots(self, indices: Sequence[int]) -> WaveOperator:
        """The operator of some of the shots."""
        ...

    def encoded(self, weights: Any) -> WaveOperator:
        """The operator of simultaneous sources."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """An inverse problem without its prior, ready for a verb: ``y = A(x) + noise``.

    Builders such as `invdiff.operators.mri.cartesian_problem` make one of the contents of a file.

    Args:
        operator: Forward operator ``A``.
        data: Data ``y``, of shape ``operator.range.shape``.
        noise_std: Standard deviation of the noise, in the units of ``data``; for complex data
            ``E|n|^2 = noise_std^2``.
        scale: Units of ``data`` in which the field has the prior's units.
        weights: Weights of the data, broadcastable to them; 0 leaves a value out. None weights all
            alike.
        start: Starting model on ``operator.domain``, for `invdiff.invert`.
        notes: What the builder found in the file and did about it, such as ``{"dead_traces": 3}``:
            the verbs store these as attributes ``invdiff_<key>``.
    """

    operator: Operator
    data: Tensor
    noise_std: float
    scale: float = 1.0
    weights: Tensor | None = None
    start: Tensor | None = None
    notes: Mapping[str, str | int | float] = field(default_factory=dict)
