r"""Terms besides likelihoods: what else is asked of a field, as a log-density up to a constant.

They multiply a prior as likelihoods do, ``Posterior(prior, likelihood, term)``. How they enter is
the method's affair: the conditionings take them to first order at ``E[x_0 | x_t]``, which is good
for a term that is wide beside the prior's own spread of its statistic; split Gibbs evaluates them
at clean fields and is exact in the limit. A term moves whatever is correlated with its statistic,
as Bayes' rule says, and nothing else. Linear? None need be. Cost: one gradient of the term a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invdiff.errors import InputError, NoiseLevelError, ShapeError

__all__ = ["Classifier", "Conservation", "GroupFairness", "Penalty"]


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


@dataclass(frozen=True)
class Conservation:
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
        """``sum_i w_i x_i``, ``(batch,)``."""
        weighted = x_0 if self.weights is None else self.weights.to(x_0) * x_0
        return weighted.flatten(1).sum(1)

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """``(batch,)``."""
        return -((self.statistic(x_0) - self.total).abs() ** 2) / (2 * self.std**2)


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
class GroupFairness:
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
                mend="Number the groups from 1 without gaps.",
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

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """``(batch,)``."""
        means = self.statistic(x_0)
        gaps = (means - means.mean(1, keepdim=True)).abs()
        return -(gaps**2).sum(1) / (2 * self.std**2)


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
            mend="Sum over all axes but the first.",
        )
    return values
