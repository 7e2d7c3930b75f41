"""Ranks of the truth among the members: PIT values and rank histograms."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import binom

from invdiff.calibration._cases import assumption, case_means, check_independent
from invdiff.calibration.pairs import generator, paired, refuse_non_finite, uniform_like
from invdiff.calibration.uniformity import chi_square_p_value, smooth_p_value
from invdiff.errors import InputError

__all__ = ["neighbours", "pit", "rank_histogram", "ranks", "shares_by_bin"]

MIN_EXPECTED = 5  # values per bin, below which the chi-square law does not hold


def pit(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    seed: int = 0,
) -> xr.DataArray:
    r"""Probability integral transform of the truth in the ensemble, with ties broken at random.

    .. math:: pit = \frac{n_\mathrm{below} + u\, (n_\mathrm{tied} + 1)}{n + 1},
        \qquad u \sim U(0, 1).

    If truth and :math:`n` members are exchangeable, it is uniform on (0, 1) exactly, for any
    :math:`n` and any distribution, ties included. The result is lazy if the ensemble is. Cost: one
    pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        dim: The name of the dimension of the members.
        seed: The seed of the draws that break ties and fill the steps of ``1 / (n + 1)``.

    Returns:
        Values in (0, 1), with the dims of the truth, and ``part_of_complex`` for complex values;
        NaN where the truth or a member is not finite.

    Raises:
        ShapeError: The ensemble lacks ``dim``, or dims or labels do not match.
        DTypeError: The ensemble is real and the truth complex, or the reverse.

    References:
        Hamill, Monthly Weather Review 129, 2001.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import pit
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> values = pit(ensemble, truth)
        >>> values.sizes["case"], bool(((values > 0) & (values < 1)).all())
        (200, True)
        >>> float(values.mean().round(2))
        0.51
    """
    n_below, n_tied, uniform = _position(ensemble, truth, dim=dim, seed=seed)
    value = (n_below + uniform * (n_tied + 1)) / (ensemble.sizes[dim] + 1)
    value.attrs = {"long_name": "probability integral transform", "units": "1"}
    return value.rename("pit")


def ranks(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    seed: int = 0,
) -> xr.DataArray:
    """Rank of the truth among the members, from 0 to n, with ties broken at random.

    It is uniform on the integers 0 to n if truth and members are exchangeable. The result is lazy
    if the ensemble is.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        dim: The name of the dimension of the members.
        seed: The seed of the draws that break ties.

    Returns:
        The number of members below the truth, as a float, with the dims of the truth; NaN where the
        truth or a member is not finite.

    Raises:
        ShapeError: The ensemble lacks ``dim``, or dims or labels do not match.
        DTypeError: The ensemble is real and the truth complex, or the reverse.

    Examples:
        >>> import xarray as xr
        >>> from invdiff.calibration import ranks
        >>> members = xr.DataArray([0.0, 1.0, 2.0, 3.0], dims="realization")
        >>> float(ranks(members, xr.DataArray(1.5)))
        2.0
    """
    n_below, n_tied, uniform = _position(ensemble, truth, dim=dim, seed=seed)
    rank = n_below + np.floor(uniform * (n_tied + 1))
    rank.attrs = {"long_name": "rank of the truth among the members", "units": "1"}
    return rank.rename("rank")


def _position(
    ensemble: xr.DataArray, truth: xr.DataArray, *, dim: str, seed: int
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The two of :func:`neighbours`, and uniform draws."""
    ensemble, truth, _ = paired(ensemble, truth, None, dim=dim)
    n_below, n_tied = neighbours(ensemble, truth, dim=dim)
    uniform = uniform_like(truth, generator(seed))
    if n_below.chunksizes:
        uniform = uniform.chunk(n_below.chunksizes)
    return n_below, n_tied, uniform


def neighbours(
    ensemble: xr.DataArray, truth: xr.DataArray, *, dim: str
) -> tuple[xr.DataArray, xr.DataArray]:
    """Members below the truth (NaN where a value is not finite), and members tied with it."""
    is_finite = (abs(ensemble) < np.inf).all(dim) & (abs(truth) < np.inf)  # False for NaN
    return (ensemble < truth).sum(dim).where(is_finite), (ensemble == truth).sum(dim)


