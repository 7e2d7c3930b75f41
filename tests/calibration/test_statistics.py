"""Single figures of calibration against closed forms and against other libraries."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import beta, binom, chi2, chi2_contingency

from invdiff.calibration import (
    StudentInterval,
    binomial_interval,
    conformal_factor,
    coverage_curve,
    half_width,
    hpd_coverage,
    pit,
    pit_ecdf,
    pqmass,
    rank_histogram,
    ranks,
    sbc,
    spread_skill,
    spread_skill_curve,
    tarp,
)
from invdiff.calibration.two_sample import _chi_square
from tests.support.forecasts import forecasts


def mean(x: xr.DataArray) -> xr.DataArray:
    return x.mean(("y", "x"))


def pair(members: list[list[float]], truth: list[float]) -> tuple[xr.DataArray, xr.DataArray]:
    return (
        xr.DataArray(np.array(members, float), dims=("realization", "case")),
        xr.DataArray(np.array(truth, float), dims="case"),
    )


def test_ranks_by_hand() -> None:
    members, truth = pair([[1, 1, 1], [2, 2, 2], [3, 3, 3]], [0, 2.5, 4])
    assert ranks(members, truth).values.tolist() == [0, 2, 3]
    u = pit(members, truth).values * 4
    assert (np.floor(u) == [0, 2, 3]).all()


def test_ties_are_broken_evenly() -> None:
    """Two of four members tie with the truth and one is below: ranks 1, 2, 3 with equal shares."""
    n = 30_000
    members = xr.DataArray(np.repeat([[0.0], [1], [1], [2]], n, 1), dims=("realization", "case"))
    found = ranks(members, xr.ones_like(members[0]), seed=3)
    share = np.bincount(found.values.astype(int), minlength=5) / n
    np.testing.assert_allclose(share, [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=4 * (2 / 9 / n) ** 0.5)
    again, other = (ranks(members, xr.ones_like(members[0]), seed=seed) for seed in (3, 4))
    assert found.equals(again)
    assert not found.equals(other)


def test_rank_histogram_of_scores() -> None:
    theirs = pytest.importorskip("scores.probability", reason="compared with scores if installed")
    members, truth = forecasts("too narrow", n=9, n_cases=50)
    ours = rank_histogram(members, truth, n_bins=10)
    np.testing.assert_allclose(ours["share"], theirs.rank_histogram(members, truth, "realization"))


def test_the_band_of_the_histogram_is_binomial() -> None:
    members, truth = forecasts(n=9, n_cases=50, size=2)
    found = rank_histogram(members, truth, confidence=0.9)
    assert int(found["count"].sum()) == 200
    np.testing.assert_allclose(found["lower"] * 200, binom.ppf(0.05, 200, 0.1))
    np.testing.assert_allclose(found["upper"] * 200, binom.ppf(0.95, 200, 0.1))


def test_correlation_lowers_the_effective_number() -> None:
    """With one truth and one ensemble repeated over the pixels, a case is worth one value."""
    members, truth = forecasts(n=9, n_cases=400, size=1)
    wide = xr.DataArray(np.ones(25), dims="pixel")
    repeated = members[..., 0, 0] * wide, truth[..., 0, 0] * wide
    student = StudentInterval()  # inside or not: weights say more than one hit does
    alone = coverage_curve(
        members[..., 0, 0], truth[..., 0, 0], interval=student, dim_independent="case"
    )
    found = coverage_curve(*repeated, interval=student, dim_independent="case")
    np.testing.assert_allclose(found["coverage"], alone["coverage"])
    np.testing.assert_allclose(found["n_effective"], alone["n_effective"], rtol=0.01)
    np.testing.assert_allclose(alone["n_effective"], 400, rtol=0.02)
    assert (coverage_curve(*repeated)["n_effective"] == 400 * 25).all()
    given = coverage_curve(*repeated, interval=student, n_effective=400)
    np.testing.assert_allclose(given["lower"], alone["lower"], atol=1e-3)


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_the_interval_is_clopper_and_pearsons(hits: int) -> None:
    """Under its ends the tails of the binomial law hold exactly half of what is left out."""
    low, high = binomial_interval(hits / 10, 10, 0.9)
    if hits > 0:
        np.testing.assert_allclose(binom.sf(hits - 1, 10, low), 0.05)
    if hits < 10:
        np.testing.assert_allclose(binom.cdf(hits, 10, high), 0.05)
    assert (low == 0) == (hits == 0)
    assert (high == 1) == (hits == 10)


def test_the_ecdf_band_holds_all_of_it_with_its_confidence() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(500):
        curve = pit_ecdf(xr.DataArray(rng.random(60), dims="case"), confidence=0.9)
        held.append(bool(((curve.lower <= curve.ecdf) & (curve.ecdf <= curve.upper)).all()))
        # Band and p-value say the same.
        assert held[-1] == (float(curve.p_value) > 0.1) or abs(float(curve.p_value) - 0.1) < 0.01
    assert abs(np.mean(held) - 0.9) < 4 * (0.09 / 500) ** 0.5 + 0.01


def test_the_ecdf_band_is_that_of_arviz() -> None:
    theirs = pytest.importorskip("arviz_stats.ecdf_utils", reason="compared with arviz-stats")
    values = np.random.default_rng(1).random(80)
    _, ecdf, lower, upper = theirs.ecdf_pit(values, 0.94, 4000)
    ours = pit_ecdf(
        xr.DataArray(values, dims="case"), n_points=79, confidence=0.94, n_simulations=4000
    )
    np.testing.assert_allclose(ours["ecdf"], ecdf)
    # Both bands are simulated: one count of 80 is their resolution.
    np.testing.assert_allclose(ours["lower"], lower, atol=1.01 / 80)
    np.testing.assert_allclose(ours["upper"], upper, atol=1.01 / 80)


def test_sbc_gives_each_statistic_its_verdict() -> None:
    """Correlated noise that is drawn independently: pixels are right, their mean is too narrow."""
    normal, dims = np.random.default_rng(5).standard_normal, ("realization", "case", "y", "x")
    together = 0.8**0.5 * normal((200, 1, 1)) + 0.2**0.5 * normal((200, 6, 6))
    truth = xr.DataArray(together, dims=dims[1:])
    members = xr.DataArray(normal((19, 200, 6, 6)), dims=dims)
    found = sbc(members, truth, {"corner": lambda x: x.isel(x=0, y=0), "mean": mean})
    assert found["p_value"].sel(statistic="corner") > 0.01
    assert found["p_value"].sel(statistic="mean") < 1e-6
    assert found["p_value_ecdf"].sel(statistic="corner") > 0.01
    assert found["p_value_ecdf"].sel(statistic="mean") < 1e-3
    assert found["pit"].dims == ("statistic", "case")
    np.testing.assert_allclose(found["share"].sum("bin"), 1)


def test_tarp_is_that_of_the_authors() -> None:
    theirs = pytest.importorskip("tarp", reason="compared with the authors' package if installed")
    members, truth = forecasts("too narrow", n=400, n_cases=300, size=2)
    rng = np.random.default_rng(0)
    points = truth.copy(data=rng.uniform(-15, 15, truth.shape))
    ecp, alpha = theirs.get_tarp_coverage(
        members.values.reshape(400, 300, 4),
        truth.values.reshape(300, 4),
        references=points.values.reshape(300, 4),
        norm=False,
    )
    ours = tarp(members, truth, references=points)
    # Theirs is a step function of ranks, ours is at other levels, and fills the steps of 1/401.
    between = np.interp(ours["level"], alpha, ecp)
    np.testing.assert_allclose(ours["ecp"], between, atol=0.02)


def test_pqmass_counts_as_a_contingency_table() -> None:
    rng = np.random.default_rng(0)
    distance = rng.random((40, 40))
    label = (np.arange(40) < 22).astype(float)
    centres = np.array([3, 8, 17, 30])
    rest = np.delete(np.arange(40), centres)
    cell = distance[np.ix_(rest, centres)].argmin(1)
    table = [np.bincount(cell[label[rest] == k], minlength=4) for k in (1, 0)]
    np.testing.assert_allclose(
        _chi_square(label[None], distance, centres)[0], chi2_contingency(table, False).statistic
    )


@pytest.mark.parametrize("is_complex", [False, True])
def test_pqmass_separates_ensembles(is_complex: bool) -> None:
    right = [forecasts(n=80, n_cases=1, size=2, is_complex=is_complex, seed=0)[0]]
    members = right[0]
    centre = members.mean("realization")
    first, second = members[:40], members[40:]
    assert pqmass(first, second, n_regions=5)["p_value"] > 0.01
    for wrong in (centre + 0.4 * (second - centre), second + 1.5 * members.std("realization")):
        found = pqmass(first, wrong, n_regions=5)
        assert found["p_value"] < 0.01
        assert found["chi2"].mean() > found.attrs["degrees_of_freedom"]


@pytest.mark.filterwarnings("ignore:Number of samples")
def test_pqmass_is_that_of_the_authors() -> None:
    theirs = pytest.importorskip("pqm", reason="compared with the authors' package if installed")
    members, _ = forecasts(n=300, n_cases=1, size=2)
    first, second = members[:150], 1.3 * members[150:]
    ours = pqmass(first, second, n_regions=8, n_tessellations=300, n_permutations=9)["chi2"]
    rows = [x.values.reshape(150, 4) for x in (first, second)]
    other = np.array(theirs.pqm_chi2(*rows, num_refs=8, re_tessellation=300))
    error = ((other.var() + float(ours.var())) / 300) ** 0.5
    assert abs(other.mean() - float(ours.mean())) < 4 * error


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("is_complex", [False, True])
def test_spread_and_skill_allow_for_few_members(n: int, is_complex: bool) -> None:
    pair = forecasts(n=n, n_cases=2000, size=1, is_complex=is_complex)
    found = spread_skill(*pair, confidence=0.999)
    assert found["lower"] < 1 < found["upper"]
    assert found["upper"] - found["lower"] < 0.2
    # Mean square of sigma, uniform on (0.5, 2), twice that for complex values.
    expected = (1.75 * (1 + 1 / n) * (2 if is_complex else 1)) ** 0.5
    assert abs(float(found["skill"]) / expected - 1) < 0.1
    np.testing.assert_allclose(found["ratio"], found["spread"] / found["skill"])


def test_the_curve_shows_where_the_error_is() -> None:
    curve = spread_skill_curve(*forecasts(n=64, n_cases=400, size=4), n_bins=5)
    assert curve["count"].sum() == 400 * 16
    np.testing.assert_allclose(curve["skill"], curve["spread"], rtol=0.1)
    assert curve["spread"][-1] > 2.5 * curve["spread"][0]


def log_normal(x: xr.DataArray, sigma: float) -> xr.DataArray:
    return -((x / sigma) ** 2).sum(("y", "x")) / 2


@pytest.mark.parametrize("spread", [0.7, 1.0, 1.4])
def test_hpd_coverage_of_normal_laws(spread: float) -> None:
    """Draws ``N(0, spread^2)`` in 4 dimensions: a truth of N(0, 1) is inside with known chance."""
    rng = np.random.default_rng(0)
    dims = ("realization", "case", "y", "x")
    members = xr.DataArray(spread * rng.standard_normal((49, 2000, 2, 2)), dims=dims)
    truth = xr.DataArray(rng.standard_normal((2000, 2, 2)), dims=dims[1:])
    levels = (0.3, 0.5, 0.9)
    found = hpd_coverage(
        log_normal(members, spread), log_normal(truth, spread), levels, dim_independent="case"
    )
    expected = chi2.cdf(spread**2 * chi2.ppf(levels, 4), 4)
    # Of 49 members the region is that of a random level, beta distributed about the nominal one.
    np.testing.assert_allclose(found["coverage"], expected, atol=4 * (0.25 / 2000) ** 0.5 + 0.01)
    is_right = ((found["lower"] <= levels) & (found["upper"] >= levels)).values
    assert is_right.all() if spread == 1 else not is_right.any()


def split(n: int, seed: int, *, size: int = 1) -> list[tuple[xr.DataArray, xr.DataArray]]:
    """Calibration cases and one thousand new ones, both too narrow."""
    members, truth = forecasts(
        "too narrow", n=8, n_cases=n + 1000, size=size, correlation=0.3, seed=seed
    )
    return [(members[:, part], truth[part]) for part in (slice(n), slice(n, None))]


def test_the_conformal_factor_is_an_order_statistic() -> None:
    (members, truth), _ = split(30, 0)
    score = abs(truth - members.mean("realization")) / half_width(members, 0.8)
    expected = np.sort(score.values.ravel())[int(np.ceil(31 * 0.8)) - 1]
    found = conformal_factor(members, truth, 0.8)
    assert float(found) == expected
    assert "exchangeable" in found.attrs["needs"]


@pytest.mark.parametrize(("size", "n"), [(1, 19), (4, 19), (4, 60)])
def test_conformal_intervals_cover_as_promised(size: int, n: int) -> None:
    """Over draws of the cases: at least the level, and at most 1 / (n + 1) more."""
    shares = []
    for seed in range(60):
        cases, (members, truth) = split(n, seed, size=size)
        width = conformal_factor(*cases, 0.8) * half_width(members, 0.8)
        shares.append(float((abs(truth - members.mean("realization")) <= width).mean()))
    error = 4 * np.std(shares) / 60**0.5
    assert 0.8 - error < np.mean(shares) < 0.8 + 1 / (n + 1) + error
    narrow = abs(truth - members.mean("realization")) <= half_width(members, 0.8)
    assert float(narrow.mean()) < 0.72


def test_beta_law_of_conformal_coverage() -> None:
    """Coverage given 49 cases is Beta(k, 50 - k), k = 45: its mean and its spread."""
    shares = []
    for seed in range(80):
        cases, (members, truth) = split(49, seed)
        width = conformal_factor(*cases, 0.9) * half_width(members, 0.9)
        shares.append(float((abs(truth - members.mean("realization")) <= width).mean()))
    law = beta(45, 5)
    assert abs(np.mean(shares) - law.mean()) < 4 * law.std() / 80**0.5
    assert abs(np.std(shares) / law.std() - 1) < 4 / (2 * 80) ** 0.5 + 0.05
