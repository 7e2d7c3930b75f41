r"""Conformal correction: a factor on the half widths that makes them cover, whatever the ensemble.

Split conformal prediction (Vovk, Gammerman and Shafer 2005) with the score

    |truth - mean| / half_width.

With one value a case the factor is the ceil((n + 1) level)-th smallest of the n scores. With a
field a case it is the smallest factor by which the *expected share* of the field inside the widened
intervals is at least ``level`` (conformal risk control, Angelopoulos, Bates, Fisch, Lei and
Schuster, ICLR 2024), which asks nothing of the correlation inside a case.

What it needs: cases of calibration and of use are exchangeable (same operator, same noise, same
population). What it gives: coverage on average over cases and places, not at each place nor for
each kind of case. It cannot move intervals that are centred wrongly, only widen them.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.calibration._pairs import paired, refuse_non_finite
from invdiff.calibration.intervals import half_width
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
    """Factor on :func:`half_width` at ``level``, from cases with a known truth.

    For a new case of the same kind the interval ``mean +- factor * half_width(new, level)`` holds
    the truth with probability ``level`` or more. Use cases that no choice was tuned on.

    Args:
        ensemble: members of the calibration cases, with dims ``dim`` and ``dim_independent``.
        truth: without ``dim``, otherwise on the same labels.
        level: wanted probability, between 0 and 1.
        dim: the dimension of the members.
        dim_independent: the dimension of the cases.
        where: boolean; judge only there.

    Returns:
        One number; what it promises and needs stands in its attributes.

    Raises:
        InputError: too few cases for the level (at least ``level / (1 - level)``), a level outside
            (0, 1), intervals of width zero that miss, a case with nothing to judge.
        ShapeError: dims or labels that do not match, no such ``dim_independent``.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
    """
    if dim_independent not in truth.dims:
        raise ShapeError(
            "a conformal correction needs cases",
            got=truth.dims,
            expected=f"a dimension {dim_independent!r}",
            hint="Name the dimension of the cases by dim_independent=.",
        )
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    ensemble = ensemble.where(where, 0)
    width = half_width(ensemble, level, dim=dim)
    n = truth.sizes[dim_independent]
    # The share outside may be at most this on the seen cases for the unseen one to count as missed.
    allowed = 1 - level - level / n
    if allowed < -1e-12:
        raise InputError(
            f"too few cases for a conformal interval at level {level}",
            got=f"{n} cases",
            expected=f"at least {int(np.ceil(level / (1 - level) - 1e-9))}",
            hint="Lower the level or add cases of calibration.",
        )
    fields = xr.Dataset(
        {"error": abs(truth.where(where, 0) - ensemble.mean(dim)), "width": width, "where": where}
    ).compute()
    value = _smallest(fields, allowed, dim_independent)
    if not np.isfinite(value):
        raise InputError(
            "intervals of width zero miss the truth too often for any factor to mend",
            got=f"{int(((fields['width'] == 0) & (fields['error'] > 0)).sum())} such values",
            expected="members that differ",
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
    """Smallest factor with a mean share outside of at most ``allowed``."""
    is_judged = fields["where"].values
    error, width = fields["error"].values[is_judged], fields["width"].values[is_judged]
    score = np.where(error > 0, np.inf, 0.0)
    np.divide(error, width, out=score, where=width > 0)
    inner = [name for name in fields["where"].dims if name != dim_independent]
    n_judged = fields["where"].sum(inner)
    if not (n_judged > 0).all():
        raise InputError(
            "a case has nothing to judge",
            got=f"{int((n_judged == 0).sum())} cases where where= is False throughout",
            hint=f"Select the others along {dim_independent!r}.",
        )
    weight = (1 / n_judged / n_judged.size).broadcast_like(fields["where"])
    order = np.argsort(score)
    outside = 1 - weight.transpose(*fields["where"].dims).values[is_judged][order].cumsum()
    return float(score[order][np.argmax(outside <= allowed + 1e-9)])
