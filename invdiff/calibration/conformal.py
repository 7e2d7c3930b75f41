"""Conformal correction: a factor on the half widths of intervals that makes them cover."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.calibration.pairs import paired, refuse_non_finite
from invdiff.calibration.prediction_intervals import half_width
from invdiff.errors import InputError, ShapeError

__all__ = ["conformal_factor"]


def conformal_factor(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    level: float,
    *,
    dim: str = "realization",
    dim_independent: str = "case",
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    r"""Factor on :func:`half_width` that makes intervals of one level cover, whatever the ensemble.

    Split conformal prediction with the score :math:`|x - m| / w`, the error of the mean over the
    half width. With one value per case the factor is the :math:`\lceil (n + 1)\,
    level\rceil`-th smallest of the :math:`n` scores. With a field per case it is the smallest
    factor by which the expected share of the field inside the widened intervals is at least
    ``level`` (conformal risk control), whatever the correlation inside a case. For a new case of
    the same kind, ``mean +- factor * half_width(new, level)`` then holds the truth with probability
    ``level`` or more.

    Cases of calibration and of use must be exchangeable (same operator, same noise, same
    population); use cases on which nothing was tuned. The coverage holds on average over cases and
    places, not at each place nor for each kind of case, and intervals that are centred wrongly are
    only widened, not moved. Cost: one pass over the members.

    Args:
        ensemble: The members of the calibration cases, with dims ``dim`` and ``dim_independent``.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        level: The wanted probability, between 0 and 1.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension of the cases.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.

    Returns:
        One number; its attributes ``needs`` and ``promises`` state what it rests on.

    Raises:
        InputError: Fewer cases than ``level / (1 - level)``, a level outside (0, 1), too many
            intervals of width zero that miss the truth, or a case without values to evaluate.
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.

    References:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, Springer, 2005.
        Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal risk control, ICLR 2024.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import conformal_factor
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> round(float(conformal_factor(ensemble, truth, 0.9)), 2)
        0.94
        >>> narrow = 0.5 * ensemble  # half the spread of the truth
        >>> round(float(conformal_factor(narrow, truth, 0.9)), 2)
        1.85
    """
    if dim_independent not in truth.dims:
        raise ShapeError(
            "a conformal correction needs independent cases",
            got=truth.dims,
            expected=f"a dimension {dim_independent!r}",
            hint="Name the dimension of the cases by dim_independent=.",
        )
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    ensemble = ensemble.where(where, 0)
    width = half_width(ensemble, level, dim=dim)
    n = truth.sizes[dim_independent]
    # The largest mean share outside on the given cases, if the new case counts as missed.
    allowed = 1 - level - level / n
    if allowed < -1e-12:
        raise InputError(
            f"too few cases for a conformal interval at level {level}",
            got=f"{n} cases",
            expected=f"at least {int(np.ceil(level / (1 - level) - 1e-9))}",
            hint="Lower the level, or add calibration cases.",
        )
    fields = xr.Dataset(
        {"error": abs(truth.where(where, 0) - ensemble.mean(dim)), "width": width, "where": where}
    ).compute()
    value = _smallest(fields, allowed, dim_independent)
    if not np.isfinite(value):
        raise InputError(
            "intervals of width zero miss the truth too often for any factor to correct",
            got=f"{int(((fields['width'] == 0) & (fields['error'] > 0)).sum())} such values",
            expected="members that differ",
            hint="Draw more members, or leave such values out by where=.",
        )
    return xr.DataArray(
        value,
        name="conformal_factor",
        attrs={
            "long_name": "factor on the half width of the interval",
            "units": "1",
            "level": level,
            "n_cases": n,
            "needs": f"new cases exchangeable with these along {dim_independent!r}",
            "promises": "coverage on average over cases and places, not conditional on either",
        },
    )


def _smallest(fields: xr.Dataset, allowed: float, dim_independent: str) -> float:
    """The smallest factor with which the mean share outside is at most ``allowed``."""
    is_evaluated = fields["where"].values
    error, width = fields["error"].values[is_evaluated], fields["width"].values[is_evaluated]
    score = np.where(error > 0, np.inf, 0.0)
    np.divide(error, width, out=score, where=width > 0)
    inner = [name for name in fields["where"].dims if name != dim_independent]
    n_evaluated = fields["where"].sum(inner)
    if not (n_evaluated > 0).all():
        raise InputError(
            "a case has no values to evaluate",
            got=f"{int((n_evaluated == 0).sum())} cases in which where= is False everywhere",
            hint=f"Select the other cases along {dim_independent!r}.",
        )
    weight = (1 / n_evaluated / n_evaluated.size).broadcast_like(fields["where"])
    order = np.argsort(score)
    outside = 1 - weight.transpose(*fields["where"].dims).values[is_evaluated][order].cumsum()
    return float(score[order][np.argmax(outside <= allowed + 1e-9)])
