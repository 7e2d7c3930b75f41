r"""Ranks of the truth among the members: PIT values and rank histograms, ties broken at random.

If truth and members are exchangeable, the rank is uniform on 0..n and

    pit = (n_below + u (n_tied + 1)) / (n + 1),   u uniform on (0, 1),

is uniform on (0, 1) exactly, for any n and any distribution, also one with ties (Hamill, Monthly
Weather Review 129, 2001). One pass over the members, chunk by chunk.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import binom

from invdiff.calibration._cases import assumption, case_means, check_independent
from invdiff.calibration._pairs import paired, refuse_non_finite, uniform_like
from invdiff.calibration.uniformity import chi_square_p_value, smooth_p_value
from invdiff.errors import InputError

__all__ = ["pit", "rank_histogram", "ranks", "shares_by_bin"]

MIN_EXPECTED = 5  # values a bin, for the chi-square law to hold


def pit(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    seed: int = 0,
) -> xr.DataArray:
    """Probability integral transform of the truth in the ensemble; lazy if they are.

    Args:
        ensemble: members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        dim: the dimension of the members.
        seed: of the draws that break ties and fill the steps of 1/(n + 1).

    Returns:
        Values in (0, 1), with the truth's dims (and ``part_of_complex`` for complex values); NaN
        where the truth or a member is not finite.

    Raises:
        ShapeError: an ensemble without ``dim``, or a truth with other dims or labels.
        DTypeError: real members and a complex truth, or the reverse.
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
    """Number of members below the truth, 0 to n, ties broken at random; lazy if the inputs are.

    Args and errors as :func:`pit`; NaN where the truth or a member is not finite.
    """
    n_below, n_tied, uniform = _position(ensemble, truth, dim=dim, seed=seed)
    rank = n_below + np.floor(uniform * (n_tied + 1))
    rank.attrs = {"long_name": "rank of the truth among the members", "units": "1"}
    return rank.rename("rank")


def _position(
    ensemble: xr.DataArray, truth: xr.DataArray, *, dim: str, seed: int
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Members below the truth (NaN where not finite), members tied with it, uniform draws."""
    ensemble, truth, _ = paired(ensemble, truth, None, dim=dim)
    n_below = (ensemble < truth).sum(dim)
    uniform = uniform_like(truth, np.random.default_rng(seed))
    if n_below.chunksizes:
        uniform = uniform.chunk(n_below.chunksizes)
    is_finite = (abs(ensemble) < np.inf).all(dim) & (abs(truth) < np.inf)  # False for NaN
    return n_below.where(is_finite), (ensemble == truth).sum(dim), uniform


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
    """Histogram of the truth's rank, flat for a calibrated ensemble, with its expected band.

    U-shaped: too narrow; dome: too wide; sloped: biased. The p-value is Pearson's chi-square where
    each value is a case, otherwise that of :func:`~invdiff.calibration.smooth_p_value`.

    Args:
        ensemble: members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        dim: the dimension of the members.
        dim_independent: dimension along which cases are independent; None: each value is a case.
        n_bins: by default one a rank, fewer where a case a bin is not to be expected five times.
        confidence: of the band, bin by bin.
        where: boolean; judge only there.
        seed: of the draws that break ties.

    Returns:
        ``share(bin)``, ``count(bin)``, ``lower(bin)``, ``upper(bin)``, ``n_effective`` and
        ``p_value``; ``bin`` holds centres in (0, 1).

    Raises:
        ShapeError: dims or labels that do not match, or no such ``dim_independent``.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
        InputError: nowhere to judge, fewer than two bins, too few cases.
    """
    check_independent(truth.dims, dim_independent)
    _, _, where = paired(ensemble, truth, where, dim=dim)
    values = pit(ensemble, truth, dim=dim, seed=seed).compute()
    refuse_non_finite(where, {"ensemble or truth": values})
    n_cases = int(where.sum()) if dim_independent is None else where.sizes[dim_independent]
    if n_bins is None:
        n_bins = min(ensemble.sizes[dim] + 1, max(2, n_cases // MIN_EXPECTED))
    if n_bins < 2:
        raise InputError("no histogram", got=f"n_bins={n_bins}", expected="at least 2")
    return shares_by_bin(values, where, dim_independent, n_bins=n_bins, confidence=confidence)


def shares_by_bin(
    values: xr.DataArray,
    where: xr.DataArray,
    dim_independent: str | None,
    *,
    n_bins: int,
    confidence: float,
) -> xr.Dataset:
    """Histogram of values in (0, 1); see :func:`rank_histogram`."""
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
