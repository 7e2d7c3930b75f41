r"""TARP: coverage of balls around random points, in all dimensions at once.

Lemos, Coogan, Hezaveh and Perreault-Levasseur, ICML 2023 (arXiv:2302.03026). For each case draw a
reference point; the truth's credibility is the share of members nearer to it than the truth. The
expected coverage, ECP(level) = share of cases with credibility below the level, is the level itself
for exact posteriors; conversely, if that holds for every law of the reference points, they are
exact. For one law that need not be so: points on all sides of the truth, as the default ones are,
see a wrong width but hardly a bias, which cancels between the sides; points on one side see both.
In many dimensions the distance from a far point is little more than one projection: give
``references`` near the posterior, or a few features of the fields, where that matters.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.calibration._pairs import paired, real_parts, refuse_non_finite, uniform_like
from invdiff.calibration.rank_statistics import pit
from invdiff.calibration.uniformity import pit_ecdf
from invdiff.errors import ShapeError

__all__ = ["tarp"]


def tarp(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    references: xr.DataArray | None = None,
    dim: str = "realization",
    dim_independent: str = "case",
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Expected coverage of balls around random reference points, by credibility level.

    Args:
        ensemble: members, with dims ``dim`` and ``dim_independent``.
        truth: without ``dim``, otherwise on the same labels.
        references: reference points with the truth's dims and labels; may depend on the data but
            not on the truth. By default uniform in the box that holds all members and truths,
            value by value.
        dim: the dimension of the members.
        dim_independent: the dimension of the cases.
        confidence: that all of the curve lies in the band, for exact posteriors.
        seed: of the reference points and the draws that break ties.

    Returns:
        ``ecp(level)``, ``lower(level)``, ``upper(level)``, ``p_value``. Below the diagonal at high
        levels and above it at low ones: too narrow; the reverse: too wide.

    Raises:
        ShapeError: dims or labels that do not match, no such ``dim_independent``.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf.
    """
    if dim_independent not in truth.dims:
        raise ShapeError(
            "TARP needs cases",
            got=truth.dims,
            expected=f"a dimension {dim_independent!r}",
            hint="Name the dimension of the cases by dim_independent=.",
        )
    given = references
    ensemble, truth, where = paired(ensemble, truth, None, dim=dim)
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    rng = np.random.default_rng(seed)
    if given is None:
        # Members and truth alike, so that they stay exchangeable given the box.
        low = np.minimum(ensemble.min((dim, dim_independent)), truth.min(dim_independent))
        high = np.maximum(ensemble.max((dim, dim_independent)), truth.max(dim_independent))
        points = low + (high - low) * uniform_like(truth, rng)
    else:
        points = paired(truth.expand_dims(dim), real_parts(given), None, dim=dim)[1]
        refuse_non_finite(where, {"references": points})
    inner = [name for name in truth.dims if name != dim_independent]
    values = pit(
        ((ensemble - points) ** 2).sum(inner),
        ((truth - points) ** 2).sum(inner),
        dim=dim,
        seed=int(rng.integers(2**32)),
    )
    curve = pit_ecdf(values, confidence=confidence, seed=seed)
    return curve.rename(ecdf="ecp", point="level")
