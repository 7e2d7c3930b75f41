"""Tests of whether numbers in (0, 1) are uniform, as PIT values of a calibrated ensemble are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xarray as xr
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import binom, chi2, chisquare

from invdiff.calibration._cases import case_means
from invdiff.calibration.pairs import generator
from invdiff.errors import InputError, NonFiniteError, ShapeError

__all__ = ["chi_square_p_value", "legendre_scores", "pit_ecdf", "smooth_p_value"]

ORDER = 4


def chi_square_p_value(counts: NDArray[np.int64]) -> float:
    """Pearson's chi-square test of equal bins, for counts of independent values.

    Args:
        counts: The counts of the bins, ``(n_bins,)``.

    Returns:
        The probability of counts as uneven as these, if independent values fall into equal bins.

    Raises:
        InputError: Fewer than two bins, or no counts.

    Examples:
        >>> import numpy as np
        >>> from invdiff.calibration import chi_square_p_value
        >>> round(chi_square_p_value(np.array([10, 12, 9, 9])), 2)
        0.9
        >>> chi_square_p_value(np.array([20, 2, 3, 15])) < 0.001
        True
    """
    if len(counts) < 2 or np.sum(counts) < 1:
        raise InputError(
            "a chi-square test needs counts", got=counts, expected="at least 2 bins and 1 value"
        )
    return float(chisquare(counts).pvalue)


def legendre_scores(pit: xr.DataArray, order: int) -> xr.DataArray:
    r"""Legendre polynomials :math:`\sqrt{2j + 1}\, P_j(2u - 1)`, :math:`j \ge 1`, of PIT values.

    They have mean 0 and variance 1 for uniform values. The first is positive where the truth lies
    above the ensemble, the second where it lies outside.

    Args:
        pit: Values in (0, 1).
        order: The number of polynomials.

    Returns:
        The scores, with a last dimension ``order``.
    """
    values = legvander(2 * pit.values - 1, order)[..., 1:] * np.sqrt(
        2 * np.arange(1, order + 1) + 1
    )
    return xr.DataArray(values, dims=(*pit.dims, "order"))


def smooth_p_value(
    pit: xr.DataArray, dim_independent: str | None = None, *, where: xr.DataArray | None = None
) -> float:
    """Neyman's smooth test of uniformity, for values that are correlated inside independent cases.

    The first four Legendre polynomials of the values (location, spread, skewness, kurtosis) have
    mean zero if the values are uniform. The sum of their squared means is compared with the scaled
    chi-square of its first two moments, by the covariance between cases. Hotelling's T^2 in its
    place rejects twice too often at 20 cases, since the scores of a case are skewed.

    Args:
        pit: Values in (0, 1).
        dim_independent: The name of the dimension along which cases are independent. By default
            each value counts as an independent case.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        The p-value.

    Raises:
        ShapeError: ``dim_independent`` is not a dim of the values.
        InputError: Values outside [0, 1], or fewer than 2 cases.
        NonFiniteError: NaN or Inf where values are evaluated.

    References:
        Neyman, Skandinavisk Aktuarietidskrift 20, 1937. Rao and Scott, Annals of Statistics 12,
        1984.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import smooth_p_value
        >>> values = xr.DataArray(np.random.default_rng(0).random((50, 4)), dims=("case", "x"))
        >>> round(smooth_p_value(values, "case"), 2)
        0.12
        >>> smooth_p_value(values**2, "case") < 1e-6
        True
    """
    where = xr.ones_like(pit, dtype=bool) if where is None else where
    pit = _checked(pit, where)
    found = case_means(legendre_scores(pit, ORDER), where, dim_independent, along="order")
    n, square = found.n_cases, float(found.mean @ found.mean)
    # About zero, the mean of uniform values, not about the observed mean.
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
    """Empirical distribution function of independent values, with a simultaneous band.

    The band is that of binomial counts, taken so wide that it holds *all* of the function with the
    given confidence if the values are uniform; its width is found by simulation. Cost:
    ``n_simulations`` sets of as many values, in memory.

    Args:
        pit: Values in (0, 1) along one dimension, independent of each other.
        n_points: The number of points of evaluation. By default as many as values, at most 50.
        confidence: The probability that the whole function of uniform values lies in the band.
        n_simulations: The number of sets of uniform values that set the band.
        seed: The seed of these sets.

    Returns:
        ``ecdf(point)``, ``lower(point)``, ``upper(point)`` and ``p_value``.

    Raises:
        ShapeError: More than one dimension, since values inside a case are correlated, or fewer
            than two values.
        InputError: Values outside [0, 1], or a confidence outside (0, 1).
        NonFiniteError: NaN.

    References:
        Sailynoja, Buerkner and Vehtari, Statistics and Computing 32, 2022.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import pit_ecdf
        >>> values = xr.DataArray(np.random.default_rng(0).random(100), dims="case")
        >>> curve = pit_ecdf(values)
        >>> bool(((curve["lower"] <= curve["ecdf"]) & (curve["ecdf"] <= curve["upper"])).all())
        True
        >>> round(float(curve["p_value"]), 2)
        0.16
    """
    if pit.ndim != 1 or pit.size < 2:
        raise ShapeError(
            "the band of a distribution function needs independent values",
            got=f"{pit.dims}, {pit.shape}",
            expected="one dimension of at least 2 cases",
            hint="Take one value per case, such as the rank of a statistic (sbc).",
        )
    if not 0 < confidence < 1:
        raise InputError(
            "confidence is out of range", got=confidence, expected="0 < confidence < 1"
        )
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
    rng = generator(seed)
    counts = rng.multinomial(n, np.full(n_bins, 1 / n_bins), n_simulations).cumsum(1)[:, :-1]
    return _smallest_tail(counts, n, np.arange(1, n_bins) / n_bins)


def _smallest_tail(
    counts: NDArray[np.int64], n: int, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smaller binomial tail of each count, the smallest over the points."""
    below = bdtr(counts, n, points)
    above = np.where(counts > 0, 1 - bdtr(np.maximum(counts - 1, 0), n, points), 1)
    smallest: NDArray[np.float64] = np.minimum(below, above).min(-1)
    return smallest


def _checked(pit: xr.DataArray, where: xr.DataArray) -> xr.DataArray:
    """The values, with 1/2 where they are not evaluated."""
    evaluated = pit.where(where, 0.5).compute()
    if not np.isfinite(evaluated).all():
        raise NonFiniteError(
            "the values to test hold NaN or Inf",
            got=f"{int((~np.isfinite(evaluated)).sum())} values",
            expected="finite values",
            hint="Leave them out by where=.",
        )
    if not ((evaluated >= 0) & (evaluated <= 1)).all():
        raise InputError(
            "the values to test lie outside the unit interval",
            got=f"{float(evaluated.min())} to {float(evaluated.max())}",
            expected="0 to 1",
            hint="Give PIT values (pit), not ranks.",
        )
    return evaluated
