r"""Terms besides likelihoods: what else is asked of a field, as a log-density up to a constant.

They multiply a prior as likelihoods do, ``Posterior(prior, likelihood, term)``, and move whatever
is correlated with their statistic, as Bayes' rule says, and nothing else.

Those that are quadratic in a statistic (:class:`Conservation`, :class:`GroupFairness`) are data of
that statistic: a posterior takes them as the Gaussian likelihoods they are, exact at any width
where the statistic is linear. Other terms enter the conditionings to first order at
``E[x_0 | x_t]``, which is good for a term that is wide beside the prior's spread of its statistic;
weighted particles make good what that gets wrong. Cost: one gradient of the term a step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invdiff.errors import InputError, NoiseLevelError, ShapeError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.linalg import squared_norm
from invdiff.protocols import Operator

__all__ = ["Classifier", "Conservation", "GroupFairness", "Penalty", "QuadraticTerm"]


@dataclass(frozen=True)
class Penalty:
    """``-strength * function(x_0)``: any differentiable penalty.

    Args:
        function: fields ``(batch, *shape)`` to penalties ``(batch,)``.
        strength: how much a unit of it costs in log-density, ``>= 0``.

    Raises:
        InputError: a strength that is negative or not finite.
    """

    function: Callable[[Tensor], Tensor]
    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise InputError("strength out of range", got=self.strength, expected="finite, >= 0")

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """``(batch,)``."""
        return -self.strength * _per_member(self.function(x_0), x_0)


class QuadraticTerm(ABC):
    """``-|statistic(x_0) - target|^2 / (2 std^2)``."""

    std: float

    @abstractmethod
    def statistic(self, x_0: Tensor) -> Tensor:
        """``(batch, k)``."""

    @abstractmethod
    def likelihood(self, grid: Grid) -> Gaussian:
        """The same as data of the statistic, for fields on ``grid``."""

    def _likelihood(self, target: Tensor, operator: Operator) -> Gaussian:
        # Complex data leave out the half: E|n|^2 is the whole variance.
        noise = self.std * (2**0.5 if target.is_complex() else 1.0)
        return Gaussian(target, operator, noise)


@dataclass(frozen=True)
class Conservation(QuadraticTerm):
    """``-(sum_i w_i x_i - total)^2 / (2 std^2)``: a budget that fields keep up to ``std``.

    Args:
        total: of the field, such as its mass; in units of the field times the weights.
        std: by how much it may be missed.
        weights: ``(*shape)``, for example cell areas; None for ones.

    Raises:
        NoiseLevelError: ``std`` not positive.
    """

    total: float
    std: float
    weights: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_std(self.std)

    def statistic(self, x_0: Tensor) -> Tensor:
        """``sum_i w_i x_i``, ``(batch, 1)``."""
        weighted = x_0 if self.weights is None else self.weights.to(x_0) * x_0
        return weighted.flatten(1).sum(1, keepdim=True)

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """``(batch,)``."""
        return -squared_norm(self.statistic(x_0) - self.total) / (2 * self.std**2)

    def likelihood(self, grid: Grid) -> Gaussian:
        """The total as a datum of the weighted sum."""
        weights = torch.ones(grid.shape) if self.weights is None else self.weights
        operator = _Rows(grid, weights.to(grid.dtype).flatten()[None])
        return self._likelihood(torch.full((1,), self.total, dtype=grid.dtype), operator)


@dataclass(frozen=True)
class Classifier:
    r"""``scale * log p(label | x_0)``: classifier guidance.

    Dhariwal & Nichol 2021, arXiv 2105.05233. The classifier sees clean fields, so one trained on
    data will do; guidance proper has one of noisy fields. ``scale = 1`` is Bayes' rule.

    Args:
        log_prob_of: fields ``(batch, *shape)`` to ``log p(label | x_0)``, ``(batch,)``; for a
            network with logits, ``lambda x: network(x).log_softmax(1)[:, label]``.
        scale: exponent of the likelihood; more than 1 sharpens it.

    Raises:
        InputError: a scale that is negative or not finite.
    """

    log_prob_of: Callable[[Tensor], Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise InputError("scale out of range", got=self.scale, expected="finite, >= 0")

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """``(batch,)``."""
        return self.scale * _per_member(self.log_prob_of(x_0), x_0)


@dataclass(frozen=True, eq=False)
class GroupFairness(QuadraticTerm):
    r"""``-sum_g (f_g - f)^2 / (2 std^2)``: statistical parity between labelled groups of points.

    ``f_g`` is the mean over group ``g`` of a prediction made from the field, ``f`` the mean of the
    ``f_g``. Two groups give ``-(f_1 - f_2)^2 / (4 std^2)``.

    Args:
        groups: ``(*shape)``, whole numbers: 0 for points of no group, then 1, 2, ...
        std: by how much groups may differ from their mean, in units of the prediction.
        prediction: fields to predictions of the same shape, such as a smooth threshold; None for
            the field itself.

    Raises:
        InputError: fewer than two groups, an empty one, or labels that are not whole numbers.
        NoiseLevelError: ``std`` not positive.
    """

    groups: Tensor = field(repr=False)
    std: float
    prediction: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        _check_std(self.std)
        labels = self.groups.unique().tolist()
        n_groups = int(max(labels))
        if n_groups < 2 or [g for g in labels if g != 0] != list(range(1, n_groups + 1)):
            raise InputError(
                "no groups to compare",
                got=f"labels {labels}",
                expected="1, 2, ... for at least two groups, 0 for no group",
                hint="Number the groups from 1 without gaps.",
            )

    def statistic(self, x_0: Tensor) -> Tensor:
        """Mean prediction of each group, ``(batch, n_groups)``."""
        values = x_0 if self.prediction is None else self.prediction(x_0)
        if values.shape[1:] != self.groups.shape:
            raise ShapeError(
                "predictions do not match the groups",
                got=tuple(values.shape[1:]),
                expected=tuple(self.groups.shape),
            )
        numbers = range(1, int(self.groups.max()) + 1)
        return torch.stack([values[:, self.groups == g].mean(1) for g in numbers], 1)

    def gaps(self, x_0: Tensor) -> Tensor:
        """How far each group's mean is from the mean of all, ``(batch, n_groups)``."""
        means = self.statistic(x_0)
        return means - means.mean(1, keepdim=True)

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """``(batch,)``."""
        return -squared_norm(self.gaps(x_0)) / (2 * self.std**2)

    def likelihood(self, grid: Grid) -> Gaussian:
        """Zeros as data of the gaps."""
        if self.prediction is not None:
            probe = self.gaps(torch.zeros(1, *grid.shape, dtype=grid.dtype))
            return self._likelihood(torch.zeros_like(probe[0]), _Statistic(grid, self.gaps, probe))
        eye = torch.eye(grid.size, dtype=grid.dtype).reshape(-1, *grid.shape)
        rows = self.gaps(eye).mT
        return self._likelihood(torch.zeros(len(rows), dtype=grid.dtype), _Rows(grid, rows))


