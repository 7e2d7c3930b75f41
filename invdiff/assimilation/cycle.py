"""Cycles of forecast and analysis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from invdiff.assimilation.analysis import Analysis, correlations, predictions
from invdiff.completion import completed
from invdiff.errors import DivergedError, DivergedMembersWarning
from invdiff.grid import Grid
from invdiff.likelihood import Likelihood
from invdiff.noise import NoiseField, StepNoise
from invdiff.protocols import CompleteOperator, Operator, StepModel

__all__ = ["Cycle", "Observation", "cycles"]

LikelihoodOf = Callable[[Tensor, Operator], Likelihood]
"""The likelihood of data ``(*range.shape)`` of an operator, such as with a noise level."""


class Observation(NamedTuple):
    """The data of one time."""

    n_steps: int
    """Steps of the model since the last data, or since the initial states."""
    y: Tensor
    """Data ``(*observed.range.shape)``; NaN where nothing was observed."""


class Cycle(NamedTuple):
    """One cycle: the members before and after the data, and how the data agree with those before.

    Members that diverged are missing; ``numbers`` says which are there.
    """

    numbers: tuple[int, ...]
    background: Tensor
    analysis: Tensor
    innovation: float
    """``d^T (H B H^T + R)^-1 d / n`` of the mean before the data: 1 is expected; NaN without."""
    misfit: float
    """Mean over the members after the data of ``|y - H x|^2`` over the noise, per datum."""
    n_data: int


def cycles(
    members: Tensor,
    observations: Iterable[Observation],
    *,
    model: StepModel,
    observed: Operator,
    analysis: Analysis,
    likelihood: LikelihoodOf,
    seed: int,
) -> Iterator[Cycle]:
    """The cycles of an assimilation, one for each time that has data.

    A member whose state is no longer finite is left out from there on, with a warning. Members
    depend on each other; the noise of a member and cycle depends on their numbers alone.

    Args:
        members: Initial members ``(M, *model.grid.shape)``.
        observations: Data in the order of time.
        model: Step model.
        observed: Operator on the model's states.
        analysis: What turns members before the data into members after them.
        likelihood: Likelihood of data and operator.
        seed: Seed of all noise.

    Raises:
        DivergedError: Fewer than two members are left.

    Warns:
        DivergedMembersWarning: Members that diverged, by number and cycle.
    """
    noise, x, numbers = NoiseField(seed), members, tuple(range(len(members)))
    for number, (n_steps, y) in enumerate(observations):
        before = x
        x = _forecast(model, before, n_steps)
        x, numbers, before = _alive(x, numbers, before, cycle=number, what="the forecast")
        data = likelihood(torch.nan_to_num(y), _Present(observed, ~torch.isnan(y)))
        if data.operator.n_data == 0:
            yield Cycle(numbers, x, x, torch.nan, torch.nan, 0)
            continue
        background, innovation = x, _innovation(x, data, analysis)
        step_noise = StepNoise(noise, numbers, number, x.device)
        if analysis.starts_before and n_steps:
            ahead = likelihood(data.y, _Ahead(data.operator, model, n_steps))
            x = _forecast(model, analysis(before, ahead, step_noise), n_steps)
        else:
            x = analysis(x, data, step_noise)
        x, numbers, background = _alive(x, numbers, background, cycle=number, what="the analysis")
        misfit = float(data.misfit(x).mean())
        yield Cycle(numbers, background, x, innovation, misfit, data.operator.n_data)


def _forecast(model: StepModel, x: Tensor, n_steps: int) -> Tensor:
    with torch.no_grad():
        for _ in range(n_steps):
            x = model.step(x)
    return x


def _alive(
    x: Tensor, numbers: tuple[int, ...], others: Tensor, *, cycle: int, what: str
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """The members that are finite, their numbers, and what else belongs to them."""
    is_finite = torch.isfinite(x).flatten(1).all(1)
    if bool(is_finite.all()):
        return x, numbers, others
    kept = tuple(n for n, ok in zip(numbers, is_finite.tolist(), strict=True) if ok)
    lost = [n for n in numbers if n not in kept]
    if len(kept) < 2:
        raise DivergedError(
            f"{what} of cycle {cycle} diverged",
            got=f"NaN or Inf in all members but {len(kept)}",
            expected="two members or more that are finite",
            hint="Shorten the time step of the model, or check noise level and inflation.",
        )
    warnings.warn(
        f"Members {', '.join(map(str, lost))} diverged in {what} of cycle {cycle} and are left out"
        " from there on.",
        DivergedMembersWarning,
        stacklevel=4,
    )
    return x[is_finite], kept, others[is_finite]


def _innovation(x: Tensor, data: Likelihood, analysis: Analysis) -> float:
    """``d^T (H B H^T + R)^-1 d / n``, with the localization and inflation of the analysis."""
    predicted = predictions(x, data)
    rho = correlations(getattr(analysis, "localization", None), data, x.mean(0))
    own = getattr(analysis, "inflation", 1.0) ** 2 * rho.of_data * predicted.covariance
    d = predicted.residuals.mean(0)
    eye = torch.eye(len(own), dtype=own.dtype, device=own.device)
    return float(d @ torch.linalg.solve(own + eye, d)) / len(d)


class _Composed:
    """An operator made of another one, whose optional members it hands on."""

    def __init__(self, operator: Operator) -> None:
        self.operator: CompleteOperator = completed(operator)
        self.domain: Grid = operator.domain
        self.range: Grid = operator.range

    def __repr__(self) -> str:
        return repr(self.operator)

    @property
    def is_differentiable(self) -> bool:
        return self.operator.is_differentiable

    @property
    def measured(self) -> Tensor | None:
        return self.operator.measured

    @property
    def n_data(self) -> int:
        return self.operator.n_data


class _Present(_Composed):
    """An operator whose missing data are not measured."""

    def __init__(self, operator: Operator, is_present: Tensor) -> None:
        super().__init__(operator)
        measured = self.operator.measured
        self._is_present = is_present if measured is None else is_present & measured

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self._is_present, self.operator(x), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(torch.where(self._is_present, y, 0))

    @property
    def is_linear(self) -> bool:
        return self.operator.is_linear

    @property
    def measured(self) -> Tensor:
        return self._is_present

    @property
    def n_data(self) -> int:
        return int(self._is_present.sum())


class _Ahead(_Composed):
    """An operator of the states some steps later, as one of the states before these."""

    is_linear = False

    def __init__(self, operator: Operator, model: StepModel, n_steps: int) -> None:
        super().__init__(operator)
        self._model, self._n_steps = model, n_steps

    def __call__(self, x: Tensor) -> Tensor:
        for _ in range(self._n_steps):
            x = self._model.step(x)
        return self.operator(x)
