"""Coverage of prediction intervals, with the uncertainty that a finite number of cases leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import beta
from scipy.stats import t as student

from invdiff.calibration._cases import assumption, case_means, check_independent
from invdiff.calibration.pairs import paired, refuse_non_finite
from invdiff.calibration.prediction_intervals import PredictionInterval, RankInterval
from invdiff.errors import InputError

__all__ = ["LEVELS", "binomial_interval", "coverage", "coverage_curve", "share_curve"]

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
RANKS = RankInterval()


def coverage(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float] = LEVELS,
    *,
    interval: PredictionInterval = RANKS,
    dim: str = "realization",
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    """Share of the truth that lies inside the prediction intervals, by nominal level.

    The expected share of an exact ensemble is the level: of any law and any number of members with
    the default :class:`RankInterval`, of normal laws alone with :class:`StudentInterval`. With
    fewer members than ``(1 + level) / (1 - level)``, 19 for 90 %, the default shows faults weakened
    at this level; see there. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        levels: The nominal levels of the intervals, between 0 and 1.
        interval: The kind of interval.
        dim: The name of the dimension of the members.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        ``coverage(level)``, between 0 and 1; the attribute ``interval`` names the kind.

    Raises:
        ShapeError: The ensemble lacks ``dim``, or dims or labels do not match.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.
        InputError: ``where`` is False everywhere, a level is outside (0, 1), or there are fewer
            than two members.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import coverage
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> coverage(ensemble, truth, [0.5, 0.9]).values.round(2)
        array([0.52, 0.91])
    """
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    hits = _inside(ensemble, truth, levels, interval=interval, where=where, dim=dim)
    share = hits.where(where, 0).sum(where.dims) / where.sum()
    return share.rename("coverage").assign_attrs(_attrs(interval))


def coverage_curve(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float] = LEVELS,
    *,
    interval: PredictionInterval = RANKS,
    dim: str = "realization",
    dim_independent: str | None = None,
    n_effective: float | None = None,
    confidence: float = 0.95,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Coverage by nominal level, with a confidence interval at each level.

    The interval of the share is that of Clopper and Pearson (:func:`binomial_interval`). Where
    values come in cases, it is taken at the effective number of values of Korn and Graubard: the
    variance of a binomial share over the variance between cases,

    .. math:: n_\mathrm{eff} = \frac{p (1 - p)}{\mathrm{Var}(p)}
        \left(\frac{t_{N-1}(0.975)}{t_{n-1}(0.975)}\right)^2,

    with :math:`N` values in :math:`n` cases. For exact ensembles of which laws the coverage is the
    level, the kind of interval says.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        levels: The nominal levels of the intervals, between 0 and 1.
        interval: The kind of interval.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension along which cases are independent; the band then
            widens with the correlation inside a case. By default each value is one case.
        n_effective: The number of independent values, if it is known from elsewhere.
        confidence: The confidence of the band, at each level separately.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        ``coverage(level)``, ``lower(level)``, ``upper(level)`` and ``n_effective(level)``; the
        attribute ``assumes`` states what the band rests on.

    Raises:
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.
        InputError: As :func:`coverage`; fewer than two cases; both ``dim_independent`` and
            ``n_effective``.

    References:
        Clopper and Pearson, Biometrika 26, 1934. Korn and Graubard, Survey Methodology 24, 1998.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import coverage_curve
        >>> draws = np.random.default_rng(0).standard_normal((21, 200, 3))
        >>> truth = xr.DataArray(draws[0], dims=("case", "x"))
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case", "x"))
        >>> curve = coverage_curve(ensemble, truth, [0.9], dim_independent="case")
        >>> [round(float(curve[name][0]), 3) for name in ("lower", "coverage", "upper")]
        [0.882, 0.908, 0.93]
    """
    check_independent(truth.dims, dim_independent)
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    hits = _inside(ensemble, truth, levels, interval=interval, where=where, dim=dim)
    curve = share_curve(
        hits,
        where,
        dim_independent,
        n_effective=n_effective,
        confidence=confidence,
    )
    curve["coverage"].attrs = _attrs(interval)
    return curve


