r"""Spread and skill: does the ensemble spread as much as its mean errs?

Fortin, Abaza, Anctil and Turcotte, Journal of Hydrometeorology 15, 2014. If truth and ``n`` members
come from one law of variance :math:`\sigma^2`, the mean of the members errs by
:math:`E|x - m|^2 = \sigma^2 (n + 1)/n`, hence

    spread = sqrt((n + 1)/n  mean of s^2),   skill = sqrt(mean of |x - m|^2),   spread / skill = 1.

Complex values count by their squared modulus. One pass over the members.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import t as student

from invdiff.calibration._cases import assumption, check_independent
from invdiff.calibration._pairs import PART, paired, refuse_non_finite
from invdiff.errors import InputError

__all__ = ["spread_skill", "spread_skill_curve"]


def spread_skill(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    dim_independent: str | None = None,
    confidence: float = 0.95,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    """Ratio of spread to error of the mean, 1 for a calibrated ensemble.

    Args:
        ensemble: at least two members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        dim: the dimension of the members.
        dim_independent: dimension along which cases are independent; None: each value is a case.
        confidence: of the interval of the ratio (jackknife over the cases, on its logarithm).
        where: boolean; judge only there.

    Returns:
        ``spread`` and ``skill`` in the truth's units, ``ratio``, ``lower``, ``upper``.

    Raises:
        ShapeError: dims or labels that do not match, or no such ``dim_independent``.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
        InputError: fewer than two members or cases; no spread or no error in the values, or in all
            of them but one case.
    """
    fields = _squares(ensemble, truth, where, dim=dim, dim_independent=dim_independent)
    sums = fields.where(fields["where"], 0).drop_vars("where")
    if dim_independent is not None:
        sums = sums.sum([name for name in fields["where"].dims if name != dim_independent])
    variance, error = (sums[name].values.ravel() for name in ("variance", "error"))
    n = variance.size
    left = np.stack([variance.sum() - variance, error.sum() - error])
    if n < 2 or not (left > 0).all():
        raise InputError(
            "no ratio of spread to skill",
            got=f"{n} cases, spread and error left by the rest {left.min(1, initial=np.inf)}",
            expected="two cases or more with spread and error",
        )
    without = np.log(left[0] / left[1]) / 2
    doubt = student.ppf((1 + confidence) / 2, n - 1) * without.std() * (n - 1) ** 0.5
    n_values = int(fields["where"].sum())
    units = truth.attrs.get("units", "1")
    ratio = float(np.sqrt(variance.sum() / error.sum()))
    spread, skill = (float(np.sqrt(total.sum() / n_values)) for total in (variance, error))
    return xr.Dataset(
        {
            "spread": ((), spread, {"units": units}),
            "skill": ((), skill, {"units": units, "long_name": "RMSE of the ensemble mean"}),
            "ratio": ratio,
            "lower": ratio * np.exp(-doubt),
            "upper": ratio * np.exp(doubt),
        },
        attrs={"confidence": confidence, "assumes": assumption(dim_independent)},
    )


def spread_skill_curve(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    n_bins: int = 10,
    dim: str = "realization",
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    """Skill against spread in bins of equal numbers of values, sorted by spread.

    On the diagonal for a calibrated ensemble with many members. With few (say under 10) the sorting
    itself picks values whose spread is high by chance, and the curve is flatter than the diagonal.

    Args:
        ensemble: at least two members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        n_bins: at most the number of values.
        dim: the dimension of the members.
        where: boolean; judge only there.

    Returns:
        ``spread(bin)``, ``skill(bin)``, ``count(bin)``.

    Raises:
        InputError: fewer values than bins, fewer than two members. Others as :func:`spread_skill`.
    """
    fields = _squares(ensemble, truth, where, dim=dim, dim_independent=None)
    is_judged = fields["where"].values
    variance, error = (fields[name].values[is_judged] for name in ("variance", "error"))
    if not 1 <= n_bins <= variance.size:
        raise InputError(
            "no such bins", got=f"n_bins={n_bins}, {variance.size} values", expected="1 to as many"
        )
    bins = np.array_split(np.argsort(variance, kind="stable"), n_bins)
    units = {"units": truth.attrs.get("units", "1")}
    return xr.Dataset(
        {
            "spread": ("bin", [float(np.sqrt(variance[i].mean())) for i in bins], units),
            "skill": ("bin", [float(np.sqrt(error[i].mean())) for i in bins], units),
            "count": ("bin", [len(i) for i in bins]),
        }
    )


def _squares(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    where: xr.DataArray | None,
    *,
    dim: str,
    dim_independent: str | None,
) -> xr.Dataset:
    """``variance`` times (n + 1)/n and squared ``error`` of the mean, in memory, and ``where``."""
    check_independent(truth.dims, dim_independent)
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    n = ensemble.sizes[dim]
    if n < 2:
        raise InputError("no spread", got=f"{n} member", expected=">= 2 members")
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    ensemble, truth = ensemble.where(where, 0), truth.where(where, 0)
    variance, error = ensemble.var(dim, ddof=1) * (n + 1) / n, (truth - ensemble.mean(dim)) ** 2
    if PART in truth.dims:
        variance, error, where = variance.sum(PART), error.sum(PART), where.isel({PART: 0})
    fields = xr.Dataset({"variance": variance, "error": error, "where": where})
    return fields.reset_coords(drop=True).compute()
