r"""Coverage of prediction intervals, with the doubt that a finite number of cases leaves.

An interval predicted from ``n`` members must allow for ``n`` being small: with mean ``m`` and
standard deviation ``s`` of the members, the next draw falls with probability ``level`` into

    m +- t_{n-1}((1 + level) / 2) s sqrt(1 + 1/n)

if it comes from the same normal distribution (Student's prediction interval). The band around a
measured share is that of Clopper and Pearson (1934), taken at the effective number of values of
Korn and Graubard (1998) where values come in cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import beta
from scipy.stats import t as student

from invdiff.calibration._cases import assumption, case_means, check_independent
from invdiff.calibration._pairs import paired, refuse_non_finite
from invdiff.errors import InputError

__all__ = ["LEVELS", "binomial_interval", "coverage", "coverage_curve", "half_width", "share_curve"]

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def half_width(ensemble: xr.DataArray, level: float, *, dim: str = "realization") -> xr.DataArray:
    """Half the width of the prediction interval of a real ensemble; lazy if the ensemble is.

    Args:
        ensemble: real, with dimension ``dim`` of at least two members.
        level: nominal probability, between 0 and 1.
        dim: the dimension of the members.

    Raises:
        InputError: a level outside (0, 1), or fewer than two members.
    """
    width: xr.DataArray = _factor(level, ensemble.sizes[dim]) * ensemble.std(dim, ddof=1)
    return width


def coverage(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float] = LEVELS,
    *,
    dim: str = "realization",
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    """Share of the truth that lies inside the prediction intervals, by nominal level.

    Args:
        ensemble: members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        levels: nominal levels.
        dim: the dimension of the members.
        where: boolean; judge only there.

    Returns:
        ``coverage(level)``; equal to ``level`` for a calibrated ensemble.

    Raises:
        ShapeError: an ensemble without ``dim``, or a truth or ``where`` with other dims or labels.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
        InputError: nowhere to judge, a level outside (0, 1), or fewer than two members.
    """
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    hits = _inside(ensemble, truth, levels, where=where, dim=dim)
    share = (hits & where).sum(where.dims) / where.sum()
    share.attrs = {"long_name": "share of the truth inside the interval", "units": "1"}
    return share.rename("coverage")


def coverage_curve(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float] = LEVELS,
    *,
    dim: str = "realization",
    dim_independent: str | None = None,
    n_effective: float | None = None,
    confidence: float = 0.95,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    """Coverage by nominal level with a confidence interval at each level.

    Args:
        ensemble: members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        levels: nominal levels.
        dim: the dimension of the members.
        dim_independent: dimension of the truth along which cases are independent; the band then
            widens with the correlation inside a case. None: each value is a case of its own.
        n_effective: number of independent values, where it is known otherwise.
        confidence: of the band, pointwise.
        where: boolean; judge only there.

    Returns:
        ``coverage(level)``, ``lower(level)``, ``upper(level)``, ``n_effective(level)``; what the
        band assumes stands in the attributes.

    Raises:
        ShapeError: dims or labels that do not match, or no such ``dim_independent``.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
        InputError: as :func:`coverage`; fewer than two cases; both ``dim_independent`` and
            ``n_effective``.

    References:
        Korn and Graubard, Survey Methodology 24, 1998 (effective numbers).
    """
    check_independent(truth.dims, dim_independent)
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    hits = _inside(ensemble, truth, levels, where=where, dim=dim)
    curve = share_curve(
        hits,
        where,
        dim_independent,
        n_effective=n_effective,
        confidence=confidence,
    )
    curve["coverage"].attrs = {"long_name": "share of the truth inside the interval", "units": "1"}
    return curve


def share_curve(
    hits: xr.DataArray,
    where: xr.DataArray,
    dim_independent: str | None,
    *,
    n_effective: float | None = None,
    confidence: float = 0.95,
) -> xr.Dataset:
    """The share of True by ``level`` with its confidence interval; see :func:`coverage_curve`.

    Raises:
        InputError: both ``dim_independent`` and ``n_effective``, or one of them not positive.
    """
    if n_effective is not None and (dim_independent is not None or not n_effective > 0):
        raise InputError(
            "the number of independent values is not clear",
            got=f"dim_independent={dim_independent!r}, n_effective={n_effective}",
            expected="one of them; a positive number",
        )
    if dim_independent is None:
        n_values = int(where.sum())
        share = (hits & where).sum(where.dims).values / n_values
        n = np.full(share.shape, float(n_values if n_effective is None else n_effective))
        note = assumption(None) if n_effective is None else f"{n_effective} independent values"
    else:
        found = case_means(hits, where, dim_independent, along="level")
        share, note = found.mean, assumption(dim_independent)
        n = _effective(share, np.diag(found.covariance), found.n_cases, n_values=found.n_values)
    lower, upper = binomial_interval(share, n, confidence)
    columns = {"coverage": share, "lower": lower, "upper": upper, "n_effective": n}
    return xr.Dataset(
        {name: ("level", values) for name, values in columns.items()},
        coords={"level": hits["level"]},
        attrs={"confidence": confidence, "assumes": note},
    )


def binomial_interval(
    share: NDArray[np.float64] | float, n: NDArray[np.float64] | float, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clopper-Pearson interval of a probability of which ``share`` was seen in ``n`` trials.

    Args:
        share: seen share, in [0, 1].
        n: number of independent trials, positive, not necessarily whole.
        confidence: between 0 and 1.

    Raises:
        InputError: a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise InputError("no such confidence", got=confidence, expected="0 < confidence < 1")
    share, n = np.asarray(share, float), np.asarray(n, float)
    hits, tail = share * n, (1 - confidence) / 2
    none, every = share == 0, share == 1
    lower = beta.ppf(tail, np.where(none, 1, hits), n - hits + 1)
    upper = beta.ppf(1 - tail, hits + 1, np.where(every, 1, n - hits))
    return np.where(none, 0.0, lower), np.where(every, 1.0, upper)


def _effective(
    share: NDArray[np.float64], variance: NDArray[np.float64], n_cases: int, *, n_values: int
) -> NDArray[np.float64]:
    """Korn and Graubard's effective number: binomial over actual variance, few cases penalised."""
    binomial = share * (1 - share)
    penalty = (student.ppf(0.975, n_values - 1) / student.ppf(0.975, n_cases - 1)) ** 2
    # Shares that do not vary between cases tell nothing of the correlation inside them.
    n = np.where(variance > 0, binomial / np.where(variance > 0, variance, 1) * penalty, n_cases)
    return np.minimum(n, n_values)


def _inside(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float],
    *,
    where: xr.DataArray,
    dim: str,
) -> xr.DataArray:
    """Whether each truth is in its interval, ``(level, *dims)``; one pass over the members."""
    factors = [_factor(level, ensemble.sizes[dim]) for level in levels]
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    ensemble = ensemble.where(where, 0)
    fields = xr.Dataset(
        {"error": abs(truth.where(where, 0) - ensemble.mean(dim)), "std": ensemble.std(dim, ddof=1)}
    ).compute()
    hits = [fields["error"] <= factor * fields["std"] for factor in factors]
    label = xr.DataArray(list(levels), dims="level", name="level")
    return xr.concat(hits, label, coords="minimal", compat="override", join="override")


def _factor(level: float, n: int) -> float:
    """Half width in standard deviations of ``n`` members."""
    if not 0 < level < 1 or n < 2:
        raise InputError(
            "no interval", got=f"level={level}, {n} members", expected="0 < level < 1, >= 2 members"
        )
    return float(student.ppf((1 + level) / 2, n - 1) * (1 + 1 / n) ** 0.5)
