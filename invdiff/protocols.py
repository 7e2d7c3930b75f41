"""The six small protocols everything else is written against. Structural: no one has to inherit.

Operators map fields on ``domain`` to data on ``range``; priors say what ``x_0`` looks like given a
noisy ``x_t``; terms say how well a field explains something; samplers draw; wave operators have
shots.
"""

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

__all__ = [
    "BasePrior",
    "LinearOperator",
    "Operator",
    "Prior",
    "Problem",
    "Sampler",
    "Term",
    "WaveOperator",
]


@runtime_checkable
class Operator(Protocol):
    """A forward operator, differentiable by torch.

    ``n_data`` counts the values of the range that are measured (a mask may leave out many): the
    number of terms in a chi-square.
    """

    @property
    def domain(self) -> Grid:
        """Grid of the fields."""
        ...

    @property
    def range(self) -> Grid:
        """Grid of the data."""
        ...

    @property
    def n_data(self) -> int:
        """Number of measured values in the range."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Data ``(batch, *range.shape)`` of fields ``(batch, *domain.shape)``."""
        ...


@runtime_checkable
class LinearOperator(Operator, Protocol):
    """A linear operator with its adjoint under ``<a, b> = sum conj(a) b``."""

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: ``(batch, *range.shape)`` to ``(batch, *domain.shape)``."""
        ...

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x``."""
        ...

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Diagonal of ``F A^H A F^H`` in the domain's DFT (``torch.fft`` order), if known.

        It preconditions solves; where ``A^H A`` is circulant it solves them outright.
        """
        ...

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is diagonal in the DFT, so that ``gram_spectrum`` is all of it."""
        ...


@runtime_checkable
class Prior(Protocol):
    """What is known of a field before data: a denoiser that also knows its spread."""

    @property
    def grid(self) -> Grid:
        """Grid of the fields."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The noise levels of ``x_t``."""
        ...

    @property
    def needs_grad(self) -> bool:
        """Whether evaluating it differentiates inside, so that inference mode is out."""
        ...

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t]`` and ``Cov[x_0 | x_t]``, for the price of one network pass.

        ``x_t`` is ``(batch, *grid.shape)``, ``t`` a scalar.
        """
        ...

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t]``, ``(batch, *grid.shape)``; the score follows by Tweedie."""
        ...

    def covariance(self, x_t: Tensor, t: Tensor) -> Covariance:
        """``Cov[x_0 | x_t]`` as a linear operator."""
        ...

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """One ``x_0`` a member, from the Gaussian with these moments."""
        ...


class BasePrior(ABC):
    """A prior that is its ``moments``; the rest follows."""

    needs_grad: bool = False
    grid: Grid
    schedule: Schedule

    @abstractmethod
    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        """``E[x_0 | x_t]`` and ``Cov[x_0 | x_t]``."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t]``."""
        return self.moments(x_t, t)[0]

    def covariance(self, x_t: Tensor, t: Tensor) -> Covariance:
        """``Cov[x_0 | x_t]``."""
        return self.moments(x_t, t)[1]

    def draw(self, x_t: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
        """``mean + L e``."""
        mean, covariance = self.moments(x_t, t)
        return mean + covariance.draw(noise(self.grid, 1).to(mean.dtype))

    def levels(self, t: Tensor) -> tuple[float, float]:
        """``alpha(t)`` and the noise-to-signal ratio ``sigma(t) / alpha(t)``."""
        alpha = float(self.schedule.alpha(t))
        return alpha, float(self.schedule.sigma(t)) / alpha


class Term(Protocol):
    """A differentiable log-density on fields: a likelihood, a penalty, a classifier."""

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Log-density up to a constant, ``(batch,)``."""
        ...


class Sampler(Protocol):
    """Draws members of a prior or posterior, one step at a time."""

    @property
    def steps(self) -> int:
        """Number of steps of a run."""
        ...

    @property
    def order(self) -> int:
        """Order of convergence in the step size."""
        ...

    @property
    def couples_members(self) -> bool:
        """Whether members depend on each other: the unit of work is then the whole ensemble."""
        ...

    @property
    def needs_grad(self) -> bool:
        """Whether it differentiates by itself, so that inference mode is out."""
        ...

    def check(self, model: Prior) -> None:
        """Refuse a model that this sampler cannot draw from."""
        ...

    def init(
        self, model: Prior, noise: NoiseField, realizations: Sequence[int], *, device: torch.device
    ) -> Any:
        """State before the first step."""
        ...

    def step(self, model: Prior, noise: NoiseField, state: Any) -> Any:
        """State after one more step; a pure function."""
        ...


class WaveOperator(Protocol):
    """An operator of several shots, as inversions ask for; `invdiff.operators.seismic.Acoustic`."""

    domain: Grid
    bounds: tuple[float, float]

    @property
    def range(self) -> Grid:
        """Grid of the data, ``(shot, receiver, time)``."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Data ``(batch, shot, receiver, time)``: one solve a model and shot."""
        ...

    def misfit_and_gradient(self, x: Tensor, y: Tensor, *, misfit: Any) -> tuple[Tensor, Tensor]:
        """Misfits ``(batch,)`` and gradients: a forward and an adjoint solve a model and shot."""
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

    Builders such as `invdiff.operators.mri.cartesian_problem` make it of what a file holds.

    Args:
        operator: the forward operator ``A``.
        data: ``y``, of shape ``operator.range.shape``.
        noise_std: standard deviation of the noise, in the units of ``data``; for complex data
            ``E|n|^2 = noise_std^2``.
        scale: units of ``data`` in which the field has the prior's units.
        weights: of the data, broadcastable to them; 0 leaves a value out. None weights all alike.
        start: starting model on ``operator.domain``, for `invdiff.invert`.
        notes: what the builder found in the file and did about it, such as
            ``{"dead_traces": 3}``: the verbs store these as attributes ``invdiff_<key>``.
    """

    operator: Operator
    data: Tensor
    noise_std: float
    scale: float = 1.0
    weights: Tensor | None = None
    start: Tensor | None = None
    notes: Mapping[str, str | int | float] = field(default_factory=dict)
