r"""Coverage of regions of highest posterior density, where the density is known.

The truth lies in the region of highest density of a level exactly if the share of the posterior's
mass at higher density is below it (Hyndman, American Statistician 50, 1996). The share is the rank
of the truth's log density among the members', with ties and steps of 1/(n + 1) broken at random:
exact for any number of independent members. It needs the log density up to a constant a case: the
joint one of all values, so that one number a case is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from invdiff.calibration._cases import check_independent
from invdiff.calibration._pairs import paired, refuse_non_finite
from invdiff.calibration.intervals import LEVELS, share_curve
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

    Args:
        log_prob_members: log posterior density of each member, with dimension ``dim``.
        log_prob_truth: that of the truth, up to the same constant.
        levels: nominal levels.
        dim: the dimension of the members.
        dim_independent: dimension along which cases are independent; None: all of them.
        confidence: of the band, pointwise.
        seed: of the draws that break ties.

    Returns:
        ``coverage(level)``, ``lower(level)``, ``upper(level)``, ``n_effective(level)``.

    Raises:
        InputError: a level outside (0, 1).
        ShapeError: dims or labels that do not match.
        DTypeError: complex values.
        NonFiniteError: NaN or Inf; a truth of density zero is a fault of the model.
    """
    if log_prob_members.dtype.kind == "c":
        raise DTypeError("a log density is complex", got=log_prob_members.dtype, expected="real")
    if not all(0 < level < 1 for level in levels):
        raise InputError("no region", got=f"levels {list(levels)}", expected="0 < level < 1")
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
