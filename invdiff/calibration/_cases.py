"""Means over values whose uncertainty is counted in independent cases, not in values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import t as student

from invdiff.errors import InputError, ShapeError

__all__ = ["CaseMeans", "assumption", "case_means", "check_independent"]


@dataclass(frozen=True, eq=False)
class CaseMeans:
    """Means of ``k`` scores with their sampling covariance.

    Attributes:
        mean: The means, ``(k,)``.
        covariance: The covariance of the means, ``(k, k)``.
        n_cases: The number of independent cases behind them.
        n_values: The number of values in these cases.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n_cases: int
    n_values: int

    def p_values(self) -> NDArray[np.float64]:
        """Two-sided p-values of the t-tests that each mean is zero, ``(k,)``."""
        error = np.sqrt(np.diag(self.covariance))
        is_exact = error == 0
        ratio = np.abs(self.mean) / np.where(is_exact, 1, error)
        p: NDArray[np.float64] = 2 * student.sf(ratio, self.n_cases - 1)
        return np.where(is_exact, np.where(self.mean == 0, 1.0, 0.0), p)


def check_independent(dims: tuple[object, ...], dim_independent: str | None) -> None:
    """Check that the independent dimension is one of the truth's.

    Raises:
        ShapeError: It is not.
    """
    if dim_independent is not None and dim_independent not in dims:
        raise ShapeError(
            "the truth lacks the independent dimension",
            got=f"dim_independent={dim_independent!r}, truth with {dims}",
            expected="a dimension of the truth, or None",
            hint="Name the dimension along which cases are independent of each other.",
        )


def case_means(
    scores: xr.DataArray, where: xr.DataArray, dim_independent: str | None, *, along: str
) -> CaseMeans:
    r"""Means over all evaluated values, with the covariance between cases (a ratio estimator).

    With the sums :math:`s_i` over the :math:`m_i` values of case :math:`i`,
    :math:`\bar x = \sum s_i / \sum m_i` and
    :math:`\mathrm{Cov}(\bar x) = \frac{n}{n-1} \sum r_i r_i^T / (\sum m_i)^2`,
    :math:`r_i = s_i - m_i \bar x`.

    Args:
        scores: The scores, with a dimension ``along`` of length ``k`` and the dims of ``where``.
        where: True where values are evaluated.
        dim_independent: The name of the dimension along which cases are independent. By default
            each value counts as an independent case.
        along: The name of the dimension of the scores.

    Raises:
        ShapeError: ``where`` lacks ``dim_independent``.
        InputError: Fewer than two cases.
    """
    check_independent(where.dims, dim_independent)
    scores = scores.where(where, 0).transpose(along, *where.dims)
    if dim_independent is None:
        sums = scores.values.reshape(scores.sizes[along], -1)
        counts = where.values.ravel().astype(float)
    else:
        inner = [name for name in where.dims if name != dim_independent]
        sums = scores.sum(inner).values.astype(float)
        counts = where.sum(inner).values.astype(float)
    sums, counts = sums[:, counts > 0].astype(float), counts[counts > 0]
    n = counts.size
    if n < 2:
        raise InputError(
            "a statistical uncertainty needs independent cases",
            got=f"{n} cases",
            expected="at least 2 cases",
            hint="Give more cases, or dim_independent=None to count each value as a case.",
        )
    mean = sums.sum(1) / counts.sum()
    residual = (sums - mean[:, None] * counts) / counts.sum()
    covariance = residual @ residual.T * (n / (n - 1))
    return CaseMeans(mean, covariance, n, int(counts.sum()))


def assumption(dim_independent: str | None) -> str:
    """What a band or p-value takes for granted, for the attributes of a result."""
    if dim_independent is None:
        return "each value independent of the others; the band is too narrow for correlated values"
    return f"cases along {dim_independent!r} independent of each other"