def _attrs(interval: PredictionInterval) -> dict[str, str]:
    """What a coverage is, for the attributes of a result."""
    name = "share of the truth inside the interval"
    return {"long_name": name, "units": "1", "interval": repr(interval)}


def share_curve(
    hits: xr.DataArray,
    where: xr.DataArray,
    dim_independent: str | None,
    *,
    n_effective: float | None = None,
    confidence: float = 0.95,
) -> xr.Dataset:
    """The share inside by ``level`` with its confidence interval; see :func:`coverage_curve`.

    Args:
        hits: Whether each truth is inside, or a weight in [0, 1], with dimension ``level`` and the
            dims of ``where``. A weight varies less than a hit, and the interval is then too wide.
        where: True where values are evaluated.
        dim_independent: The name of the dimension of independent cases, or None.
        n_effective: The number of independent values, if it is known from elsewhere.
        confidence: The confidence of the band, at each level separately.

    Raises:
        InputError: Both ``dim_independent`` and ``n_effective`` are given, or the latter is not
            positive.
    """
    if n_effective is not None and (dim_independent is not None or not n_effective > 0):
        raise InputError(
            "two numbers of independent values, or one that is not positive",
            got=f"dim_independent={dim_independent!r}, n_effective={n_effective}",
            expected="one of them; n_effective > 0",
            hint="Give dim_independent, or n_effective where it is known.",
        )
    if dim_independent is None:
        n_values = int(where.sum())
        share = hits.where(where, 0).sum(where.dims).values / n_values
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
    """Confidence interval of a probability, of which a share was observed in independent trials.

    The interval of Clopper and Pearson: its ends are the probabilities at which a share as high, or
    as low, as the observed one has probability ``(1 - confidence) / 2``. It never covers less than
    ``confidence``.

    Args:
        share: The observed share, in [0, 1]; a number or an array.
        n: The number of independent trials, positive, not necessarily an integer.
        confidence: The confidence of the interval, between 0 and 1.

    Returns:
        The lower and the upper end, of the shape of ``share`` and ``n`` broadcast.

    Raises:
        InputError: The confidence is outside (0, 1).

    References:
        Clopper and Pearson, Biometrika 26, 1934.

    Examples:
        >>> from invdiff.calibration import binomial_interval
        >>> lower, upper = binomial_interval(0.9, 100)
        >>> round(float(lower), 3), round(float(upper), 3)
        (0.824, 0.951)
    """
    if not 0 < confidence < 1:
        raise InputError(
            "confidence is out of range", got=confidence, expected="0 < confidence < 1"
        )
    share, n = np.asarray(share, float), np.asarray(n, float)
    hits, tail = share * n, (1 - confidence) / 2
    none, every = share == 0, share == 1
    lower = beta.ppf(tail, np.where(none, 1, hits), n - hits + 1)
    upper = beta.ppf(1 - tail, hits + 1, np.where(every, 1, n - hits))
    return np.where(none, 0.0, lower), np.where(every, 1.0, upper)


def _effective(
    share: NDArray[np.float64], variance: NDArray[np.float64], n_cases: int, *, n_values: int
) -> NDArray[np.float64]:
    """Effective number of values: binomial over actual variance, with a penalty for few cases."""
    binomial = share * (1 - share)
    penalty = (student.ppf(0.975, n_values - 1) / student.ppf(0.975, n_cases - 1)) ** 2
    # A share that is the same in all cases says nothing about the correlation inside them.
    n = np.where(variance > 0, binomial / np.where(variance > 0, variance, 1) * penalty, n_cases)
    return np.minimum(n, n_values)


def _inside(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    levels: Sequence[float],
    *,
    interval: PredictionInterval,
    where: xr.DataArray,
    dim: str,
) -> xr.DataArray:
    """The weight with which each truth is in its interval, ``(level, *dims)``."""
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    return interval.inside(ensemble.where(where, 0), truth.where(where, 0), levels, dim=dim)
