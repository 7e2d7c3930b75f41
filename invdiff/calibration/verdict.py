"""One figure, one table, one sentence: is this ensemble calibrated?

The sentence rests on PIT values, so it assumes no distribution. *Bias* is a slope of their
histogram, *width* a U or a dome once the bias is removed (members moved by the median error in
units of their spread), *shape* anything else; each is tested over the independent cases, together
at the given confidence (Bonferroni). A bias whose sign changes from place to place widens the
errors, and the ensemble is reported as too narrow. Cost: about ten passes over the members.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from invdiff.calibration._cases import CaseMeans, case_means
from invdiff.calibration._pairs import paired
from invdiff.calibration.intervals import LEVELS, coverage_curve
from invdiff.calibration.rank_statistics import pit, rank_histogram
from invdiff.calibration.spread import spread_skill, spread_skill_curve
from invdiff.calibration.uniformity import legendre_scores

if TYPE_CHECKING:
    from invdiff.plot import Figure

__all__ = ["Report", "report"]

N_TESTS = 3  # bias, width, shape


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What :func:`report` found; in a notebook it shows as figure, table and sentence.

    Attributes:
        table: all figures: ``coverage(level)`` with ``coverage_lower`` and ``coverage_upper``,
            ``rank_share(bin)`` with its band, ``spread(spread_bin)`` and ``skill(spread_bin)``,
            ``spread_skill`` with its interval, and ``p_bias``, ``p_width``, ``p_shape``.
        verdict: one sentence.
    """

    table: xr.Dataset
    verdict: str

    def figure(self) -> Figure:
        """Coverage curve, rank histogram and spread against skill."""
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
    """Judge an ensemble against the truth.

    Args:
        ensemble: at least two members, with dimension ``dim``.
        truth: without it, otherwise on the same labels.
        levels: nominal levels of the coverage; the verdict quotes the one next to 0.9.
        dim: the dimension of the members.
        dim_independent: dimension along which cases are independent; None: each value is a case,
            and the verdict says so.
        confidence: of all bands, and of the verdict.
        where: boolean; judge only there.
        seed: of the draws that break ties.

    Raises:
        ShapeError: dims or labels that do not match, or no such ``dim_independent``.
        DTypeError: real members and a complex truth, or the reverse.
        NonFiniteError: NaN or Inf where it is judged.
        InputError: nowhere to judge, a level outside (0, 1), too few members or cases.
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
        ensemble, truth, where, dim=dim, dim_independent=dim_independent, seed=seed
    )
    table = _table(curve, histogram, ratio, binned=binned).assign(
        bias=float(bias.mean[0]),
        width=float(width.mean[1]),
        p_bias=float(bias.p_values()[0]),
        p_width=float(width.p_values()[1]),
    )
    table.attrs["dim_independent"] = dim_independent or ""
    table.attrs |= {"n_cases": bias.n_cases, "n_values": bias.n_values}
    return Report(table, _verdict(table))


def _table(
    curve: xr.Dataset, histogram: xr.Dataset, ratio: xr.Dataset, *, binned: xr.Dataset
) -> xr.Dataset:
    """All of them in one Dataset, each under names of its own."""
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
    seed: int,
) -> tuple[CaseMeans, CaseMeans]:
    """Legendre means of the PIT values, as they are and with the bias removed."""
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    ensemble, truth = ensemble.where(where, 0), truth.where(where, 0)
    std = ensemble.std(dim, ddof=1).compute()
    error = (truth - ensemble.mean(dim)).compute()
    is_judged = (where & (std > 0)).values
    shift = float(np.median(error.values[is_judged] / std.values[is_judged]))
    means = []
    for members in (ensemble, ensemble + shift * std):
        values = pit(members, truth, dim=dim, seed=seed).compute()
        scores = legendre_scores(values, 2)
        means.append(case_means(scores, where, dim_independent, along="order"))
    return means[0], means[1]


def _verdict(table: xr.Dataset) -> str:
    """The sentence."""
    limit = (1 - table.attrs["confidence"]) / N_TESTS
    found = []
    if table["p_bias"] < limit:
        found.append("biased low" if table["bias"] > 0 else "biased high")
    if table["p_width"] < limit:
        found.append("too narrow" if table["width"] > 0 else "too wide")
    if not found and table["p_shape"] < limit:
        found.append("of the wrong shape")
    if table.attrs["dim_independent"]:
        source = f"from {table.attrs['n_cases']} independent cases"
    else:
        source = f"from {table.attrs['n_values']} values taken as independent of each other"
    row = table.isel(level=int(np.abs(table["level"].values - 0.9).argmin()))
    judged = " and ".join(found)
    if not found:
        judged = "calibrated, as far as this can tell"
        # One of several bands misses the nominal value by chance more often than a test rejects.
        judged += ", if on the narrow side" if row["coverage_upper"] < row["level"] else ""
        judged += ", if on the wide side" if row["coverage_lower"] > row["level"] else ""
    confidence = f"{100 * table.attrs['confidence']:g} %"
    interval = f"{100 * row['coverage_lower']:.1f} to {100 * row['coverage_upper']:.1f} %"
    return (
        f"The ensemble is {judged}: intervals of nominal {100 * row['level']:g} % hold "
        f"{100 * row['coverage']:.1f} % of the truth ({confidence} interval {interval}) and the "
        f"spread is {table['spread_skill']:.2f} times the error "
        f"({table['spread_skill_lower']:.2f} to {table['spread_skill_upper']:.2f}), {source} "
        f"(p = {table['p_bias']:.2g} for no bias, {table['p_width']:.2g} for the right width, "
        f"{table['p_shape']:.2g} for flat ranks)."
    )


def _html_table(table: xr.Dataset) -> str:
    """Coverage by level."""
    names = ["level", "coverage", "coverage_lower", "coverage_upper", "n_effective"]
    heads = ["nominal", "coverage", "lower", "upper", "effective number"]
    rows = [
        "".join(f"<td>{float(table[name][i]):.4g}</td>" for name in names)
        for i in range(table.sizes["level"])
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
