"""Scores of an ensemble and its truth: CRPS, energy score, spread and error."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from invdiff.verification.scored import (
    Dims,
    check_weights,
    kept,
    moments,
    one_chunk,
    refuse_overlap,
    scored,
)

__all__ = ["crps", "energy_score", "spread_error"]


def crps(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    is_fair: bool = True,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    r"""Continuous ranked probability score of an ensemble, fair by default; 0 is best.

    .. math:: \mathrm{CRPS} = \frac1M \sum_i |x_i - y|
        - \frac{1}{2 M (M - 1)} \sum_{i, j} |x_i - x_j|.

    The fair score is that of the law from which the members are drawn: its expectation does not
    depend on their number :math:`M`. With :math:`M^2` in place of :math:`M (M - 1)` it is the
    score of the members as they are, which for calibrated ensembles is larger by the factor
    :math:`1 + 1/M`. For complex values take the parts one by one. The result is lazy if the
    ensemble is; members in several chunks are put into one, block by block. Cost: one sort of the
    members at each point.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        is_fair: Whether to score the law behind the members, or the members alone.
        dim: The name of the dimension of the members.
        by: The dims of the truth that are kept; all others are averaged.
        weights: Weights of the mean over dims of the truth, not negative, such as
            :func:`latitude_weights`; they are held in memory. By default all are alike.
        where: A boolean mask over dims of the truth, True where values are evaluated; with ``dim``
            in it, also of members that are there, which may be fewer in some places. By default all
            are.

    Returns:
        The score with the dims ``by``, in the units of the truth; NaN where nothing is evaluated.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or ``where`` is not boolean.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: Fewer than two members (one if not fair), ``where`` is False everywhere,
            negative weights, or all of them zero.

    References:
        Gneiting and Raftery, Journal of the American Statistical Association 102, 2007,
        doi 10.1198/016214506000001437. Ferro, Quarterly Journal of the Royal Meteorological Society
        140, 2014, doi 10.1002/qj.2270.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import crps
        >>> draws = np.random.default_rng(0).standard_normal((21, 5000, 2))
        >>> truth = xr.DataArray(draws[0], dims=("case", "lead_time"))
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case", "lead_time"))
        >>> float(crps(ensemble, truth).round(2))  # of the standard normal law: 1 / sqrt(pi)
        0.56
        >>> crps(ensemble, truth, by="lead_time").round(2).values
        array([0.56, 0.56])
    """
    given = scored(
        ensemble,
        truth,
        dim=dim,
        n_members=2 if is_fair else 1,
        by=by,
        weights=weights,
        where=where,
    )
    score = xr.apply_ufunc(
        _crps,
        one_chunk(given.ensemble, dim),
        given.truth,
        input_core_dims=[[dim], []],
        kwargs={"is_fair": is_fair},
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    attrs = {"units": truth.attrs.get("units", "1"), "long_name": "CRPS"}
    return given.mean(score).rename("crps").assign_attrs(attrs)


def _crps(
    members: NDArray[np.float64], truth: NDArray[np.float64], *, is_fair: bool
) -> NDArray[np.float64]:
    """The score at each point, of members along the last axis; NaN is a member left out."""
    error = np.sort(members - truth[..., None], axis=-1)  # NaN comes last
    n = np.isfinite(error).sum(-1)
    # In sorted order the differences of all pairs add up to sum_i (2 i - n - 1) x_i.
    order = 2.0 * np.arange(1, error.shape[-1] + 1) - n[..., None] - 1
    n_pairs = n * (n - 1) if is_fair else n * n
    with np.errstate(divide="ignore", invalid="ignore"):  # too few members: NaN
        skill = np.nansum(np.abs(error), -1) / n
        score: NDArray[np.float64] = skill - np.nansum(order * error, -1) / n_pairs
    return np.where(n_pairs > 0, score, np.nan)


def energy_score(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    vector_dims: Dims,
    *,
    is_fair: bool = True,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    r"""Energy score of an ensemble of vectors, fair by default; 0 is best.

    .. math:: \mathrm{ES} = \frac1M \sum_i \|x_i - y\|
        - \frac{1}{2 M (M - 1)} \sum_{i, j} \|x_i - x_j\|, \qquad
        \|v\|^2 = \sum_k w_k v_k^2.

    It is the CRPS for vectors of one component. Unlike the mean CRPS it sees wrong correlations
    between components, though weakly. The score of the members as they are has :math:`M^2` in place
    of :math:`M (M - 1)`. The distances come from inner products of deviations
    from the ensemble mean, which add up over the chunks of a vector; members that are equal are
    apart by rounding, 1e-8 of the spread. Cost: :math:`M^2` inner products.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        vector_dims: The dims of a vector.
        is_fair: Whether to score the law behind the members, or the members alone.
        dim: The name of the dimension of the members.
        by: The dims of the truth that are kept; all others are averaged.
        weights: Weights of the components in the norm, over ``vector_dims``, not negative; they are
            held in memory. By default 1.
        where: A boolean mask over dims of the truth, True for the components that count. By default
            all do.

    Returns:
        The score with the dims ``by``, in the units of the truth if the weights have none.

    Raises:
        ShapeError: Dims or labels do not match, ``vector_dims`` are not dims of the truth, or they
            are among ``by``.
        DTypeError: Complex values, or ``where`` is not boolean.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: Fewer than two members (one if not fair), ``where`` is False everywhere,
            negative weights, or all of them zero.

    References:
        Gneiting and Raftery, Journal of the American Statistical Association 102, 2007,
        doi 10.1198/016214506000001437.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import energy_score
        >>> draws = np.random.default_rng(0).standard_normal((21, 500, 4))
        >>> truth = xr.DataArray(draws[0], dims=("case", "x"))
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case", "x"))
        >>> float(energy_score(ensemble, truth, "x").round(1))
        1.3
    """
    vector = kept(vector_dims, truth)
    refuse_overlap(vector, kept(by, truth))
    norm = check_weights(weights, truth.isel({n: 0 for n in truth.dims if n not in vector}))
    given = scored(
        ensemble,
        truth,
        dim=dim,
        n_members=2 if is_fair else 1,
        by=by,
        where=where,
        is_complete=True,
    )
    # One chunk of members: chunks of pairs of members would be many and small.
    members = one_chunk(given.ensemble, dim).fillna(0).drop_vars(dim, errors="ignore")
    root, m = norm**0.5, members.sizes[dim]
    error = root * (members - given.truth.fillna(0))
    skill = ((error**2).sum(vector) ** 0.5).mean(dim)
    deviation = root * (members - members.mean(dim))
    other = f"{dim}_other"
    square = (deviation**2).sum(vector)
    products = xr.dot(deviation, deviation.rename({dim: other}), dim=list(vector))
    distance = (square + square.rename({dim: other}) - 2 * products).clip(min=0) ** 0.5
    is_pair = xr.DataArray(~np.eye(m, dtype=bool), dims=(dim, other))  # zero, not rounding
    n_pairs = m * (m - 1) if is_fair else m * m
    score = skill - distance.where(is_pair, 0).sum((dim, other)) / (2 * n_pairs)
    over = [name for name in given.over if name not in vector]
    total: xr.DataArray = score.where(given.truth.notnull().any(vector)).mean(over)
    attrs = {"units": truth.attrs.get("units", "1"), "long_name": "energy score"}
    return total.rename("energy_score").assign_attrs(attrs)


def spread_error(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Spread of an ensemble, error of its mean, and their ratio: 1 for calibrated ensembles.

    .. math:: \mathrm{spread} = \sqrt{\overline{\frac{M + 1}{M} s^2}}, \qquad
        \mathrm{rmse} = \sqrt{\overline{(y - \bar x)^2}},

    with the sample variance :math:`s^2`. The factor is what the mean of finitely many members errs
    more than the mean of their law. The result is lazy if the ensemble is, and the members are
    reduced chunk by chunk. :func:`invdiff.calibration.spread_skill` gives the interval of the ratio
    over independent cases. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
            There must be two or more.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        dim: The name of the dimension of the members.
        by: The dims of the truth that are kept; all others are averaged.
        weights: Weights of the mean over dims of the truth, not negative, such as
            :func:`latitude_weights`; they are held in memory. By default all are alike.
        where: A boolean mask over dims of the truth, True where values are evaluated; with ``dim``
            in it, also of members that are there. By default all are.

    Returns:
        ``spread``, ``rmse`` and ``bias`` (mean of :math:`\bar x - y`) in the units of the truth,
        and ``spread_skill``, with the dims ``by``; NaN where nothing is evaluated.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or ``where`` is not boolean.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: Fewer than two members, ``where`` is False everywhere, negative weights, or all
            of them zero.

    References:
        Fortin, Abaza, Anctil and Turcotte, Journal of Hydrometeorology 15, 2014,
        doi 10.1175/JHM-D-14-0008.1.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import spread_error
        >>> draws = np.random.default_rng(0).standard_normal((3, 20_000))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))  # two members
        >>> found = spread_error(ensemble, truth)
        >>> [float(found[name].round(2)) for name in ("spread", "rmse", "spread_skill")]
        [1.22, 1.22, 1.0]
    """
    given = scored(ensemble, truth, dim=dim, n_members=2, by=by, weights=weights, where=where)
    n, centre, variance = moments(given.ensemble, dim)
    error = (centre - given.truth).where(n > 1)
    spread = given.mean((variance * (n + 1) / n).where(error.notnull())) ** 0.5
    rmse = given.mean(error**2) ** 0.5
    found = xr.Dataset({"spread": spread, "rmse": rmse, "bias": given.mean(error)})
    for field in found.values():
        field.attrs = {"units": truth.attrs.get("units", "1")}
    return found.assign(spread_skill=spread / rmse.where(rmse > 0))
