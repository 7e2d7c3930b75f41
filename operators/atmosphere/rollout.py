"""The observations of a model's trajectory as an operator of its initial state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.completion import completed
from invdiff.dynamics import check_step_model, check_steps, trajectory
from invdiff.errors import DTypeError, ShapeError
from invdiff.grid import Grid
from invdiff.protocols import CompleteOperator, Operator, StepModel

__all__ = ["Rollout"]


@dataclass(frozen=True)
class Rollout:
    r"""What is observed of a model's trajectory, as an operator of the state that it starts from.

    ::

        y = (H x_e, H x_2e, ..., H x_n),    x_(k+1) = M(x_k),    e = every

    with the step model ``M`` and the observation operator ``H``: the forward operator of 4D-Var and
    of smoothers. Data are labelled by ``time``, in the model's unit of time, from the initial state
    on. Without ``H`` they are the states themselves.

    ``H`` acts on one state, or on the trajectory as a whole where its domain has the dim ``time``
    in front: ``Rollout(model, n_steps, every=e).range`` is the grid of such an ``H``, for
    instance of a `Mask` that changes with time.

    Assumptions: a perfect model; ``M`` differentiable by torch if a gradient is asked for.

    Cost: ``n_steps`` steps, a gradient about three times that, see
    `invdiff.dynamics.trajectory` for its memory. The step and member of a state that is no longer
    finite are named in the error. Forward mode (`torch.func.jvp`) needs ``checkpoint=0``.

    Args:
        model: step model, see `invdiff.protocols.StepModel`.
        n_steps: steps of the trajectory, a multiple of ``every``.
        observed: ``H``, linear or not; None for the states themselves.
        every: steps between the observations.
        observes_start: whether the initial state is observed, too.
        checkpoint: steps between the states that a gradient stores, the others being computed
            again; 0 stores every step. By default every step up to 256 MB, else what needs least.

    Raises:
        InputError: numbers of steps that do not fit, or something else than a model or operator.
        ShapeError: an observation operator on another grid than states or trajectories.
        DTypeError: one for complex fields on a real model, or the reverse.

    References:
        Le Dimet and Talagrand (1986), Tellus A 38, 97; Griewank and Walther (2000), ACM TOMS 26,
        19 (checkpoints).

    Examples:
        Every other site of Lorenz's ring, five times in 50 steps:

        >>> import torch
        >>> from invdiff.operators import Select
        >>> from invdiff.operators.atmosphere import Lorenz96, Rollout
        >>> model = Lorenz96(40)
        >>> half = Select(model.grid, "site", range(0, 40, 2))
        >>> rollout = Rollout(model, 50, half, every=10)
        >>> rollout.range.dims, rollout.range.shape
        (('time', 'site'), (5, 20))
        >>> rollout(8 + torch.linspace(-1, 1, 40)[None]).shape
        torch.Size([1, 5, 20])
    """

    model: StepModel
    n_steps: int
    observed: Operator | None = None
    every: int = field(default=1, kw_only=True)
    observes_start: bool = field(default=False, kw_only=True)
    checkpoint: int | None = field(default=None, kw_only=True)
    is_linear: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_step_model(self.model)
        n_steps, every = check_steps(self.n_steps, self.every)
        object.__setattr__(self, "n_steps", n_steps)
        object.__setattr__(self, "every", every)
        if self.checkpoint is not None:
            object.__setattr__(
                self, "checkpoint", as_integer("checkpoint", self.checkpoint, least=0)
            )
        if self.observed is not None:
            on_states = self._observes_states
            _check_observed(self.observed.domain, self.model.grid if on_states else self._states)

    @property
    def domain(self) -> Grid:
        """Grid of the model's states."""
        return self.model.grid

    @cached_property
    def range(self) -> Grid:
        """Grid of the data: ``time`` and the range of the observation operator."""
        if self.observed is None:
            return self._states
        if not self._observes_states:
            return self.observed.range
        return self._over_time(self.observed.range)

    def __call__(self, x: Tensor) -> Tensor:
        """Data ``(batch, *range.shape)`` of initial states ``(batch, *domain.shape)``.

        Raises:
            NonFiniteError: an initial state with NaN or Inf.
            DivergedError: a state that is not finite after a step.
        """
        later = trajectory(
            self.model, x, self.n_steps, every=self.every, checkpoint=self.checkpoint
        )
        states = chain([x] if self.observes_start else [], later)
        if self._observation is None:
            return torch.stack([*states], 1)
        if self._observes_states:
            return torch.stack([self._observation(state) for state in states], 1)
        return self._observation(torch.stack([*states], 1))

    @property
    def is_differentiable(self) -> bool:
        """Whether the model and the observation operator are."""
        parts = (self.model, self.observed)
        return all(getattr(part, "is_differentiable", True) for part in parts)

    @property
    def measured(self) -> Tensor | None:
        """Booleans ``(*range.shape)``: what the observation operator measures; None for all."""
        mask = None if self._observation is None else self._observation.measured
        return mask if mask is None or not self._observes_states else mask.expand(self.range.shape)

    @property
    def n_data(self) -> int:
        """Number of measured values at all times."""
        if self._observation is None:
            return self.range.size
        n_times = len(self._steps) if self._observes_states else 1
        return n_times * self._observation.n_data

    def to(self, device: torch.device | str) -> Self:
        """A copy whose model and observation operator are on another device, if they can be."""
        moved: dict[str, Any] = {}
        for name in ("model", "observed"):
            move = getattr(getattr(self, name), "to", None)
            moved |= {} if move is None else {name: move(device)}
        return replace(self, **moved)

    @cached_property
    def _observation(self) -> CompleteOperator | None:
        return None if self.observed is None else completed(self.observed)

    @property
    def _observes_states(self) -> bool:
        observation = self._observation
        return observation is not None and observation.domain.ndim == self.model.grid.ndim

    @property
    def _steps(self) -> np.ndarray:
        """Numbers of the steps after which the trajectory is observed."""
        return np.arange(0 if self.observes_start else self.every, self.n_steps + 1, self.every)

    @property
    def _states(self) -> Grid:
        return self._over_time(self.model.grid)

    def _over_time(self, grid: Grid) -> Grid:
        """The grid with the dim ``time`` in front."""
        if "time" in grid.dims:
            raise ShapeError(
                "the observations of a state have a dim `time` of their own",
                got=grid.dims,
                expected="other names",
                hint="An operator on whole trajectories has the domain "
                "Rollout(model, n_steps, every=...).range.",
            )
        coords = {"time": self._steps * self.model.dt, **grid.coords}
        shape = (len(self._steps), *grid.shape)
        return Grid(("time", *grid.dims), shape, grid.dtype, coords, grid.units)


