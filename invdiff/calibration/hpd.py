"""Coverage of regions of highest posterior density, where the density is known."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from invdiff.calibration._cases import check_independent
from invdiff.calibration.intervals import LEVELS, share_curve
from invdiff.calibration.pairs import paired, refuse_non_finite
from invdiff.calibration.rank_statistics import pit
from invdiff.errors import DTypeError, InputError

__all__ = ["hpd_coverage"]


def hpd_coverage(
    log_prob_members: xr.DataArray,
    log_prob_truth: xr.DataArray,
    levels: Sequence[float] = LEVELS,
    *,
    dim: str = "realization",
    dim_independent: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Share of cases whose truth lies in the region of highest density, by nominal level.

    The truth lies in the region of a level if the share of the posterior's mass at higher density
    is below the level. That share is estimated by the rank of the truth's log density among the
    members', with ties and the steps of :math:`1 / (n + 1)` broken at random, which is exact for
    any number of independent members. The density is the joint one of all values, so that each case
    gives one number; it is needed up to a constant per case.

    Args:
        log_prob_members: The log posterior density of each member, with dimension ``dim``.
        log_prob_truth: That of the truth, up to the same constant, without ``dim``.
        levels: The nominal levels of the regions, between 0 and 1.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension along which cases are independent. By default
            each value counts as an independent case.
        confidence: The confidence of the band, at each level separately.
        seed: The seed of the draws that break ties.

    Returns:
        ``coverage(level)``, ``lower(level)``, ``upper(level)`` and ``n_effective(level)``.

    Raises:
        InputError: A level is outside (0, 1).
        ShapeError: Dims or labels do not match.
        DTypeError: The densities are complex.
        NonFiniteError: NaN or Inf; a truth of density zero means that the model is wrong.

    References:
        Hyndman, American Statistician 50, 1996.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import hpd_coverage
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> curve = hpd_coverage(-(ensemble**2) / 2, -(truth**2) / 2, [0.9])
        >>> round(float(curve["coverage"][0]), 3)
        0.93
    """
    if log_prob_members.dtype.kind == "c":
        raise DTypeError(
            "the log densities are complex", got=log_prob_members.dtype, expected="real"
        )
    if not all(0 < level < 1 for level in levels):
        raise InputError(
            "a level is out of range", got=f"levels {list(levels)}", expected="0 < level < 1"
        )
    check_independent(log_prob_truth.dims, dim_independent)
    _, _, where = paired(log_prob_members, log_prob_truth, None, dim=dim)
    below = pit(log_prob_members, log_prob_truth, dim=dim, seed=seed).compute()
    refuse_non_finite(where, {"log density": below})
    label = xr.DataArray(list(levels), dims="level", name="level")
    hits = (1 - below <= label.assign_coords(level=label)).transpose("level", *below.dims)
    curve = share_curve(hits, where, dim_independent, confidence=confidence)
    curve["coverage"].attrs = {
        "long_name": "share of truths in the region of highest density",
        "units": "1",
    }
    return curve
