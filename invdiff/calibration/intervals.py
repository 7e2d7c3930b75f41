"""Coverage of prediction intervals, with the uncertainty that a finite number of cases leaves."""

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
    r"""Half the width of the prediction interval of an ensemble.

    With the mean :math:`m` and the standard deviation :math:`s` of :math:`n` members, a further
    draw from the same normal distribution lies with probability ``level`` in

    .. math:: m \pm t_{n-1}\left(\frac{1 + level}{2}\right) s \sqrt{1 + \frac{1}{n}},

    Student's prediction interval, which allows for :math:`n` being small. The result is lazy if the
    ensemble is.

    Args:
        ensemble: The members, real, with dimension ``dim`` of length 2 or more.
        level: The nominal probability, between 0 and 1.
        dim: The name of the dimension of the members.

    Returns:
        The half width in the units of the ensemble, without ``dim``.

    Raises:
        InputError: The level is outside (0, 1), or there are fewer than two members.

    Examples:
        >>> import xarray as xr
        >>> from invdiff.calibration import half_width
        >>> members = xr.DataArray([1.0, 2.0, 3.0, 4.0], dims="realization")
        >>> float(half_width(members, 0.9).round(3))
        3.397
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

    For a calibrated ensemble the share is the level. The interval is the mean of the members plus
    and minus :func:`half_width`. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        levels: The nominal levels of the intervals, between 0 and 1.
        dim: The name of the dimension of the members.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        ``coverage(level)``, between 0 and 1.

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
        >>> coverage(ensemble, truth, [0.5, 0.9]).values
        array([0.52, 0.92])
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
    r"""Coverage by nominal level, with a confidence interval at each level.

    The interval of the share is that of Clopper and Pearson (:func:`binomial_interval`). Where
    values come in cases, it is taken at the effective number of values of Korn and Graubard: the
    variance of a binomial share over the variance between cases,

    .. math:: n_\mathrm{eff} = \frac{p (1 - p)}{\mathrm{Var}(p)}
        \left(\frac{t_{N-1}(0.975)}{t_{n-1}(0.975)}\right)^2,

    with :math:`N` values in :math:`n` cases.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        levels: The nominal levels of the intervals, between 0 and 1.
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
        [0.866, 0.895, 0.92]
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

    Args:
        hits: Whether each truth is inside, with dimension ``level`` and the dims of ``where``.
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
    """Half the width of the interval in standard deviations of ``n`` members."""
    if not 0 < level < 1 or n < 2:
        raise InputError(
            "a prediction interval is not defined",
            got=f"level={level}, {n} members",
            expected="0 < level < 1 and at least 2 members",
        )
    return float(student.ppf((1 + level) / 2, n - 1) * (1 + 1 / n) ** 0.5)
