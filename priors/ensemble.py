"""A Gaussian prior with the mean and the covariance of an ensemble."""

from __future__ import annotations

from typing import Any

from invdiff.arguments import as_number
from invdiff.covariance import GaspariCohn
from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.priors.checks import as_tensor
from invdiff.priors.gaussian import GaussianPrior
from invdiff.schedule import Schedule

__all__ = ["EnsemblePrior"]


class EnsemblePrior(GaussianPrior):
    r"""``N(mean, C)`` with mean and covariance of members, localized and inflated.

    With the anomalies ``a_i`` of ``M`` members and the correlation ``rho`` of the localization::

        C = inflation^2 rho o sum_i a_i a_i^T / (M - 1)

    The posterior of such a prior and linear Gaussian data has the mean of the ensemble Kalman
    filter; `invdiff.assimilation.EnKF` moves the members themselves to it. The sum of a prior's
    covariance and that of an ensemble, a hybrid, is ``hybrid=(share, matrix)``::

        C_hybrid = (1 - share) C + share matrix

    Assumptions: without localization ``C`` has rank ``M - 1``, and data can move the field along
    these directions only. Cost: one eigendecomposition, ``O(n^3)`` for ``n`` points.

    Args:
        grid: Grid of the fields.
        members: Members ``(M, *grid.shape)``, two or more.
        localization: Correlation by distance; None for none.
        inflation: Factor on the anomalies.
        hybrid: Share and matrix ``(n, n)`` of a further covariance; None for none.
        schedule: Noise levels of ``x_t`` in the units of the field; default: from its spread.

    Raises:
        InputError: Fewer than two members, or a factor that is not positive.
        ShapeError: Members of another shape than the grid.

    Example:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.covariance import GaspariCohn
        >>> from invdiff.priors import EnsemblePrior
        >>> members = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
        >>> prior = EnsemblePrior(Grid(("x",), (3,)), members, localization=GaspariCohn(1.0))
        >>> x_t, t = torch.zeros(1, 3), torch.tensor(1e4)  # noise that hides the field
        >>> prior.covariance(x_t, t)(torch.eye(3)[:1]).round(decimals=2)
        tensor([[2.0000, 0.4200, 0.0000]])
    """

    def __init__(
        self,
        grid: Grid,
        members: Any,
        *,
        localization: GaspariCohn | None = None,
        inflation: float = 1.0,
        hybrid: tuple[float, Any] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        n_members = len(members)
        if n_members < 2:
            raise InputError("an ensemble has too few members", got=n_members, expected=">= 2")
        fields = as_tensor(members, "members", shape=(n_members, *grid.shape), dtype=grid.dtype)
        mean = fields.mean(0)
        anomalies = as_number("inflation", inflation) * (fields - mean).flatten(1)
        covariance = anomalies.mT @ anomalies.conj() / (n_members - 1)
        if localization is not None:
            covariance = covariance * localization.matrix(grid).to(covariance)
        if hybrid is not None:
            share, matrix = hybrid
            other = as_tensor(matrix, "hybrid", shape=covariance.shape, dtype=grid.dtype)
            covariance = (1 - share) * covariance + share * other
        self.n_members = n_members
        super().__init__(grid, mean, covariance, schedule=schedule)