def rank_histogram(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    dim_independent: str | None = None,
    n_bins: int | None = None,
    confidence: float = 0.95,
    where: xr.DataArray | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Histogram of the rank of the truth, with the band expected of a calibrated ensemble.

    The histogram of a calibrated ensemble is flat. A U means that the ensemble is too narrow, a
    dome that it is too wide, a slope that it is biased. The p-value is that of Pearson's chi-square
    where each value is a case, otherwise that of :func:`smooth_p_value`. Cost: one pass over the
    members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension along which cases are independent. By default
            each value counts as an independent case.
        n_bins: The number of bins. By default one per rank, and fewer where fewer than five cases
            per bin are expected.
        confidence: The confidence of the band, at each bin separately.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.
        seed: The seed of the draws that break ties.

    Returns:
        ``share(bin)``, ``count(bin)``, ``lower(bin)``, ``upper(bin)``, ``n_effective`` and
        ``p_value``; ``bin`` holds centres in (0, 1).

    Raises:
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.
        InputError: ``where`` is False everywhere, fewer than two bins, or too few cases.

    References:
        Hamill, Monthly Weather Review 129, 2001.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import rank_histogram
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> histogram = rank_histogram(ensemble, truth, n_bins=4)
        >>> histogram["count"].values, round(float(histogram["p_value"]), 2)
        (array([44, 56, 50, 50]), 0.7)
        >>> narrow = rank_histogram(ensemble / 2, truth, n_bins=4)  # half the spread: a U
        >>> narrow["count"].values
        array([68, 28, 31, 73])
    """
    check_independent(truth.dims, dim_independent)
    _, _, where = paired(ensemble, truth, where, dim=dim)
    values = pit(ensemble, truth, dim=dim, seed=seed).compute()
    refuse_non_finite(where, {"ensemble or truth": values})
    n_cases = int(where.sum()) if dim_independent is None else where.sizes[dim_independent]
    if n_bins is None:
        n_bins = min(ensemble.sizes[dim] + 1, max(2, n_cases // MIN_EXPECTED))
    if n_bins < 2:
        raise InputError("a histogram needs bins", got=f"n_bins={n_bins}", expected="at least 2")
    return shares_by_bin(values, where, dim_independent, n_bins=n_bins, confidence=confidence)


def shares_by_bin(
    values: xr.DataArray,
    where: xr.DataArray,
    dim_independent: str | None,
    *,
    n_bins: int,
    confidence: float,
) -> xr.Dataset:
    """Histogram of values in (0, 1) with its band and p-value; see :func:`rank_histogram`."""
    place = np.floor(values.where(where, 0).values * n_bins).astype(int)
    index = xr.DataArray(np.minimum(place, n_bins - 1), dims=values.dims)
    count = np.bincount(index.values[where.values], minlength=n_bins)
    n_values = n_effective = int(count.sum())
    is_one_each = dim_independent is None or set(where.dims) == {dim_independent}
    if not is_one_each:
        bins = xr.DataArray(np.arange(n_bins), dims="bin")
        found = case_means(index == bins, where, dim_independent, along="bin")
        binomial = (n_bins - 1) / n_bins  # sum over bins of p (1 - p), p = 1 / n_bins
        n_effective = round(min(n_values, max(1, binomial / np.trace(found.covariance))))
    tail = (1 - confidence) / 2
    p_value = (
        chi_square_p_value(count)
        if is_one_each
        else smooth_p_value(values, dim_independent, where=where)
    )
    edge = [float(binom.ppf(q, n_effective, 1 / n_bins)) / n_effective for q in (tail, 1 - tail)]
    return xr.Dataset(
        {
            "share": ("bin", count / n_values),
            "count": ("bin", count),
            "lower": ("bin", np.full(n_bins, edge[0])),
            "upper": ("bin", np.full(n_bins, edge[1])),
            "n_effective": n_effective,
            "p_value": p_value,
        },
        coords={"bin": (np.arange(n_bins) + 0.5) / n_bins},
        attrs={"confidence": confidence, "assumes": assumption(dim_independent)},
    )
