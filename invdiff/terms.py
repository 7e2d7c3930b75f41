"""Terms other than likelihoods: penalties, budgets, classifiers and parity between groups."""

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
    """A differentiable penalty, ``log p(x_0) = -strength * function(x_0)`` up to a constant.

    It multiplies a prior as a likelihood does, ``Posterior(prior, likelihood, penalty)``. The
    conditionings take it to first order at ``E[x_0 | x_t]``, which is accurate for a penalty that
    varies little over the prior's spread; weighted particles correct the rest. Cost: one gradient
    of the function per step.

    Args:
        function: The penalty of each member, from fields ``(batch, *shape)`` to ``(batch,)``.
        strength: The log density lost per unit of the penalty, ``>= 0``.

    Raises:
        InputError: ``strength`` is negative or not finite.

    Examples:
        >>> import torch
        >>> from invdiff.terms import Penalty
        >>> roughness = Penalty(lambda x: x.diff(dim=1).square().sum(1), strength=0.5)
        >>> x_0 = torch.tensor([[0.0, 1.0, 3.0]])
        >>> roughness.log_prob(x_0, x_0, torch.tensor(0.0))
        tensor([-2.5000])
    """

    function: Callable[[Tensor], Tensor]
    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise InputError(
                "the strength is out of range", got=self.strength, expected="finite, >= 0"
            )

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The log density of each member up to a constant, ``(batch,)``.

        Args:
            x_0: Clean fields, ``(batch, *shape)``.
            x_t: The noisy fields from which they were denoised; not used.
            t: The time of the noisy fields; not used.

        Raises:
            ShapeError: ``function`` does not return one number per member.
        """
        return -self.strength * _per_member(self.function(x_0), x_0)


class QuadraticTerm(ABC):
    """A term ``-|s(x_0) - target|^2 / (2 std^2)``, quadratic in a statistic ``s`` of the field.

    It is equivalent to Gaussian data of the statistic, and posteriors take it as that likelihood,
    which is exact for any ``std`` where the statistic is linear. It changes what is correlated with
    the statistic, by Bayes' rule, and nothing else.

    A subclass defines :meth:`statistic`, :meth:`likelihood` and ``log_prob``.

    Examples:
        >>> from invdiff.terms import Conservation, QuadraticTerm
        >>> isinstance(Conservation(total=1.0, std=0.1), QuadraticTerm)
        True
    """

    std: float

    @abstractmethod
    def statistic(self, x_0: Tensor) -> Tensor:
        """The statistic of each member, ``(batch, k)``."""

    @abstractmethod
    def likelihood(self, grid: Grid) -> Gaussian:
        """The equivalent likelihood of the statistic as data, for fields on ``grid``."""

    def _likelihood(self, target: Tensor, operator: Operator) -> Gaussian:
        # The likelihood of complex data has no factor 1/2: E|n|^2 is the whole variance.
        noise = self.std * (2**0.5 if target.is_complex() else 1.0)
        return Gaussian(target, operator, noise)


@dataclass(frozen=True)
class Conservation(QuadraticTerm):
    """A budget, ``-(sum_i w_i x_i - total)^2 / (2 std^2)``: fields keep a total up to ``std``.

    Posteriors take it as a Gaussian likelihood of the weighted sum (:class:`QuadraticTerm`), which
    is exact for any ``std``. Cost: one product with the weights per step.

    Args:
        total: The total of the field, such as its mass, in units of the field times the weights.
        std: The standard deviation of the total, in the same units, positive.
        weights: The weights ``w``, ``(*shape)``, such as cell areas; ones by default.

    Raises:
        NoiseLevelError: ``std`` is not finite and positive.

    Examples:
        >>> import torch
        >>> from invdiff.terms import Conservation
        >>> mass = Conservation(total=10.0, std=2.0)
        >>> x_0 = torch.tensor([[5.0, 5.0], [6.0, 8.0]])
        >>> mass.log_prob(x_0, x_0, torch.tensor(0.0)) + 0.0
        tensor([ 0., -2.])
    """

    total: float
    std: float
    weights: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_std(self.std)

    def statistic(self, x_0: Tensor) -> Tensor:
        """The weighted sum of each member, ``(batch, 1)``."""
        weighted = x_0 if self.weights is None else self.weights.to(x_0) * x_0
        return weighted.flatten(1).sum(1, keepdim=True)

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The log density of each member up to a constant, ``(batch,)``."""
        return -squared_norm(self.statistic(x_0) - self.total) / (2 * self.std**2)

    def likelihood(self, grid: Grid) -> Gaussian:
        """The total as one datum of the weighted sum, for fields on ``grid``."""
        weights = torch.ones(grid.shape) if self.weights is None else self.weights
        operator = _Rows(grid, weights.to(grid.dtype).flatten()[None])
        return self._likelihood(torch.full((1,), self.total, dtype=grid.dtype), operator)


