"""The report: a verdict that is right, with its figures, one figure and one table."""

import re

import numpy as np
import pytest
import xarray as xr

from invdiff.calibration import coverage, report, spread_skill
from invdiff.calibration.verdict import _verdict as verdict
from tests.support.forecasts import KINDS, forecasts

WORDS = {
    "calibrated": "calibrated, as far as",
    "too narrow": "too narrow:",
    "too wide": "too wide:",
    "biased": "biased low:",
}


def verdict_of(kind: str, **settings: float) -> str:
    members, truth = forecasts(kind, n_cases=200, correlation=0.3, seed=1, **settings)
    return report(members, truth, dim_independent="case").verdict


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("n", [5, 16, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_is_right(kind: str, n: int, is_complex: bool) -> None:
    assert verdict_of(kind, n=n, is_complex=is_complex).startswith(f"The ensemble is {WORDS[kind]}")


def test_the_other_side_and_both_faults() -> None:
    members, truth = forecasts(n_cases=200)
    centre, std = members.mean("realization"), members.std("realization")
    high = report(members + 0.5 * std, truth, dim_independent="case")
    assert "is biased high:" in high.verdict
    narrow = centre + 0.6 * (members - centre) - 0.5 * std
    both = report(narrow, truth, dim_independent="case")
    assert "is biased low and too narrow:" in both.verdict


def test_a_wrong_shape_is_reported() -> None:
    """Members in two clumps, truths from a Laplace law about the same mean."""
    rng = np.random.default_rng(0)
    dims = ("realization", "case")
    members = xr.DataArray(rng.choice([-0.95, 0.95], (40, 2000)), dims=dims)
    members = members + 0.05 * rng.standard_normal(members.shape)
    truth = xr.DataArray(rng.laplace(size=2000) * 0.62, dims="case")
    found = report(members, truth, dim_independent="case")
    assert found.table["p_shape"] < 1e-6
    assert not found.verdict.startswith("The ensemble is calibrated")


def test_the_verdict_quotes_the_table() -> None:
    members, truth = forecasts("too narrow", n_cases=200)
    found = report(members, truth, dim_independent="case")
    hit = re.search(r"nominal 90 % hold ([\d.]+) % .* is ([\d.]+) times the error", found.verdict)
    assert hit
    share = float(coverage(members, truth, (0.9,))[0])
    ratio = float(spread_skill(members, truth)["ratio"])
    assert hit[1] == f"{100 * share:.1f}"
    assert hit[2] == f"{ratio:.2f}"
    assert float(found.table["coverage"].sel(level=0.9)) == pytest.approx(share)
    assert "from 200 independent cases" in found.verdict
    assert found.table.attrs["n_values"] == 200 * 36


def test_values_without_cases_are_reported_as_taken_to_be_independent() -> None:
    members, truth = forecasts(n_cases=1, size=20)
    found = report(members[:, 0], truth[0])
    assert "from 400 values taken as independent of each other" in found.verdict
    assert "the band is too narrow for correlated values" in found.table.attrs["assumes"]


def test_correlation_inside_cases_is_not_reported_as_a_fault() -> None:
    """Counting the pixels of 40 cases as independent, half of right ensembles would be wrong."""
    wrong = {"case": 0, None: 0}
    for seed in range(40):
        pair = forecasts(n_cases=40, n=8, size=4, correlation=0.7, seed=seed)
        for dim in wrong:
            found = report(*pair, dim_independent=dim)
            wrong[dim] += "is calibrated" not in found.verdict
    assert wrong["case"] <= 6  # of 40 at 5 %: more than 6 has a chance of 0.3 %
    assert wrong[None] >= 15


def test_html_has_one_figure_one_table_one_sentence() -> None:
    members, truth = forecasts(n_cases=30, size=3)
    found = report(members, truth, dim_independent="case")
    text = found._repr_html_()
    assert text.count("<img") == text.count("<table>") == text.count("<strong>") == 1
    assert 'src="data:image/png;base64,iVBORw0KGgo' in text
    assert found.verdict in text
    assert text.count("<tr>") == 1 + found.table.sizes["level"]
    assert [axis.get_title() for axis in found.figure().axes] == [
        "coverage of intervals",
        "rank histogram",
        "spread and skill",
    ]
    assert "Report(verdict='The ensemble is" in repr(found)


@pytest.mark.parametrize(("side", "bound"), [("narrow", "upper"), ("wide", "lower")])
def test_a_band_that_misses_alone_is_reported(side: str, bound: str) -> None:
    members, truth = forecasts(n_cases=50)
    table = report(members, truth, dim_independent="case").table
    missed = table.assign(
        {f"coverage_{bound}": table["level"] + (0.01 if side == "wide" else -0.01)}
    )
    assert f"can detect, if on the {side} side:" in verdict(missed)
    assert "side" not in verdict(table)
