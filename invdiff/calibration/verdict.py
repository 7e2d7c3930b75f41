"""A report on the calibration of an ensemble: one figure, one table, one sentence."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from invdiff.calibration._cases import CaseMeans, case_means
from invdiff.calibration.intervals import LEVELS, coverage_curve
from invdiff.calibration.pairs import paired
from invdiff.calibration.rank_statistics import pit, rank_histogram
from invdiff.calibration.spread import spread_skill, spread_skill_curve
from invdiff.calibration.uniformity import legendre_scores

if TYPE_CHECKING:
    from invdiff.plot import Figure

__all__ = ["CALIBRATED", "Report", "faults", "report", "source"]

CALIBRATED = "calibrated, as far as these tests can detect"
N_TESTS = 3  # bias, width, shape
STEP = 0.1  # in spreads, of the derivatives of the scores by a shift


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The result of :func:`report`; a notebook shows it as figure, table and sentence.

    Attributes:
        table: All results: ``coverage(level)`` with ``coverage_lower`` and ``coverage_upper``,
            ``rank_share(bin)`` with its band, ``spread(spread_bin)`` and ``skill(spread_bin)``,
            ``spread_skill`` with its interval, and ``p_bias``, ``p_width``, ``p_shape``.
        verdict: The sentence.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import Report
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> found = report(ensemble, truth, levels=[0.5, 0.9])
        >>> sorted(name for name in found.table if name.startswith("p_"))
        ['p_bias', 'p_shape', 'p_width']
        >>> figure = found.figure()
    """

    table: xr.Dataset
    verdict: str

    def figure(self) -> Figure:
        """Draw coverage curve, rank histogram, and spread against skill, side by side."""
        from invdiff.plot import calibration_figure

        return calibration_figure(self.table, self.verdict)

    def __repr__(self) -> str:
        return f"Report(verdict={self.verdict!r}, table={dict(self.table.sizes)})"

    def _repr_html_(self) -> str:
        from invdiff.plot import png_bytes

        image = base64.b64encode(png_bytes(self.figure())).decode()
        return (
            f"<p><strong>{html.escape(self.verdict)}</strong></p>"
            f'<img alt="calibration" src="data:image/png;base64,{image}"/>{_html_table(self.table)}'
        )


