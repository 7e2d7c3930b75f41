r"""Are numbers in (0, 1) uniform? Chi-square, a smooth test for correlated values, the ECDF band.

PIT values and normalised ranks of a calibrated ensemble are uniform. How sure one may be that they
are not depends on how many of them are independent:

- :func:`chi_square_p_value`: counts of independent values in equal bins (Pearson).
- :func:`smooth_p_value`: values in independent cases, correlated inside each. The first Legendre
  polynomials of the values (Neyman 1937: location, spread, skewness, kurtosis) have mean zero if
  the values are uniform. The sum of their squared means is compared with the scaled chi-square
  of its first two moments, by the covariance between cases (Rao and Scott, Annals of Statistics 12,
  1984). Hotelling's T^2 in its place rejects twice too often at 20 cases, since the scores of a
  case are skewed.
- :func:`pit_ecdf`: the empirical distribution function inside a band that holds *all* of it with
  the given confidence (Sailynoja, Buerkner and Vehtari, Statistics and Computing 32, 2022; by
  simulation).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xarray as xr
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import binom, chi2, chisquare

from invdiff.calibration._cases import case_means
from invdiff.errors import InputError, NonFiniteError, ShapeError

__all__ = ["chi_square_p_value", "legendre_scores", "pit_ecdf", "smooth_p_value"]

ORDER = 4


def chi_square_p_value(counts: NDArray[np.int64]) -> float:
    """Probability of counts as uneven as these, if independent values fall in equal bins.

    Args:
        counts: ``(n_bins,)``.

    Raises:
        InputError: fewer than two bins, or no counts.
    """
    if len(counts) < 2 or np.sum(counts) < 1:
        raise InputError("no histogram", got=counts, expected="at least 2 bins and 1 value")
    return float(chisquare(counts).pvalue)


def legendre_scores(pit: xr.DataArray, order: int) -> xr.DataArray:
    r"""Legendre polynomials ``sqrt(2 j + 1) P_j(2 u - 1)``, j >= 1: mean 0, variance 1.

    The first is positive where the truth lies above the ensemble, the second where outside.
    """
    values = legvander(2 * pit.values - 1, order)[..., 1:] * np.sqrt(
        2 * np.arange(1, order + 1) + 1
    )
    return xr.DataArray(values, dims=(*pit.dims, "order"))


def smooth_p_value(
    pit: xr.DataArray, dim_independent: str | None = None, *, where: xr.DataArray | None = None
) -> float:
    """Neyman's smooth test of uniformity (order 4) with the covariance between cases.

    Args:
        pit: values in (0, 1).
        dim_independent: dimension of independent cases; None: each value is a case.
        where: boolean; judge only there.

    Raises:
        ShapeError: no such ``dim_independent``.
        InputError: values outside [0, 1], or fewer than 2 cases.
        NonFiniteError: NaN where it is judged.
    """
    where = xr.ones_like(pit, dtype=bool) if where is None else where
    pit = _checked(pit, where)
    found = case_means(legendre_scores(pit, ORDER), where, dim_independent, along="order")
    n, square = found.n_cases, float(found.mean @ found.mean)
    # About zero, which the mean is if the values are uniform, not about the mean that was found.
    covariance = found.covariance * (n - 1) / n + np.outer(found.mean, found.mean) / n
    trace, trace2 = float(np.trace(covariance)), float((covariance**2).sum())
    return float(chi2.sf(square * trace / trace2, trace**2 / trace2))


def pit_ecdf(
    pit: xr.DataArray,
    *,
    n_points: int | None = None,
    confidence: float = 0.95,
    n_simulations: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Empirical distribution function of independent values with a simultaneous band.

    Args:
        pit: values in (0, 1) along one dimension, independent of each other.
        n_points: number of points of evaluation; by default as many as values, at most 50.
        confidence: that all of the function lies in the band, if the values are uniform.
        n_simulations: draws of uniform values that set the band.
        seed: of these draws.

    Returns:
        ``ecdf(point)``, ``lower(point)``, ``upper(point)`` and ``p_value``.

    Raises:
        ShapeError: more than one dimension: values inside a case are correlated.
        InputError: values outside [0, 1], fewer than two, a confidence outside (0, 1).
        NonFiniteError: NaN.
    """
    if pit.ndim != 1 or pit.size < 2:
        raise ShapeError(
            "the band needs independent values",
            got=f"{pit.dims}, {pit.shape}",
            expected="one dimension of at least 2 cases",
            hint="Take one value a case, such as the rank of a statistic (sbc).",
        )
    if not 0 < confidence < 1:
        raise InputError("no such confidence", got=confidence, expected="0 < confidence < 1")
    values = np.sort(_checked(pit, xr.ones_like(pit, dtype=bool)).values)
    n, n_bins = values.size, (min(pit.size, 50) if n_points is None else n_points) + 1
    points = np.arange(1, n_bins) / n_bins
    counts = np.searchsorted(values, points, side="right")
    tails = _uniform_tails(n, n_bins, n_simulations, seed=seed)
    tail = np.quantile(tails, 1 - confidence)
    n_beyond = int((tails <= _smallest_tail(counts, n, points) * (1 + 1e-9)).sum())
    return xr.Dataset(
        {
            "ecdf": ("point", counts / n),
            "lower": ("point", binom.ppf(tail, n, points) / n),
            "upper": ("point", binom.isf(tail, n, points) / n),
            "p_value": (1 + n_beyond) / (1 + n_simulations),
        },
        coords={"point": points},
        attrs={"confidence": confidence, "n_values": n, "assumes": "independent values"},
    )


@lru_cache(maxsize=16)
def _uniform_tails(n: int, n_bins: int, n_simulations: int, *, seed: int) -> NDArray[np.float64]:
    """The smallest tail of each of many sets of ``n`` uniform values."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n_bins, 1 / n_bins), n_simulations).cumsum(1)[:, :-1]
    return _smallest_tail(counts, n, np.arange(1, n_bins) / n_bins)


def _smallest_tail(
    counts: NDArray[np.int64], n: int, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smaller binomial tail of each count, smallest over the points."""
    below = bdtr(counts, n, points)
    above = np.where(counts > 0, 1 - bdtr(np.maximum(counts - 1, 0), n, points), 1)
    smallest: NDArray[np.float64] = np.minimum(below, above).min(-1)
    return smallest


def _checked(pit: xr.DataArray, where: xr.DataArray) -> xr.DataArray:
    """The values, 1/2 where they are not judged."""
    judged = pit.where(where, 0.5).compute()
    if not np.isfinite(judged).all():
        raise NonFiniteError(
            "values of a test of uniformity hold NaN or Inf",
            got=f"{int((~np.isfinite(judged)).sum())} values",
            expected="finite values",
            hint="Leave them out by where=.",
        )
    if not ((judged >= 0) & (judged <= 1)).all():
        raise InputError(
            "values of a test of uniformity lie outside the unit interval",
            got=f"{float(judged.min())} to {float(judged.max())}",
            expected="0 to 1",
            hint="Give PIT values (pit), not ranks.",
        )
    return judged
