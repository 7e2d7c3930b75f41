"""Scores of the probability of an event, as an ensemble states it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from invdiff.errors import DTypeError, InputError
from invdiff.verification.scored import Dims, Scored, scored

__all__ = ["Event", "brier_score", "reliability_diagram"]

Event = Callable[[xr.DataArray], xr.DataArray]


def brier_score(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    event: Event,
    *,
    is_fair: bool = True,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.DataArray:
    r"""Brier score of the probability of an event, fair by default; 0 is best.

    .. math:: \mathrm{BS} = (p - o)^2 - \frac{p (1 - p)}{M - 1},

    where :math:`p` is the share of members with the event and :math:`o` is 1 where it occurs. The
    second term makes the expectation that of the probability behind the members, whatever their
    number :math:`M`; without it (``is_fair=False``) few members score worse. The result is lazy if
    the ensemble is, and the members are counted chunk by chunk. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        event: A function of a field, members or truth, that is True where the event occurs, such as
            ``lambda wind: wind > 17.2``. Compared with a labelled array of thresholds, it gives the
            score for each of them.
        is_fair: Whether to score the probability behind the members, or their share.
        dim: The name of the dimension of the members.
        by: The dims of the truth that are kept; all others are averaged.
        weights: Weights of the mean over dims of the truth, not negative, such as
            :func:`latitude_weights`; they are held in memory. By default all are alike.
        where: A boolean mask over dims of the truth, True where values are evaluated; with ``dim``
            in it, also of members that are there. By default all are.

    Returns:
        The score with the dims ``by`` and those that the event adds.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or an event or ``where`` that is not boolean.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: Fewer than two members (one if not fair), ``where`` is False everywhere,
            negative weights, or all of them zero.

    References:
        Ferro, Quarterly Journal of the Royal Meteorological Society 140, 2014,
        doi 10.1002/qj.2270.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import brier_score
        >>> draws = np.random.default_rng(0).standard_normal((21, 5000))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> float(brier_score(ensemble, truth, lambda x: x > 0).round(2))  # p (1 - p), p = 1/2
        0.25
    """
    n_members = 2 if is_fair else 1
    given = scored(
        ensemble, truth, dim=dim, n_members=n_members, by=by, weights=weights, where=where
    )
    hits, n, occurs = _counts(given, event, dim=dim)
    n = n.where(n >= n_members)
    share = hits / n
    score = (share - occurs) ** 2
    if is_fair:
        score = score - share * (1 - share) / (n - 1)
    return given.mean(score).rename("brier_score").assign_attrs(units="1")


def reliability_diagram(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    event: Event,
    *,
    n_bins: int = 10,
    dim: str = "realization",
    by: Dims = (),
    weights: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
) -> xr.Dataset:
    """Observed frequency of an event against its forecast probability, in equal bins of the latter.

    For a reliable ensemble of many members the two are equal in each bin. With few members
    the curve is flatter than the diagonal, since the share of members is an uncertain probability.
    The result is lazy if the ensemble is. Cost: one pass over the members.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        event: A function of a field, members or truth, that is True where the event occurs.
        n_bins: The number of bins of probability; the last one includes 1.
        dim: The name of the dimension of the members.
        by: The dims of the truth that are kept.
        weights: Weights over dims of the truth, not negative, such as :func:`latitude_weights`;
            they are held in memory. By default all are alike.
        where: A boolean mask over dims of the truth, True where values are evaluated; with ``dim``
            in it, also of members that are there. By default all are.

    Returns:
        ``probability(bin)``, the mean forecast in the bin, ``frequency(bin)`` of the event, both
        NaN in an empty bin, and ``share(bin)`` of the forecasts, with the dims ``by`` and those
        that the event adds; ``bin`` holds centres.

    Raises:
        ShapeError: Dims or labels do not match.
        DTypeError: Complex values, or an event or ``where`` that is not boolean.
        NonFiniteError: NaN or Inf in the weights; where values are evaluated, when they are
            computed.
        InputError: Fewer than two bins, no members, ``where`` is False everywhere, negative
            weights, or all of them zero.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.verification import reliability_diagram
        >>> rng = np.random.default_rng(0)
        >>> centre = xr.DataArray(rng.standard_normal(5000), dims="case")
        >>> noise = xr.DataArray(rng.standard_normal((51, 5000)), dims=("realization", "case"))
        >>> ensemble, truth = centre + noise[1:], centre + noise[0]
        >>> found = reliability_diagram(ensemble, truth, lambda x: x > 0, n_bins=4)
        >>> found["probability"].values.round(2), found["frequency"].values.round(2)
        (array([0.12, 0.37, 0.62, 0.88]), array([0.14, 0.38, 0.62, 0.87]))
    """
    if n_bins < 2:
        raise InputError("a diagram needs bins", got=f"n_bins={n_bins}", expected="at least 2")
    given = scored(ensemble, truth, dim=dim, n_members=1, by=by, weights=weights, where=where)
    hits, n, occurs = _counts(given, event, dim=dim)
    n = n.where(n > 0)
    # Of counts, not of shares: 29 of 100 members are in the bin of 0.29 in spite of rounding.
    place = np.minimum(hits * n_bins // n, n_bins - 1)
    bins = xr.DataArray(np.arange(n_bins), dims="bin")
    is_in = (place == bins).where((occurs + n).notnull())
    share = given.mean(is_in)
    filled = share.where(share > 0)
    found = {
        "probability": given.mean(is_in * (hits / n)) / filled,
        "frequency": given.mean(is_in * occurs) / filled,
        "share": share,
    }
    return xr.Dataset(found, coords={"bin": (np.arange(n_bins) + 0.5) / n_bins})


def _counts(
    given: Scored, event: Event, *, dim: str
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Members with the event, members that are there, and whether the truth has it (0, 1, NaN).

    Raises:
        DTypeError: The event is not boolean.
    """
    members, occurs = event(given.ensemble), event(given.truth)
    for found in (members, occurs):
        if found.dtype != np.bool_:
            raise DTypeError(
                "the event is not boolean",
                got=found.dtype,
                expected="True where it occurs",
                hint="Give a comparison, such as event=lambda x: x > 0.",
            )
    is_there = given.ensemble.notnull()
    hits = (members & is_there).sum(dim)
    return hits, is_there.sum(dim), occurs.where(given.truth.notnull()).astype(float)