class _Statistic:
    """A few numbers of a field, as an operator."""

    def __init__(self, domain: Grid, function: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.domain, self.function = domain, function
        self.range = Grid(("statistic",), tuple(like.shape[1:]), like.dtype)

    @property
    def n_data(self) -> int:
        """All of them."""
        return self.range.size

    def __call__(self, x: Tensor) -> Tensor:
        """``(batch, k)``."""
        return self.function(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_data} numbers)"


class _Rows(_Statistic):
    """Linear ones: ``rows x`` with ``rows`` ``(k, n)``."""

    gram_spectrum: Tensor | None = None
    is_circulant: bool = False

    def __init__(self, domain: Grid, rows: Tensor) -> None:
        super().__init__(domain, self._product, rows.mT[:1])
        self.rows = rows

    def _product(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.rows.mT.to(x.device)

    def adjoint(self, y: Tensor) -> Tensor:
        """``rows^H y``."""
        x: Tensor = y @ self.rows.conj().to(y.device)
        return x.reshape(-1, *self.domain.shape)

    def gram(self, x: Tensor) -> Tensor:
        """``rows^H rows x``."""
        return self.adjoint(self(x))


def _check_std(std: float) -> None:
    if not 0 < std < math.inf:
        raise NoiseLevelError("std is not positive", got=std, expected="finite, > 0")


def _per_member(values: Tensor, x_0: Tensor) -> Tensor:
    """Refuse anything but one number a member, which a sum would mix in silence."""
    if values.shape != x_0.shape[:1]:
        raise ShapeError(
            "a term gives one number a member",
            got=tuple(values.shape),
            expected=(len(x_0),),
            hint="Sum over all axes but the first.",
        )
    return values