def report(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    levels: Sequence[float] = LEVELS,
    dim: str = "realization",
    dim_independent: str | None = None,
    confidence: float = 0.95,
    where: xr.DataArray | None = None,
    seed: int = 0,
) -> Report:
    """Evaluate the calibration of an ensemble against the truth.

    The verdict rests on the ranks of the truth alone (PIT values), which are uniform for every
    exact ensemble, whatever its law: skewed, bimodal, heavy-tailed, with ties. A *bias* is a slope
    of their histogram: the truth lies above a member more often than below, or less. A wrong
    *width* is a U or a dome. A bias makes a U too; if one is found, the members are first moved to
    where the truth lies above a member as often as below, in two ways (by a multiple of the spread
    at each place, by the same amount everywhere), and the width is wrong if it is so in both. A
    wrong *shape* is anything else. The three are tested over the independent cases (t-tests of the
    means of the first two Legendre polynomials of the PIT values; chi-square or
    :func:`smooth_p_value`), at the given confidence for all together (Bonferroni): of exact
    ensembles at most ``1 - confidence`` are said to be at fault.

    Ranks cannot tell a bias whose sign changes from place to place from a spread that is too small;
    the ensemble is then reported as too narrow, which its intervals are. What neither way of moving
    the members takes away of a bias counts as width, too. Cost: about ten passes over the members,
    and about thirty more if there is a bias.

    For the verdict inside a region give ``where``; for figures of several regions side by side see
    :func:`by_region`.

    Args:
        ensemble: The members, with dimension ``dim``, in the units of the truth.
            There must be two or more.
        truth: The truth, without ``dim``, on the labels of the ensemble.
        levels: The nominal levels of the coverage; the verdict quotes the one nearest to 0.9.
        dim: The name of the dimension of the members.
        dim_independent: The name of the dimension along which cases are independent. By default
            each value counts as an independent case, and the verdict says so.
        confidence: The confidence of all bands and of the verdict.
        where: A boolean mask over dims of the truth, True where values are evaluated. By default
            all are.
        seed: The seed of the draws that break ties.

    Returns:
        A :class:`Report` with the sentence ``verdict`` and the Dataset ``table``.

    Raises:
        ShapeError: Dims or labels do not match, or ``dim_independent`` is not a dim of the truth.
        DTypeError: The ensemble is real and the truth complex, or the reverse.
        NonFiniteError: NaN or Inf where values are evaluated.
        InputError: ``where`` is False everywhere, a level is outside (0, 1), or there are too few
            members or cases.

    Examples:
        >>> import numpy as np
        >>> import xarray as xr
        >>> from invdiff.calibration import report
        >>> draws = np.random.default_rng(0).standard_normal((21, 200))
        >>> truth = xr.DataArray(draws[0], dims="case")
        >>> ensemble = xr.DataArray(draws[1:], dims=("realization", "case"))
        >>> print(report(ensemble, truth, dim_independent="case").verdict)
        The ensemble is calibrated, as far as these tests can detect: intervals of nominal 90 % hold
        90.5 %
        of the truth (95 % interval 85.6 to 94.2 %) and the spread is 1.05 times the error (0.95 to
        1.15), from 200 independent cases (p = 0.58 for no bias, 0.59 for the right width, 0.6 for
        flat ranks).
        >>> print(report(0.5 * ensemble, truth, dim_independent="case").verdict)
        The ensemble is too narrow: intervals of nominal 90 % hold 61.4 % of the truth (95 %
        interval 54.3 to 68.2 %) and the spread is 0.53 times the error (0.48 to 0.58), from
        200 independent cases (p = 0.6 for no bias, 2e-15 for the right width, 3.2e-33 for
        flat ranks).
    """
    curve = coverage_curve(
        ensemble,
        truth,
        levels,
        dim=dim,
        dim_independent=dim_independent,
        confidence=confidence,
        where=where,
    )
    histogram = rank_histogram(
        ensemble,
        truth,
        dim=dim,
        dim_independent=dim_independent,
        confidence=confidence,
        where=where,
        seed=seed,
    )
    ratio = spread_skill(
        ensemble,
        truth,
        dim=dim,
        dim_independent=dim_independent,
        confidence=confidence,
        where=where,
    )
    n_bins = min(10, max(2, int(histogram["count"].sum()) // 20))
    binned = spread_skill_curve(ensemble, truth, n_bins=n_bins, dim=dim, where=where)
    bias, width = _bias_and_width(
        ensemble,
        truth,
        where,
        dim=dim,
        dim_independent=dim_independent,
        limit=(1 - confidence) / N_TESTS,
        seed=seed,
    )
    table = _table(curve, histogram, ratio, binned=binned).assign(
        bias=float(bias.mean[0]),
        width=float(width.mean[0]),
        p_bias=float(bias.p_values()[0]),
        p_width=float(width.p_values()[0]),
    )
    table.attrs["dim_independent"] = dim_independent or ""
    table.attrs |= {"n_cases": bias.n_cases, "n_values": bias.n_values}
    return Report(table, _verdict(table))


def _table(
    curve: xr.Dataset, histogram: xr.Dataset, ratio: xr.Dataset, *, binned: xr.Dataset
) -> xr.Dataset:
    """All results in one Dataset, each under its own name."""
    shares = {name: f"rank_{name}" for name in ("share", "count", "lower", "upper")}
    interval = {"lower": "spread_skill_lower", "upper": "spread_skill_upper"}
    table = xr.merge(
        [
            curve.rename(lower="coverage_lower", upper="coverage_upper"),
            histogram.drop_vars("n_effective").rename(shares | {"p_value": "p_shape"}),
            ratio[["ratio", "lower", "upper"]].rename({"ratio": "spread_skill"} | interval),
            binned.drop_vars("count").rename(bin="spread_bin"),
        ],
        join="exact",
        compat="no_conflicts",
        combine_attrs="drop",
    )
    return table.assign_attrs(curve.attrs)


def _bias_and_width(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    where: xr.DataArray | None,
    *,
    dim: str,
    dim_independent: str | None,
    limit: float,
    seed: int,
) -> tuple[CaseMeans, CaseMeans]:
    """Means of the first Legendre score of the PIT values, and of the second without the bias.

    The PIT values of an exact ensemble are uniform whatever its law, until its members are moved.
    So they are not moved unless a bias is found, and a verdict on the width is false no more often
    than the test says. What a bias too small to be found adds to the second score is of second
    order in it. Otherwise they are moved in two ways, by a multiple of the spread at each place and
    by the same amount everywhere, and the larger p-value counts.
    """
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    ensemble, truth = ensemble.where(where, 0), truth.where(where, 0)
    ranked = _Ranked(ensemble, truth, where, dim, dim_independent, seed)
    scores = ranked.scores(ensemble)
    bias = ranked.means(scores.isel(order=[0]))
    if bias.p_values()[0] >= limit:
        return bias, ranked.means(scores.isel(order=[1]))
    std = ensemble.std(dim, ddof=1).compute()
    widths = [
        ranked.unbiased_width(std, unit)
        for unit in (std, xr.full_like(std, std.where(where).mean()))
    ]
    return bias, max(widths, key=lambda width: float(width.p_values()[0]))


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Legendre scores of the truth among members that are moved."""

    ensemble: xr.DataArray
    truth: xr.DataArray
    where: xr.DataArray
    dim: str
    dim_independent: str | None
    seed: int

    def scores(self, members: xr.DataArray) -> xr.DataArray:
        """The first two scores, ``(*dims, order)``."""
        return legendre_scores(pit(members, self.truth, dim=self.dim, seed=self.seed).compute(), 2)

    def means(self, scores: xr.DataArray) -> CaseMeans:
        """Means over cases."""
        return case_means(scores, self.where, self.dim_independent, along="order")

    def unbiased_width(self, std: xr.DataArray, unit: xr.DataArray) -> CaseMeans:
        r"""The second score where the members are moved so far that the first has mean zero.

        The shift is itself estimated, and moves both scores if the law is skewed: the first, times
        the ratio of their derivatives, is taken from the second (the efficient score of a
        parameter beside another one). It makes an error of the shift one of second order, too.
        """
        is_moved = self.where & (unit > 0)
        error = ((self.truth - self.ensemble.mean(self.dim)) / unit).where(is_moved)
        reach = self.ensemble.sizes[self.dim] ** 0.5 * std / unit  # to the farthest member

        def first(shift: float) -> float:
            """Its mean falls with the shift."""
            scores = self.scores(self.ensemble + shift * unit)
            return float(scores.isel(order=0).where(is_moved).mean())

        shift = brentq(
            first, float((error - reach).min()), float((error + reach).max()), xtol=STEP / 10
        )
        left, right = (
            self.means(self.scores(self.ensemble + (shift + step) * unit)).mean
            for step in (-STEP, STEP)
        )
        change = right - left
        scores = self.scores(self.ensemble + shift * unit)
        ratio = change[1] / change[0]
        return self.means(scores.isel(order=[1]) - ratio * scores.isel(order=0))


def faults(table: xr.Dataset) -> list[str]:
    """What is wrong with the ensemble of a table, at the confidence of all three tests together."""
    limit = (1 - table.attrs["confidence"]) / N_TESTS
    found = []
    if table["p_bias"] < limit:
        found.append("biased low" if table["bias"] > 0 else "biased high")
    if table["p_width"] < limit:
        found.append("too narrow" if table["width"] > 0 else "too wide")
    if not found and table["p_shape"] < limit:
        found.append("of the wrong shape")
    return found


def source(table: xr.Dataset) -> str:
    """What the tests of a table rest on."""
    if table.attrs["dim_independent"]:
        return f"from {table.attrs['n_cases']} independent cases"
    return f"from {table.attrs['n_values']} values taken as independent of each other"


def _verdict(table: xr.Dataset) -> str:
    """The sentence that sums up a table."""
    found = faults(table)
    row = table.isel(level=int(np.abs(table["level"].values - 0.9).argmin()))
    judgement = " and ".join(found) or CALIBRATED
    if not found:
        # A band at one level misses the nominal value by chance more often than a test rejects.
        judgement += ", if on the narrow side" if row["coverage_upper"] < row["level"] else ""
        judgement += ", if on the wide side" if row["coverage_lower"] > row["level"] else ""
    confidence = f"{100 * table.attrs['confidence']:g} %"
    interval = f"{100 * row['coverage_lower']:.1f} to {100 * row['coverage_upper']:.1f} %"
    return (
        f"The ensemble is {judgement}: intervals of nominal {100 * row['level']:g} % hold "
        f"{100 * row['coverage']:.1f} % of the truth ({confidence} interval {interval}) and the "
        f"spread is {table['spread_skill']:.2f} times the error "
        f"({table['spread_skill_lower']:.2f} to {table['spread_skill_upper']:.2f}), "
        f"{source(table)} (p = {table['p_bias']:.2g} for no bias, "
        f"{table['p_width']:.2g} for the right width, "
        f"{table['p_shape']:.2g} for flat ranks)."
    )


def _html_table(table: xr.Dataset) -> str:
    """The coverage by level as an HTML table."""
    names = ["level", "coverage", "coverage_lower", "coverage_upper", "n_effective"]
    heads = ["nominal", "coverage", "lower", "upper", "effective number"]
    rows = [
        "".join(f"<td>{float(table[name][i]):.4g}</td>" for name in names)
        for i in range(table.sizes["level"])
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
