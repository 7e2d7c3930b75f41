"""Exact ensembles of any law pass, and faults are found and named in each of them."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom

from invdiff.calibration import (
    RankInterval,
    StudentInterval,
    coverage,
    pit,
    quantile_bounds,
    report,
)
from invdiff.errors import InputError
from tests.support.laws import FAULTS, LAWS, SIGN_CHANGES, draws

N_TRIALS = 40
NAMED = {
    "half the spread": "too narrow",
    "twice the spread": "too wide",
    "biased by half a spread": "biased low:",
    SIGN_CHANGES: "too narrow",
}


def judgement(members: xr.DataArray, truth: xr.DataArray) -> str:
    return report(members, truth, levels=[0.9], dim_independent="case").verdict


@pytest.mark.parametrize("name", LAWS)
def test_exact_ensembles_are_not_accused(name: str) -> None:
    """At 5 % false verdicts, more than this number of 40 has a chance of 0.1 %."""
    found = [judgement(*draws(LAWS[name], seed=seed)) for seed in range(N_TRIALS)]
    n_false = sum(not text.startswith("The ensemble is calibrated") for text in found)
    assert n_false <= binom.ppf(0.999, N_TRIALS, 0.05)


def test_fields_of_a_skewed_law_are_not_accused() -> None:
    """Exponential fields of correlated values, 30 cases, 8 members."""
    n_false = 0
    for seed in range(N_TRIALS):
        rng = np.random.default_rng(seed)
        normal = rng.standard_normal((9, 30, 25)) + rng.standard_normal((9, 30, 1))
        fields = np.exp(normal)
        truth = xr.DataArray(fields[0], dims=("case", "x"))
        members = xr.DataArray(fields[1:], dims=("realization", "case", "x"))
        n_false += not judgement(members, truth).startswith("The ensemble is calibrated")
    assert n_false <= binom.ppf(0.999, N_TRIALS, 0.05)


def test_ties_are_no_fault() -> None:
    """Counts, of which many are equal, and half of a field that is zero everywhere."""
    counts = np.random.default_rng(0).poisson(1.5, (9, 500, 4)) * np.array([1, 1, 0, 0])
    truth = xr.DataArray(counts[0], dims=("case", "x"))
    members = xr.DataArray(counts[1:], dims=("realization", "case", "x"))
    assert judgement(members, truth).startswith("The ensemble is calibrated")
    share = coverage(members, truth, (0.5, 0.9))
    np.testing.assert_allclose(share, (0.5, 0.9), atol=4 * (0.25 / 1000) ** 0.5)


@pytest.mark.parametrize("fault", NAMED)
@pytest.mark.parametrize("name", LAWS)
def test_faults_are_found_and_named(name: str, fault: str) -> None:
    """A scaled skewed law is off its median, too: biased and too narrow are both right."""
    text = judgement(*draws(LAWS[name], fault, n_cases=600)).split("intervals")[0]
    assert NAMED[fault] in text
    if fault == "biased by half a spread":
        assert "narrow" not in text
        assert "wide" not in text


@pytest.mark.parametrize("shift", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("name", ["normal", "exponential", "bimodal 80/20"])
def test_the_width_is_judged_without_the_bias(name: str, shift: float) -> None:
    """Moved down by as much everywhere, or by a multiple of a spread that varies by case."""
    law = LAWS[name]
    size = xr.DataArray(np.linspace(0.5, 2, 400), dims="case")
    members, truth = draws(law, n_cases=400, seed=1)
    for moved, exact in (
        (members - shift * law.std, truth),
        (size * members - shift * size * members.std("realization"), size * truth),
    ):
        assert judgement(moved, exact).startswith("The ensemble is biased low:")
    narrow = law.mean + 0.5 * (members - law.mean) - shift * law.std
    assert judgement(narrow, truth).startswith("The ensemble is biased low and too narrow:")


@pytest.mark.parametrize("n", [2, 8, 16])
@pytest.mark.parametrize("name", LAWS)
def test_rank_intervals_hold_their_level_for_every_law(name: str, n: int) -> None:
    levels = (0.1, 0.5, 0.9, 0.99)
    found = coverage(*draws(LAWS[name], n=n, n_cases=20_000), levels)
    for level, share in zip(levels, found.values, strict=True):
        assert abs(share - level) < 4 * (level * (1 - level) / 20_000) ** 0.5
    assert found.attrs["interval"] == "RankInterval()"


def test_students_intervals_are_for_normal_laws() -> None:
    """By two percentage points at least, the false level shows at one half and not for normals."""
    for name, law in LAWS.items():
        share = coverage(*draws(law, n_cases=20_000), (0.5,), interval=StudentInterval())
        is_nearly_normal = name in ("normal", "gamma(4)")
        assert (abs(float(share[0]) - 0.5) < 0.02) == is_nearly_normal


def test_rank_intervals_by_hand() -> None:
    """Four members: one fifth of the probability in each gap, one tie shared by two of them."""
    members = xr.DataArray([1.0, 2, 3, 4], dims="realization")

    def weight(truth: float, level: float) -> float:
        found = RankInterval().inside(members, xr.DataArray(truth), [level], dim="realization")
        assert found.dims == ("level",)
        return float(found[0])

    assert [weight(x, 0.2) for x in (0.5, 1.5, 2.5, 3.5)] == pytest.approx([0, 0, 1, 0])
    assert [weight(x, 0.4) for x in (0.5, 1.5, 2.5, 3.5)] == pytest.approx([0, 0.5, 1, 0.5])
    assert [weight(x, 0.6) for x in (0.5, 1.5, 2.5, 3.5)] == pytest.approx([0, 1, 1, 1])
    assert [weight(x, 0.8) for x in (0.5, 1.5, 2.5, 3.5)] == pytest.approx([0.5, 1, 1, 1])
    assert weight(1.0, 0.6) == pytest.approx(0.5)  # half of its share of 2/5 is inside


def test_what_few_members_hide_is_as_documented() -> None:
    """Half the right spread, nominal 90 %."""
    for n, rank, student in ((8, 0.78, 0.65), (16, 0.67, 0.62)):
        pair = draws(LAWS["normal"], "half the spread", n=n, n_cases=20_000)
        error = 4 * (0.25 / 20_000) ** 0.5 + 0.005
        assert abs(float(coverage(*pair, (0.9,))[0]) - rank) < error
        share = coverage(*pair, (0.9,), interval=StudentInterval())
        assert abs(float(share[0]) - student) < error


@pytest.mark.parametrize("name", LAWS)
def test_quantile_bounds_hold_their_level(name: str) -> None:
    """Exactly at order statistics, and between their two levels in between."""
    members, truth = draws(LAWS[name], n=19, n_cases=20_000)

    def held(level: float) -> float:
        ends = quantile_bounds(members, level)
        return float(((ends["lower"] <= truth) & (truth <= ends["upper"])).mean())

    error = 4 * (0.25 / 20_000) ** 0.5
    for j, level in ((1, 0.9), (2, 0.8), (5, 0.5)):
        assert abs(held(level) - level) < error
        ends = np.sort(members.values, 0)[[j - 1, -j]]
        found = quantile_bounds(members, level)
        np.testing.assert_allclose([found["lower"], found["upper"]], ends)
    assert held(0.8) < held(0.85) < held(0.9)


def test_quantile_bounds_refuse_what_the_members_cannot_hold() -> None:
    members, _ = draws(LAWS["normal"], n=16, n_cases=10)
    with pytest.raises(InputError, match="19 members"):
        quantile_bounds(members, 0.9)
    lowest = quantile_bounds(members, 15 / 17)["lower"]
    np.testing.assert_allclose(lowest, members.min("realization"))
    with pytest.raises(InputError, match="0 < level < 1"):
        quantile_bounds(members, 0.0)
    chunked = members.chunk(realization=5)
    xr.testing.assert_allclose(
        quantile_bounds(chunked, 0.5).compute(), quantile_bounds(members, 0.5)
    )


def test_data_drawn_with_the_same_seed_are_independent_of_the_ties() -> None:
    """Members that are all alike leave the PIT to the draws that break ties."""
    n = 2000
    drawn = np.random.default_rng(0).random(n)
    alike = xr.DataArray(np.zeros((3, n)), dims=("realization", "case"))
    values = pit(alike, alike[0], seed=0)
    assert abs(np.corrcoef(values, drawn)[0, 1]) < 4 / n**0.5
    rng = np.random.default_rng(0)
    truth = xr.DataArray(rng.random(n), dims="case")
    members = xr.DataArray(rng.random((2, n)), dims=("realization", "case"))
    assert judgement(members, truth).startswith("The ensemble is calibrated")


def test_every_fault_is_drawn() -> None:
    assert set(FAULTS) - {"exact"} < set(NAMED)
