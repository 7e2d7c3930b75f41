"""A report on the calibration of an ensemble: one figure, one table, one sentence."""

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

    The verdict rests on PIT values, so that it assumes no distribution. A *bias* is a slope of
    their histogram; a wrong *width* is a U or a dome once the bias is removed (the members moved by
    the median error in units of their spread); a wrong *shape* is anything else. Each is tested
    over the independent cases, at the given confidence for all three together (Bonferroni). A bias
    whose sign changes from place to place widens the errors, and the ensemble is reported as too
    narrow. Cost: about ten passes over the members.

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
        92.0 %
        of the truth (95 % interval 87.3 to 95.4 %) and the spread is 1.05 times the error (0.95 to
        1.15), from 200 independent cases (p = 0.54 for no bias, 0.61 for the right width, 0.6 for
        flat ranks).
        >>> print(report(0.5 * ensemble, truth, dim_independent="case").verdict)
        The ensemble is too narrow: intervals of nominal 90 % hold 61.5 % of the truth (95 %
        interval 54.4 to 68.3 %) and the spread is 0.53 times the error (0.48 to 0.58), from 200
        independent cases (p = 0.57 for no bias, 3.2e-15 for the right width, 3.2e-33 for flat
        ranks).
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
    seed: int,
) -> tuple[CaseMeans, CaseMeans]:
    """Legendre means of the PIT values, as they are and with the bias removed."""
    ensemble, truth, where = paired(ensemble, truth, where, dim=dim)
    ensemble, truth = ensemble.where(where, 0), truth.where(where, 0)
    std = ensemble.std(dim, ddof=1).compute()
    error = (truth - ensemble.mean(dim)).compute()
    is_evaluated = (where & (std > 0)).values
    shift = float(np.median(error.values[is_evaluated] / std.values[is_evaluated]))
    means = []
    for members in (ensemble, ensemble + shift * std):
        values = pit(members, truth, dim=dim, seed=seed).compute()
        scores = legendre_scores(values, 2)
        means.append(case_means(scores, where, dim_independent, along="order"))
    return means[0], means[1]


def _verdict(table: xr.Dataset) -> str:
    """The sentence that sums up a table."""
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
    judgement = " and ".join(found)
    if not found:
        judgement = "calibrated, as far as these tests can detect"
        # A band at one level misses the nominal value by chance more often than a test rejects.
        judgement += ", if on the narrow side" if row["coverage_upper"] < row["level"] else ""
        judgement += ", if on the wide side" if row["coverage_lower"] > row["level"] else ""
    confidence = f"{100 * table.attrs['confidence']:g} %"
    interval = f"{100 * row['coverage_lower']:.1f} to {100 * row['coverage_upper']:.1f} %"
    return (
        f"The ensemble is {judgement}: intervals of nominal {100 * row['level']:g} % hold "
        f"{100 * row['coverage']:.1f} % of the truth ({confidence} interval {interval}) and the "
        f"spread is {table['spread_skill']:.2f} times the error "
        f"({table['spread_skill_lower']:.2f} to {table['spread_skill_upper']:.2f}), {source} "
        f"(p = {table['p_bias']:.2g} for no bias, {table['p_width']:.2g} for the right width, "
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
