"""TARP: expected coverage of balls around random points, in all dimensions at once."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.calibration.pairs import (
    generator,
    paired,
    real_parts,
    refuse_non_finite,
    uniform_like,
)
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
    """Expected coverage of balls around random reference points, by credibility level (TARP).

    For each case a reference point is drawn; the credibility of the truth is the share of members
    nearer to that point than the truth. The expected coverage, the share of cases with a
    credibility below a level, is the level itself for exact posteriors. Conversely, posteriors for
    which this holds for every distribution of the reference points are exact. For one distribution
    this need not be so: points on all sides of the truth, as by default, detect a wrong width but
    hardly a bias, which cancels between the sides; points on one side detect both. In many
    dimensions the distance from a far point is little more than one projection; give ``references``
    near the posterior, or a few features of the fields, where that matters.

    Args:
        ensemble: The members, with dims ``dim`` and ``dim_independent``.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        references: Reference points with the dims and labels of the truth, which may depend on the
            data but not on the truth. By default they are uniform in the box that holds all members
            and truths, value by value.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension of the cases.
        confidence: The probability that the whole curve of exact posteriors lies in the band.
        seed: The seed of the reference points and of the draws that break ties.

    Returns:
        ``ecp(level)``, ``lower(level)``, ``upper(level)`` and ``p_value``. A curve below the
        diagonal at high levels and above it at low ones means too narrow, the reverse too wide.

    Raises:
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf.

    References:
        Lemos, Coogan, Hezaveh and Perreault-Levasseur, ICML 2023, arXiv 2302.03026.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import tarp
        >>> draws = np.random.default_rng(0).standard_normal((21, 200, 3))
        >>> truth = xr.DataArray(draws[0], dims=("case", "x"))
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case", "x"))
        >>> round(float(tarp(ensemble, truth)["p_value"]), 2)
        0.96
        >>> float(tarp(0.5 * ensemble, truth)["p_value"]) < 0.01  # half the spread
        True
    """
    if dim_independent not in truth.dims:
        raise ShapeError(
            "TARP needs independent cases",
            got=truth.dims,
            expected=f"a dimension {dim_independent!r}",
            hint="Name the dimension of the cases by dim_independent=.",
        )
    given = references
    ensemble, truth, where = paired(ensemble, truth, None, dim=dim)
    refuse_non_finite(where, {"truth": truth, "ensemble": ensemble})
    rng = generator(seed)
    if given is None:
        # Of members and truth alike, so that they stay exchangeable given the box.
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
