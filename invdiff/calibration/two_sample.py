"""PQMass: a test of whether two ensembles come from one distribution."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from invdiff.calibration.pairs import generator, paired, refuse_non_finite
from invdiff.errors import InputError

__all__ = ["pqmass"]


def pqmass(
    first: xr.DataArray,
    second: xr.DataArray,
    *,
    dim: str = "realization",
    n_regions: int = 10,
    n_tessellations: int = 50,
    n_permutations: int = 999,
    seed: int = 0,
) -> xr.Dataset:
    """Chi-square of the counts of two ensembles in Voronoi cells, and its p-value (PQMass).

    Points drawn from both ensembles together divide the space into Voronoi cells. If the two
    distributions agree, the counts of the two in each cell differ by chance alone: the statistic is
    the chi-square of the 2 x ``n_regions`` table. The chi-square of one tessellation depends on its
    points; its mean over many is therefore tested, by permuting the labels of the members, which is
    exact for independent members of any number and dimension. Cost: all distances between members,
    :math:`n^2` times the size of a field, in memory.

    Args:
        first: The members of one ensemble, with dimension ``dim``.
        second: The members of the other ensemble, on the same labels except for ``dim``.
        dim: The name of the dimension of the members.
        n_regions: The number of Voronoi cells.
        n_tessellations: The number of sets of cells to average over.
        n_permutations: The number of permutations of the labels; the smallest p-value is
            ``1 / (1 + n_permutations)``.
        seed: The seed of the cells and the permutations.

    Returns:
        ``chi2(tessellation)``, near ``n_regions - 1`` if the distributions agree, and ``p_value``.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: One ensemble is real and the other complex.
        NonFiniteError: NaN or Inf in an ensemble.
        InputError: Fewer than ``2 n_regions`` members in all, or fewer than 2 regions.

    References:
        Lemos, Sharief, Malkin, Salhi, Stone, Perreault-Levasseur and Hezaveh, ICLR 2025,
        arXiv 2402.04355.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import pqmass
        >>> draws = np.random.default_rng(0).standard_normal((2, 100, 3))
        >>> first, second = (xr.DataArray(d, dims=("realization", "x")) for d in draws)
        >>> float(pqmass(first, second)["p_value"])
        0.591
        >>> float(pqmass(first, 2 * second)["p_value"])  # twice the spread
        0.001
    """
    rows = []
    for name, members, other in (("first", first, second), ("second", second, first)):
        one = other.isel({dim: 0}, drop=True) if dim in other.dims else other
        members, _, where = paired(members, one, None, dim=dim)
        refuse_non_finite(where, {f"{name} ensemble": members})
        rows.append(members.values.reshape(members.sizes[dim], -1))
    pooled = np.concatenate(rows)
    n = len(pooled)
    if n_regions < 2 or n < 2 * n_regions:
        raise InputError(
            "too few members for so many regions",
            got=f"{n} members in all, {n_regions} regions",
            expected="at least 2 regions, and twice as many members",
            hint="Lower n_regions or draw more members.",
        )
    rng = generator(seed)
    distance = cdist(pooled, pooled)
    is_first = np.arange(n) < len(rows[0])
    labels = [is_first, *(rng.permutation(is_first) for _ in range(n_permutations))]
    label = np.array(labels, dtype=float)
    chi2 = np.stack(
        [
            _chi_square(label, distance, rng.choice(n, n_regions, replace=False))
            for _ in range(n_tessellations)
        ]
    )
    score = chi2.mean(0)
    n_beyond = int((score[1:] >= score[0] * (1 - 1e-9)).sum())
    return xr.Dataset(
        {
            "chi2": ("tessellation", chi2[:, 0]),
            "p_value": (1 + n_beyond) / (1 + n_permutations),
        },
        attrs={"degrees_of_freedom": n_regions - 1, "assumes": "independent members"},
    )


def _chi_square(
    label: NDArray[np.float64], distance: NDArray[np.float64], centres: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Chi-square of the 2 x cells tables, one per row of labels; the centres are not counted."""
    rest = np.delete(np.arange(distance.shape[0]), centres)
    cell = distance[np.ix_(rest, centres)].argmin(1)
    is_in = np.eye(len(centres))[cell]
    size = is_in.sum(0)
    is_in, size = is_in[:, size > 0], size[size > 0]
    seen = label[:, rest] @ is_in
    share = label[:, rest].mean(1, keepdims=True)
    # An empty row of the table (all members of one ensemble are centres) carries no information.
    scale = np.where((share > 0) & (share < 1), share * (1 - share), np.inf)
    chi2: NDArray[np.float64] = ((seen - share * size) ** 2 / (size * scale)).sum(1)
    return chi2
