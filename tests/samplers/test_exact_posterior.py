"""The benchmark that judges samplers: its functions on cases so small that they mean nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import exact_posterior, pareto, peers
from benchmarks import sbc as calibration
from benchmarks.methods import DEFAULT, Method, drawn, fixed, methods
from benchmarks.small_network import trained
from invdiff.conditioning import DPS, MMPS
from invdiff.samplers import DDIM, Ancestral, Heun, MCGDiff
from tests.support.chains import measured_rows
from tests.support.closed_form import mixture_prior
from tests.support.referee import Case, gaussian_case, mixture_case8, nonlinear_case

# azula compiles on import by what torch means to retire.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

N = 8


@pytest.fixture(scope="module")
def case() -> Case:
    return gaussian_case("blur", 0.1, 4, n_reference=64, n_spare=8 * N)


@pytest.fixture(scope="module")
def mixture() -> Case:
    return mixture_case8("inpainting")


def quick_default() -> Method:
    return replace(DEFAULT, seeds=(1, 2))


def test_rows_carry_the_keys(mixture: Case) -> None:
    family = next(f for f in peers.FAMILIES if f.name == "azula TMPD")
    chosen = [quick_default(), family.method(4, "four steps")]
    rows = exact_posterior.case_rows(mixture, chosen, members=N)
    assert [row["method"] for row in rows] == [
        "exact draws",
        "invdiff default",
        "azula TMPD, four steps",
    ]
    keys = {"sw2", "sw2_over_floor", "energy", "energy_over_floor", "mean_error", "std_ratio"}
    keys |= {"covariance_error", "mode_tv", "coverage50", "coverage90", "hpd50", "hpd90"}
    keys |= {"mmse_gap_db", "passes", "seconds"}
    assert all(keys <= set(row) for row in rows)
    assert "log_evidence_error" in rows[1]
    assert "standard_error" in rows[1]
    assert str(rows[1]["sampler"]).startswith("TwistedSMC(")
    assert rows[0]["sw2_over_floor"] == 1


def test_means_over_seeds() -> None:
    rows = [{"sw2_over_floor": 1.0, "log_evidence_error": 0.1}, {"sw2_over_floor": 3.0}]
    mean = exact_posterior.mean_row(rows)
    assert mean == {"sw2_over_floor": 2.0, "standard_error": pytest.approx(1.0)}


def test_gaussian_rows_judge_each_mode(case: Case) -> None:
    (_, row) = exact_posterior.case_rows(case, [fixed("x", Ancestral(8))], members=N)
    assert 0 < row["mode_variance_rms"] < row["mode_variance_max"]


def test_refusals_are_rows() -> None:
    case = nonlinear_case("saturating", 0.5, n=4, n_steps=200)
    rows = exact_posterior.case_rows(case, [fixed("MMPS", Heun(2), MMPS())], members=N)
    assert str(rows[-1]["failed"]).startswith("MMPS ")
    assert "sw2" not in rows[-1]


@pytest.mark.parametrize(
    ("sampler", "conditioning", "passes"),
    [
        (Ancestral(5), None, 5),
        (Heun(5), None, 9),
        (DDIM(5, eta=1.0), DPS(), 5 * 3),
        (Heun(5), MMPS(iterations=2, rtol=0.0), 9 * (1 + 2 * 3)),
    ],
)
def test_passes_are_counted(case: Case, sampler: object, conditioning: object, passes: int) -> None:
    """A vjp counts two; MMPS takes one an iteration and one more."""
    found = drawn(fixed("x", sampler, conditioning), case, members=N, seed=0)
    assert found.passes == passes


def test_particles_are_counted(mixture: Case) -> None:
    sampler = fixed("x", MCGDiff(6, particles=3))
    assert drawn(sampler, mixture, members=N, seed=1).passes == 6 * 3


def test_names_of_methods_are_their_own() -> None:
    names = [m.name for m in methods(linear=True)]
    assert names[0] == "invdiff default"
    assert len(set(names)) == len(names)
    assert all(name.startswith("invdiff ") for name in names)


SHORT = {
    "deepinv MMPS": (3, 4),
    "deepinv PiGDM": (1.0, 4),
    "azula MMPS": (1, 4),
    "azula TMPD": 4,
    "azula DPS": (1.0, 4),
    "azula PGDM": (0.0, 4),
    "azula DiffPIR": (10.0, 4),
    "azula TDS": (1.0, 4),
}
"""Settings of few steps, where the peer has that choice."""
A_THOUSAND_STEPS = "deepinv DPS"


@pytest.mark.parametrize(
    "family",
    [family for family in peers.FAMILIES if family.name != A_THOUSAND_STEPS],
    ids=lambda family: family.name,
)
def test_peers_repeat_and_leave_the_global_generator(case: Case, family: peers.Family) -> None:
    setting = SHORT.get(family.name, family.default)
    before = torch.get_rng_state()
    first, again = (drawn(family.method(setting, ""), case, members=N, seed=3) for _ in range(2))
    assert torch.equal(first.fields, again.fields)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fields.shape == (N, *case.prior.grid.shape)
    assert first.passes > 0


def test_peers_see_the_operator_and_its_pseudo_inverse(mixture: Case) -> None:
    problem = peers.Problem(mixture, mixture.prior, 2).mapped()
    physics = peers.physics(problem)
    fields = mixture.reference[:2]
    inside = (fields.reshape(2, 1, 1, -1) - problem.low) / problem.width
    matrix, y = measured_rows(mixture.term.operator, mixture.term.y)
    # Residuals in units of the noise are the same, mapped or not.
    ours = (fields.flatten(1) @ matrix.mT - y) / float(mixture.term.noise)
    theirs = (physics.A(inside.float()) - peers.data(problem)) / problem.noise
    np.testing.assert_allclose(theirs[:, 0, 0], ours, rtol=1e-3, atol=1e-3)
    assert physics.adjointness_test(inside.float()).abs() < 1e-4
    assert bool(((inside >= 0) & (inside <= 1)).all())


def test_a_good_peer_is_good(mixture: Case) -> None:
    """Moment matching of 100 steps: spread and mean as exact draws have them, nearly."""
    family = next(f for f in peers.FAMILIES if f.name == "azula MMPS")
    found = drawn(family.method((3, 100), ""), mixture, members=64, seed=1)
    scores, floor = mixture.score(found.fields), mixture.floor(64)
    assert scores["sw2"] < 2 * floor["sw2"]
    assert abs(scores["std_ratio"] - 1) < 0.1


def test_a_small_network_stands_in_for_the_prior(mixture: Case) -> None:
    network = trained(mixture_prior(), steps=2)
    found = drawn(DEFAULT, replace(mixture, prior=network), members=2, seed=1)
    assert torch.isfinite(found.fields).all()


def test_the_figure_has_a_point_a_method(case: Case) -> None:
    rows = exact_posterior.case_rows(case, [fixed("x", Ancestral(4))], members=N)
    rows = [row | {"case": "gaussian8 blur 0.1"} for row in rows]
    found = pareto.points(rows, "gaussian8 ")
    assert found == {"invdiff x": (pytest.approx(4), pytest.approx(rows[1]["sw2_over_floor"]))}


def test_ranks_of_the_default() -> None:
    study = calibration.studies(10)[0]
    rows = calibration.calibration_rows(study, members=4)
    assert [row["statistic"] for row in rows][-1] == "log-likelihood"
    assert all(0 <= row["p_value"] <= 1 and 0.1 < row["mean_rank"] < 0.9 for row in rows)
