"""Spread and skill: whether an ensemble spreads as much as its mean errs."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import t as student

from invdiff.calibration._cases import assumption, check_independent
from invdiff.calibration.pairs import PART, paired, refuse_non_finite
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
    r"""Ratio of the spread of an ensemble to the error of its mean, 1 for a calibrated ensemble.

    If the truth and :math:`n` members come from one distribution of variance :math:`\sigma^2`, the
    mean :math:`m` of the members errs by :math:`E|x - m|^2 = \sigma^2 (n + 1) / n`, hence

    .. math:: \mathrm{spread} = \sqrt{\frac{n + 1}{n}\,\overline{s^2}}, \qquad
        \mathrm{skill} = \sqrt{\overline{|x - m|^2}}.

    Complex values count by their squared modulus. The interval of the ratio is a jackknife over the
    cases, on its logarithm. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
            There must be two or more.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension along which cases are independent. By default
            each value counts as an independent case.
        confidence: The confidence of the interval of the ratio.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        ``spread`` and ``skill`` in the units of the truth, ``ratio``, and the ends ``lower`` and
        ``upper`` of its interval.

    Raises:
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.
        InputError: Fewer than two members or cases, or all of the spread or of the error is in one
            case.

    References:
        Fortin, Abaza, Anctil and Turcotte, Journal of Hydrometeorology 15, 2014.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import spread_skill
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> found = spread_skill(ensemble, truth)
        >>> [round(float(found[name]), 2) for name in ("lower", "ratio", "upper")]
        [0.95, 1.05, 1.15]
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
            "the ratio of spread to skill is not defined",
            got=f"{n} cases; without one of them spread and error are as small as"
            f" {left.min(1, initial=np.inf)}",
            expected="at least two cases with spread and error",
        )
    without = np.log(left[0] / left[1]) / 2
    half_width = student.ppf((1 + confidence) / 2, n - 1) * without.std() * (n - 1) ** 0.5
    n_values = int(fields["where"].sum())
    units = truth.attrs.get("units", "1")
    ratio = float(np.sqrt(variance.sum() / error.sum()))
    spread, skill = (float(np.sqrt(total.sum() / n_values)) for total in (variance, error))
    return xr.Dataset(
        {
            "spread": ((), spread, {"units": units}),
            "skill": ((), skill, {"units": units, "long_name": "RMSE of the ensemble mean"}),
            "ratio": ratio,
            "lower": ratio * np.exp(-half_width),
            "upper": ratio * np.exp(half_width),
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

    The curve of a calibrated ensemble of many members is the diagonal. With few members (say fewer
    than 10) the sorting itself selects values whose spread is high by chance, and the curve is
    flatter than the diagonal. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
            There must be two or more.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        n_bins: The number of bins, at most the number of values.
        dim: The name of the dimension of the members.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        ``spread(bin)`` and ``skill(bin)`` in the units of the truth, and ``count(bin)``.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.
        InputError: Fewer values than bins, or fewer than two members.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import spread_skill_curve
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> curve = spread_skill_curve(ensemble, truth, n_bins=4)
        >>> curve["count"].values
        array([50, 50, 50, 50])
    """
    fields = _squares(ensemble, truth, where, dim=dim, dim_independent=None)
    is_evaluated = fields["where"].values
    variance, error = (fields[name].values[is_evaluated] for name in ("variance", "error"))
    if not 1 <= n_bins <= variance.size:
        raise InputError(
            "the number of bins is out of range",
            got=f"n_bins={n_bins}, {variance.size} values",
            expected="at least 1, and at most the number of values",
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
    """In memory: ``variance`` times (n + 1) / n, squared ``error`` of the mean, and ``where``."""
    check_independent(truth.dims, dim_independent)
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    n = ensemble.sizes[dim]
    if n < 2:
        raise InputError(
            "the spread of an ensemble needs members", got=f"{n} members", expected="at least 2"
        )
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    ensemble, truth = ensemble.where(where, 0), truth.where(where, 0)
    variance, error = ensemble.var(dim, ddof=1) * (n + 1) / n, (truth - ensemble.mean(dim)) ** 2
    if PART in truth.dims:
        variance, error, where = variance.sum(PART), error.sum(PART), where.isel({PART: 0})
    fields = xr.Dataset({"variance": variance, "error": error, "where": where})
    return fields.reset_coords(drop=True).compute()