@dataclass(frozen=True)
class Classifier:
    """Classifier guidance, ``scale * log p(label | x_0)``.

    The classifier sees denoised fields, so that one trained on clean data serves; guidance as
    published uses a classifier of noisy fields. ``scale=1`` is Bayes' rule. The conditionings take
    the term to first order at ``E[x_0 | x_t]``. Cost: one gradient of the classifier per step.

    Args:
        log_prob_of: The log probability of the label, from fields ``(batch, *shape)`` to
            ``(batch,)``; for a network with logits,
            ``lambda x: network(x).log_softmax(1)[:, label]``.
        scale: The exponent of the likelihood, ``>= 0``; more than 1 sharpens it.

    Raises:
        InputError: ``scale`` is negative or not finite.

    References:
        Dhariwal and Nichol, 2021, arXiv 2105.05233.

    Examples:
        >>> import torch
        >>> from invdiff.terms import Classifier
        >>> positive = Classifier(lambda x: torch.nn.functional.logsigmoid(x.sum(1)))
        >>> x_0 = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
        >>> positive.log_prob(x_0, x_0, torch.tensor(0.0))
        tensor([-0.6931, -0.0486])
    """

    log_prob_of: Callable[[Tensor], Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise InputError("the scale is out of range", got=self.scale, expected="finite, >= 0")

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The scaled log probability of the label for each member, ``(batch,)``.

        Raises:
            ShapeError: ``log_prob_of`` does not return one number per member.
        """
        return self.scale * _per_member(self.log_prob_of(x_0), x_0)


@dataclass(frozen=True, eq=False)
class GroupFairness(QuadraticTerm):
    """Statistical parity between groups of points, ``-sum_g (f_g - f)^2 / (2 std^2)``.

    ``f_g`` is the mean over group ``g`` of a prediction made from the field, and ``f`` the mean of
    the ``f_g``; two groups give ``-(f_1 - f_2)^2 / (4 std^2)``. Posteriors take it as a Gaussian
    likelihood of the differences (:class:`QuadraticTerm`), which is exact for any ``std`` where the
    prediction is linear. Cost: one prediction, and its gradient, per step.

    Args:
        groups: The group of each point, ``(*shape)``, integers: 0 for points of no group, then 1,
            2, ... without gaps.
        std: The standard deviation of the differences, in units of the prediction, positive.
        prediction: The map from fields to predictions of the same shape, such as a smooth
            threshold; the field itself by default.

    Raises:
        InputError: Fewer than two groups, an empty group, or labels that are not integers.
        NoiseLevelError: ``std`` is not finite and positive.

    Examples:
        >>> import torch
        >>> from invdiff.terms import GroupFairness
        >>> parity = GroupFairness(torch.tensor([1, 1, 2, 2]), std=1.0)
        >>> x_0 = torch.tensor([[1.0, 3.0, 5.0, 7.0]])
        >>> parity.gaps(x_0)
        tensor([[-2.,  2.]])
        >>> parity.log_prob(x_0, x_0, torch.tensor(0.0))
        tensor([-4.])
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
                "the labels do not define groups to compare",
                got=f"labels {labels}",
                expected="1, 2, ... for at least two groups, 0 for points of no group",
                hint="Number the groups from 1 without gaps.",
            )

    def statistic(self, x_0: Tensor) -> Tensor:
        """The mean prediction of each group, ``(batch, n_groups)``.

        Raises:
            ShapeError: The predictions do not have the shape of the groups.
        """
        values = x_0 if self.prediction is None else self.prediction(x_0)
        if values.shape[1:] != self.groups.shape:
            raise ShapeError(
                "the predictions do not have the shape of the groups",
                got=tuple(values.shape[1:]),
                expected=tuple(self.groups.shape),
            )
        numbers = range(1, int(self.groups.max()) + 1)
        return torch.stack([values[:, self.groups == g].mean(1) for g in numbers], 1)

    def gaps(self, x_0: Tensor) -> Tensor:
        """The mean of each group minus the mean of all groups, ``(batch, n_groups)``."""
        means = self.statistic(x_0)
        return means - means.mean(1, keepdim=True)

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The log density of each member up to a constant, ``(batch,)``."""
        return -squared_norm(self.gaps(x_0)) / (2 * self.std**2)

    def likelihood(self, grid: Grid) -> Gaussian:
        """Zeros as data of the gaps, for fields on ``grid``."""
        if self.prediction is not None:
            probe = self.gaps(torch.zeros(1, *grid.shape, dtype=grid.dtype))
            return self._likelihood(torch.zeros_like(probe[0]), _Statistic(grid, self.gaps, probe))
        eye = torch.eye(grid.size, dtype=grid.dtype).reshape(-1, *grid.shape)
        rows = self.gaps(eye).mT
        return self._likelihood(torch.zeros(len(rows), dtype=grid.dtype), _Rows(grid, rows))


class _Statistic:
    """A few numbers of a field, as an operator with the range ``(k,)``."""

    def __init__(self, domain: Grid, function: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.domain, self.function = domain, function
        self.range = Grid(("statistic",), tuple(like.shape[1:]), like.dtype)

    @property
    def n_data(self) -> int:
        """The number of values of the statistic."""
        return self.range.size

    def __call__(self, x: Tensor) -> Tensor:
        """The statistic of each member, ``(batch, k)``."""
        return self.function(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_data} numbers)"


class _Rows(_Statistic):
    """Linear statistics ``rows x``, with ``rows`` of shape ``(k, n)``."""

    gram_spectrum: Tensor | None = None
    is_circulant: bool = False

    def __init__(self, domain: Grid, rows: Tensor) -> None:
        super().__init__(domain, self._product, rows.mT[:1])
        self.rows = rows

    def _product(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.rows.mT.to(x.device)

    def adjoint(self, y: Tensor) -> Tensor:
        """The fields ``rows^H y``, ``(batch, *shape)``."""
        x: Tensor = y @ self.rows.conj().to(y.device)
        return x.reshape(-1, *self.domain.shape)

    def gram(self, x: Tensor) -> Tensor:
        """The fields ``rows^H rows x``, ``(batch, *shape)``."""
        return self.adjoint(self(x))


def _check_std(std: float) -> None:
    if not 0 < std < math.inf:
        raise NoiseLevelError(
            "the standard deviation of a term is not positive", got=std, expected="finite, > 0"
        )


def _per_member(values: Tensor, x_0: Tensor) -> Tensor:
    """Refuse anything but one number per member, which a sum would mix without notice."""
    if values.shape != x_0.shape[:1]:
        raise ShapeError(
            "a term must give one number per member",
            got=tuple(values.shape),
            expected=(len(x_0),),
            hint="Sum over all axes but the first.",
        )
    return values
