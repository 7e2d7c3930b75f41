"""A table of the scores of an ensemble, and a verdict in a sentence."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff.calibration import report
from invdiff.calibration.verdict import CALIBRATED, faults, source
from invdiff.errors import InputError
from invdiff.verification.ensemble_scores import crps, spread_error

__all__ = ["verify"]

TESTS = (
    *("rank_count", "rank_share", "rank_lower", "rank_upper"),
    *("coverage", "coverage_lower", "coverage_upper"),
    *("p_bias", "p_width", "p_shape"),
)


def verify(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    dim: str = "realization",
    by: str = "lead_time",
    dim_independent: str | None = None,
    confidence: float = 0.95,
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Score an ensemble against the truth, by lead time if there is one, with a verdict in words.

    The scores are weighted means (:func:`crps`, :func:`spread_error`). Ranks, coverage and the
    tests behind the verdict are those of :func:`invdiff.calibration.report`, which count values
    alike; their confidence holds for all lead times together (Bonferroni), so that of exact
    ensembles at most ``1 - confidence`` are said to be at fault anywhere. Everything is computed:
    about a dozen passes over the members, more where there is a bias, block by block.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
            There must be two or more.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        dim: The name of the dimension of the members.
        by: The dim that is told apart, if the truth has it.
        dim_independent: The name of the dimension along which cases are independent, such as that
            of the initial times. By default each value counts as an independent case, and the
            verdict says so.
        confidence: The confidence of all bands and of the verdict.
        weights: Weights of the scores over dims of the truth, not negative, such as
            :func:`latitude_weights`. By default all are alike.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.
        seed: The seed of the draws that break ties.

    Returns:
        ``crps`` (fair), ``rmse``, ``spread`` and ``bias`` in the units of the truth,
        ``spread_skill``; ``rank_count(bin)``, ``rank_share(bin)`` with its band ``rank_lower`` and
        ``rank_upper``; ``coverage(level)`` with ``coverage_lower`` and ``coverage_upper``;
        ``p_bias``, ``p_width`` and ``p_shape``; all of them along ``by``, if the truth has it. The
        attribute ``verdict`` is the sentence.

    Raises:
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: Complex values, or ``where`` is not boolean.
        NonFiniteError: NaN or Inf in the weights, or where values are evaluated.
        InputError: Too few members or cases, ``where`` is False everywhere (at a lead time),
            negative weights, or all of them zero.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import verify
        >>> draws = np.random.default_rng(0).standard_normal((21, 200, 2))
        >>> truth = xr.DataArray(draws[0], dims=("time", "lead_time"), attrs={"units": "K"})
        >>> truth = truth.assign_coords(lead_time=[24, 48])
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "time", "lead_time"))
        >>> ensemble = ensemble * xr.DataArray([1.0, 0.5], dims="lead_time")
        >>> found = verify(ensemble, truth, dim_independent="time")
        >>> found["spread_skill"].values.round(1)
        array([1. , 0.5])
        >>> print(found.attrs["verdict"])
        The ensemble is too narrow at lead time 48; elsewhere calibrated, as far as these tests can
        detect: CRPS 0.566 to 0.609 K, error of the mean 1.01 to 1.03 K, spread 0.51 to 1.01 times
        the error, from 200 independent cases at each.
    """
    keep = (by,) if by in truth.dims else ()
    score = crps(ensemble, truth, dim=dim, by=keep, weights=weights, where=where)
    moments = spread_error(ensemble, truth, dim=dim, by=keep, weights=weights, where=where)
    scores = moments.assign(crps=score).compute()
    n_parts = truth.sizes[by] if keep else 1
    tables = [
        report(
            *_part(i, ensemble, truth, by=by),
            dim=dim,
            dim_independent=dim_independent,
            confidence=1 - (1 - confidence) / n_parts,
            where=None if where is None else _part(i, where, by=by)[0],
            seed=seed,
        ).table
        for i in range(n_parts)
    ]
    if len({table.sizes["bin"] for table in tables}) > 1:
        raise InputError(
            "the histograms of ranks have different bins",
            got=f"{sorted(table.attrs['n_values'] for table in tables)} values along {by!r}",
            expected="about as many values everywhere",
            hint="Select the part along it that has enough values.",
        )
    parts = [table[[*TESTS]] for table in tables]
    label = truth[by] if keep else xr.DataArray([0], dims=by, name=by)
    tests = xr.concat(parts, label, combine_attrs="override")
    tests = tests if keep else tests.isel({by: 0}, drop=True)
    found = scores.merge(tests, join="exact", compat="no_conflicts", combine_attrs="override")
    words = _by_part(scores, tables, by) if keep else _sentence(scores, tables[0])
    return found.assign_attrs(confidence=confidence, verdict=words)


def _part(i: int, *fields: xr.DataArray, by: str) -> list[xr.DataArray]:
    """The fields at place ``i`` along ``by``, if they have it."""
    return [field.isel({by: i}, drop=True) if by in field.dims else field for field in fields]


def _sentence(scores: xr.Dataset, table: xr.Dataset) -> str:
    """The verdict on one part."""
    units = _units(scores)
    return (
        f"The ensemble is {' and '.join(faults(table)) or CALIBRATED}: CRPS {scores['crps']:.3g}"
        f"{units}, error of the mean {scores['rmse']:.3g}{units}, spread"
        f" {scores['spread_skill']:.2f} times the error, {source(table)}."
    )


def _by_part(scores: xr.Dataset, tables: list[xr.Dataset], by: str) -> str:
    """The verdict on all parts together: where which fault is, and the range of the scores."""
    places: dict[str, list[str]] = {}
    for value, table in zip(scores[by].values, tables, strict=True):
        if fault := " and ".join(faults(table)):
            places.setdefault(fault, []).append(_name(value))
    name = by.replace("_", " ")
    judgement = f"{CALIBRATED}, at all {len(tables)} values of {name}"
    if places:
        listed = (f"{fault} at {name} {', '.join(where)}" for fault, where in places.items())
        judgement = "; ".join(listed)
        n_right = len(tables) - sum(map(len, places.values()))
        judgement += f"; elsewhere {CALIBRATED}" if n_right else ""
    units = _units(scores)
    low, high = scores.min(), scores.max()
    smallest = min(tables, key=lambda table: int(table.attrs["n_values"]))
    return (
        f"The ensemble is {judgement}: CRPS {low['crps']:.3g} to {high['crps']:.3g}{units}, error"
        f" of the mean {low['rmse']:.3g} to {high['rmse']:.3g}{units}, spread"
        f" {low['spread_skill']:.2f} to {high['spread_skill']:.2f} times the error,"
        f" {source(smallest)} at each."
    )


def _name(value: np.generic) -> str:
    """A coordinate value in words; time spans in hours."""
    if isinstance(value, np.timedelta64):
        return f"{value / np.timedelta64(1, 'h'):g} h"
    return f"{value:g}" if isinstance(value, np.number) else str(value)


def _units(scores: xr.Dataset) -> str:
    units = scores["crps"].attrs["units"]
    return "" if units == "1" else f" {units}"