def _check_observed(domain: Grid, expected: Grid) -> None:
    """Refuse an observation operator on another grid; coordinates count where both have them."""
    if domain.shape != expected.shape:
        raise ShapeError(
            "the observation operator does not act on the model's states",
            got=f"a domain of shape {domain.shape}",
            expected=f"{expected.shape}, dims {expected.dims}",
            hint="Build it on model.grid, or on the range of a Rollout without it.",
        )
    if domain.is_complex != expected.is_complex:
        raise DTypeError(
            "the observation operator does not act on the model's states",
            got=domain.dtype,
            expected=expected.dtype,
        )
    for dim, theirs in zip(domain.dims, expected.dims, strict=True):
        if dim in domain.coords and theirs in expected.coords:
            got, wanted = np.asarray(domain.coords[dim]), np.asarray(expected.coords[theirs])
            numeric = got.dtype.kind in "iuf" and wanted.dtype.kind in "iuf"
            if not (np.allclose(got, wanted) if numeric else np.array_equal(got, wanted)):
                raise ShapeError(
                    f"the observation operator has other coordinates {dim!r} than the model",
                    got=np.array2string(got, threshold=6, precision=6),
                    expected=np.array2string(wanted, threshold=6, precision=6),
                    hint="Build the operator on model.grid.",
                )
