"""Kinds of prediction intervals of an ensemble, and which laws each of them is right for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr
from scipy.stats import t as student

from invdiff.calibration.rank_statistics import neighbours
from invdiff.errors import InputError

__all__ = [
    "PredictionInterval",
    "RankInterval",
    "StudentInterval",
    "half_width",
    "quantile_bounds",
]


class PredictionInterval(Protocol):
    """What :func:`~invdiff.calibration.coverage` asks of a kind of interval.

    Examples:
        >>> from invdiff.calibration import PredictionInterval, RankInterval
        >>> interval: PredictionInterval = RankInterval()
    """

    def inside(
        self, ensemble: xr.DataArray, truth: xr.DataArray, levels: Sequence[float], *, dim: str
    ) -> xr.DataArray:
        """The weight in [0, 1] with which each truth is inside, ``(level, *dims of the truth)``."""
        ...


@dataclass(frozen=True)
class RankInterval:
    r"""Intervals between order statistics of the members: right for every law.

    If the truth and :math:`n` members are exchangeable, the interval between the :math:`j`-th
    smallest and the :math:`j`-th largest member holds the truth with probability
    :math:`(n + 1 - 2j)/(n + 1)`, whatever their law, and :math:`j = 0`, the whole line, with
    probability 1. A level between two of these is made of the two intervals, with the weights that
    give it: a truth inside the wider alone counts by the weight of the wider. The same rule divides
    ties::

        weight = |[b, b + w] intersected with [(1 - level) / 2, (1 + level) / 2]| / w,
        b = n_below / (n + 1),  w = (n_tied + 1) / (n + 1)

    which is the probability that the PIT value of :func:`pit` lies in the middle ``level`` of (0,
    1). Nothing is drawn.

    Above :math:`(n - 1)/(n + 1)`, the range of the members (88 % for 16, 78 % for 8), the level is
    still exact for an exact ensemble, but a truth outside of the range counts in part: of an
    ensemble that is too narrow fewer truths are missed than lie outside. Of a normal ensemble of
    half the right spread, intervals of 90 % hold 78 % at 8 members and 67 % at 16, where Student's
    hold 65 % and 62 %. Give a level within the range, or more members (19 for 90 %), where that
    matters.

    Assumptions: the members and the truth are exchangeable, and nothing else.

    Cost: one pass over the members.

    References:
        Wilks, Annals of Mathematical Statistics 12, 1941.

    Examples:
        >>> import xarray as xr
        >>> from invdiff.calibration import RankInterval
        >>> members = xr.DataArray([1.0, 2.0, 3.0], dims="realization")
        >>> between, outside = xr.DataArray(2.5), xr.DataArray(9.0)
        >>> interval, levels = RankInterval(), [0.5, 0.8]
        >>> interval.inside(members, between, levels, dim="realization").values
        array([1., 1.])
        >>> interval.inside(members, outside, levels, dim="realization").values.round(3)
        array([0. , 0.6])
    """

    def inside(
        self, ensemble: xr.DataArray, truth: xr.DataArray, levels: Sequence[float], *, dim: str
    ) -> xr.DataArray:
        """The weight in [0, 1] with which each truth is inside, ``(level, *dims of the truth)``.

        Args:
            ensemble: The members, real, with dimension ``dim`` of length 2 or more.
            truth: The truth, real, with the other dims of the ensemble.
            levels: The nominal levels, between 0 and 1.
            dim: The name of the dimension of the members.

        Raises:
            InputError: A level is outside (0, 1), or there are fewer than two members.
        """
        n = ensemble.sizes[dim]
        for nominal in levels:
            _check(nominal, n)
        n_below, n_tied = neighbours(ensemble, truth, dim=dim)
        place = xr.Dataset({"lower": n_below / (n + 1), "width": (n_tied + 1) / (n + 1)}).compute()
        upper = place["lower"] + place["width"]
        level = _label(levels)
        start = place["lower"].where(place["lower"] > (1 - level) / 2, (1 - level) / 2)
        end = upper.where(upper < (1 + level) / 2, (1 + level) / 2)
        weight: xr.DataArray = ((end - start) / place["width"]).clip(0, 1)
        return weight.transpose("level", ...)


@dataclass(frozen=True)
class StudentInterval:
    """Student's intervals, the mean plus and minus :func:`half_width`: right for normal laws alone.

    Assumptions: members and truth are draws of one normal law at each place. Of other exact
    ensembles the coverage is not the level: at 16 members, intervals of 50 % hold 53 % of
    exponential truths, 62 % of lognormal ones and 28 % of those with two equal modes six standard
    deviations apart; intervals of 90 % hold 91, 92 and 97 %.

    It measures how far a truth is outside, where ranks see only that it is, and so detects a
    narrow ensemble of few members more easily than :class:`RankInterval`.

    Cost: one pass over the members.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import StudentInterval, coverage
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> coverage(ensemble, truth, [0.5, 0.9], interval=StudentInterval()).values
        array([0.52, 0.92])
    """

    def inside(
        self, ensemble: xr.DataArray, truth: xr.DataArray, levels: Sequence[float], *, dim: str
    ) -> xr.DataArray:
        """1 where the truth is inside and 0 elsewhere, ``(level, *dims of the truth)``.

        Args:
            ensemble: The members, real, with dimension ``dim`` of length 2 or more.
            truth: The truth, real, with the other dims of the ensemble.
            levels: The nominal levels, between 0 and 1.
            dim: The name of the dimension of the members.

        Raises:
            InputError: A level is outside (0, 1), or there are fewer than two members.
        """
        factors = [_factor(level, ensemble.sizes[dim]) for level in levels]
        fields = xr.Dataset(
            {"error": abs(truth - ensemble.mean(dim)), "std": ensemble.std(dim, ddof=1)}
        ).compute()
        hits = fields["error"] <= _label(levels).copy(data=factors) * fields["std"]
        return hits.astype(float).transpose("level", ...)


def half_width(ensemble: xr.DataArray, level: float, *, dim: str = "realization") -> xr.DataArray:
    r"""Half the width of Student's prediction interval, which is right for normal ensembles.

    With the mean :math:`m` and the standard deviation :math:`s` of :math:`n` members, a further
    draw from the same normal distribution lies with probability ``level`` in

    .. math:: m \pm t_{n-1}\left(\frac{1 + level}{2}\right) s \sqrt{1 + \frac{1}{n}},

    Student's prediction interval, which allows for :math:`n` being small. For skewed or bimodal
    laws take :func:`quantile_bounds`. The result is lazy if the ensemble is.

    Args:
        ensemble: The members, real, with dimension ``dim`` of length 2 or more.
        level: The nominal probability, between 0 and 1.
        dim: The name of the dimension of the members.

    Returns:
        The half width in the units of the ensemble, without ``dim``.

    Raises:
        InputError: The level is outside (0, 1), or there are fewer than two members.

    Examples:
        >>> import xarray as xr
        >>> from invdiff.calibration import half_width
        >>> members = xr.DataArray([1.0, 2.0, 3.0, 4.0], dims="realization")
        >>> float(half_width(members, 0.9).round(3))
        3.397
    """
    width: xr.DataArray = _factor(level, ensemble.sizes[dim]) * ensemble.std(dim, ddof=1)
    return width


def quantile_bounds(
    ensemble: xr.DataArray, level: float, *, dim: str = "realization"
) -> xr.Dataset:
    r"""The ends of the central prediction interval between order statistics, for any law.

    The ends are the quantiles of the members at :math:`(1 \mp level)/2`, with the :math:`j`-th
    smallest of :math:`n` at :math:`j/(n + 1)`. At the levels :math:`(n + 1 - 2j)/(n + 1)` they are
    order statistics, and hold a truth that is exchangeable with the members with exactly that
    probability, whatever the law. Between two such levels the ends are interpolated linearly, and
    the probability lies between the two: it is off by less than :math:`2/(n + 1)`, and how far
    depends on the law. Cost: a sort of the members, which are held in one chunk along ``dim``.

    Args:
        ensemble: The members, real, with dimension ``dim`` of length 2 or more.
        level: The nominal probability, between 0 and the level of the range of the members,
            :math:`(n - 1)/(n + 1)`.
        dim: The name of the dimension of the members.

    Returns:
        ``lower`` and ``upper`` in the units of the ensemble, without ``dim``.

    Raises:
        InputError: The level is outside (0, 1) or more than the range of the members holds, or
            there are fewer than two members.

    References:
        Wilks, Annals of Mathematical Statistics 12, 1941. Hyndman and Fan, American Statistician
        50, 1996 (their definition 6).

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import quantile_bounds
        >>> members = xr.DataArray(np.arange(1.0, 20.0), dims="realization")  # 19 of them
        >>> bounds = quantile_bounds(members, 0.8)
        >>> float(bounds["lower"].round(9)), float(bounds["upper"].round(9))
        (2.0, 18.0)
    """
    n = ensemble.sizes[dim]
    _check(level, n)
    if level > (n - 1) / (n + 1) * (1 + 1e-12):
        raise InputError(
            f"the range of {n} members holds less than the level",
            got=f"level={level}",
            expected=f"at most {(n - 1) / (n + 1):.3f}",
            hint=f"Draw {int(np.ceil((1 + level) / (1 - level) - 1e-9))} members, lower the level, "
            "or take half_width if the posterior is normal.",
        )
    whole = ensemble if ensemble.chunks is None else ensemble.chunk({dim: -1})
    ends = whole.quantile(
        [(1 - level) / 2, (1 + level) / 2], dim, method="weibull", keep_attrs=True, skipna=False
    )
    lower, upper = (ends.isel(quantile=i, drop=True) for i in (0, 1))
    return xr.Dataset({"lower": lower, "upper": upper}, attrs={"level": level})


def _label(levels: Sequence[float]) -> xr.DataArray:
    """The levels, labelled by themselves."""
    return xr.DataArray(list(levels), dims="level", coords={"level": list(levels)})


def _check(level: float, n: int) -> None:
    """Refuse what is no level, or no ensemble."""
    if not 0 < level < 1 or n < 2:
        raise InputError(
            "a prediction interval is not defined",
            got=f"level={level}, {n} members",
            expected="0 < level < 1 and at least 2 members",
        )


def _factor(level: float, n: int) -> float:
    """Half the width of the interval in standard deviations of ``n`` members."""
    _check(level, n)
    return float(student.ppf((1 + level) / 2, n - 1) * (1 + 1 / n) ** 0.5)
