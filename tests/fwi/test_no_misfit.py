"""Nothing to explain: starts that fit their data exactly, and steps whose shots hold no data."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from invdiff.errors import InputError
from invdiff.fwi import (
    LBFGS,
    Adam,
    AllShots,
    AnnealedMode,
    AnnealedPosterior,
    Encoded,
    Minibatch,
    Objective,
    REDDiffusion,
)
from invdiff.fwi.drive import descend
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.misfit import L2, Filtered, Masked
from invdiff.fwi.shots import Shots
from invdiff.fwi.state import InversionState
from invdiff.noise import NoiseField
from invdiff.terms import Penalty
from tests.support.linear_waves import WavesProblem, waves_problem

STEPS, N_SHOTS, NOISE, SEED = 8, 3, 100.0, 1
LEVELS = {"highest": 300.0, "lowest": 50.0}
OPTIMISERS: tuple[Method, ...] = (LBFGS(STEPS), Adam(STEPS, rate=0.1))
METHODS: tuple[Method, ...] = (
    *OPTIMISERS,
    REDDiffusion(STEPS, weight=0.1, rate=60.0, lowest=20.0, highest=400.0),
    AnnealedMode(STEPS, fit=None, **LEVELS),
    AnnealedPosterior(STEPS, fit=None, **LEVELS),
)
CHOICES: tuple[Shots, ...] = (AllShots(), Minibatch(1, keep=2), Encoded(1, keep=2))

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
every_choice = pytest.mark.parametrize("shots", CHOICES, ids=lambda s: type(s).__name__)


@pytest.fixture
def waves() -> WavesProblem:
    return waves_problem(n_shots=N_SHOTS)


def setting(waves: WavesProblem, *, weights: np.ndarray | None = None) -> Setting:
    """Two members at the truth, whose data are without noise."""
    x = waves.truth[None].expand(2, -1, -1)
    w = None if weights is None else torch.from_numpy(weights)
    y = waves.operator(x[:1])[0]
    objective = Objective.gaussian(waves.operator, y, NOISE, weights=w)
    return Setting(objective, waves.prior, x, NoiseField(SEED), (0, 1))


def run(method: Method, given: Setting) -> list[InversionState]:
    return list(descend(method, given, max_solves=10_000))


@every_choice
@pytest.mark.parametrize("method", OPTIMISERS, ids=lambda m: type(m).__name__)
def test_a_start_without_misfit_is_the_result(
    waves: WavesProblem, method: Method, shots: Shots
) -> None:
    states = run(replace(method, shots=shots), setting(waves))  # type: ignore[type-var]
    assert states[-1].step == STEPS
    # To the rounding of an encoded sum of shots: a millionth of the spread of 200 m/s.
    np.testing.assert_allclose(states[-1].x, waves.truth.expand(2, -1, -1), rtol=0, atol=2e-4)
    np.testing.assert_allclose(states[-1].misfit, 0.0, atol=1e-12)


@every_choice
@every_method
def test_no_method_leaves_the_finite_numbers_there(
    waves: WavesProblem, method: Method, shots: Shots
) -> None:
    for state in run(replace(method, shots=shots), setting(waves)):  # type: ignore[type-var]
        assert torch.isfinite(state.x).all()
    assert float(abs(state.x - waves.truth).max()) < 600  # three standard deviations of the prior


@every_method
def test_a_step_without_data_changes_nothing(waves: WavesProblem, method: Method) -> None:
    method = replace(method, shots=Minibatch(1, keep=2))  # type: ignore[type-var]
    weights = np.zeros((N_SHOTS, 1, 1))
    chosen = [
        int(np.random.default_rng((SEED, step // 2)).permutation(N_SHOTS)[0])
        for step in range(STEPS)
    ]
    live = next(shot for shot in chosen if shot != chosen[0])  # the first choice holds no data
    weights[live] = 1
    given = setting(waves, weights=weights)
    start = given.start + 50 * torch.sin(torch.arange(36.0).double()).reshape(6, 6)
    states = run(method, given._replace(start=start))
    moved = [not torch.equal(a.x, b.x) for a, b in pairwise(states)]
    assert moved == [shot == live for shot in chosen]
    assert not moved[0]
    assert any(moved)
    solved = np.diff(states[-1].spent) > 0
    assert solved.tolist() == moved
    assert torch.isfinite(states[-1].misfit[:, -1]).all()


def test_a_run_does_not_stop_at_a_step_without_data(waves: WavesProblem) -> None:
    """The misfit of no data is unknown, not zero."""
    weights = np.ones((N_SHOTS, 1, 1))
    weights[int(np.random.default_rng((SEED, 0)).permutation(N_SHOTS)[0])] = 0
    given = setting(waves, weights=weights)
    given = given._replace(start=given.start + 100)
    method = LBFGS(STEPS, shots=Minibatch(1, keep=1))
    states = list(descend(method, given, max_solves=10_000, stop_at=0.5))
    assert len(states) > 2
    assert torch.isnan(states[0].misfit).all()


def test_scales_of_objectives_are_positive(waves: WavesProblem) -> None:
    """A penalty may be negative at the start: the objective is then still minimised."""
    low = Penalty(lambda x: x.flatten(1).mean(1) - 1e6, 1.0)
    given = setting(waves)
    given = given._replace(start=given.start + 100)
    for method in OPTIMISERS:
        states = run(replace(method, terms=(low,)), given)  # type: ignore[type-var]
        assert bool((states[-1].misfit[:, -1] < states[0].misfit[:, 0]).all())


# ---------------------------------------------------------------- simultaneous sources


def test_dead_receivers_and_shots_may_be_encoded(waves: WavesProblem) -> None:
    """As if the dead shot had not been fired, and the dead receiver were muted in the others."""
    weights = np.ones((N_SHOTS, 6, 10))
    weights[:, 2] = 0
    weights[1] = 0
    objective = setting(waves, weights=weights).objective
    x = waves.truth[None] + 30.0
    code = np.array([[1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    f, g = objective.encoded(code)(x)
    mute = torch.from_numpy(weights[:1])
    rest = Objective.gaussian(
        waves.operator.shots([0, 2]), objective.y[[0, 2]], NOISE, weights=mute
    )
    expected = rest.encoded(code[:, [0, 2]])(x)
    torch.testing.assert_close((f, g), expected)


def test_shots_of_different_weights_are_not_encoded(waves: WavesProblem) -> None:
    weights = np.ones((N_SHOTS, 6, 10))
    weights[1, 2] = 0
    with pytest.raises(InputError, match="dead in all shots or in none"):
        setting(waves, weights=weights).objective.encoded(np.ones((1, N_SHOTS)))


def test_dead_traces_are_left_out_of_the_objective(waves: WavesProblem) -> None:
    """Value and gradient are those of the data without them, whatever they held."""
    x = waves.truth[None] + 30.0
    y = setting(waves).objective.y.clone()
    weights = torch.ones(y.shape, dtype=y.dtype)
    weights[0, 1], weights[2] = 0, 0
    values = []
    for dead in (0.0, 7.0):
        data = torch.where(weights == 0, dead, y)
        values.append(Objective.gaussian(waves.operator, data, NOISE, weights=weights)(x))
    torch.testing.assert_close(*values, rtol=0, atol=0)
    kept = weights[:, :, 0] == 1
    by_hand = (waves.operator(x)[0] - y)[kept].square().sum() / (2 * NOISE**2)
    assert float(values[0][0]) == pytest.approx(float(by_hand), rel=1e-12)


def test_low_passed_traces_that_end_early_have_no_misfit_at_the_truth(waves: WavesProblem) -> None:
    """The filter must not smear what is predicted after their end into what was recorded."""
    weights = np.ones((N_SHOTS, 6, 10))
    weights[0, 1, 5:], weights[2, 4] = 0, 0
    given = setting(waves)
    y = given.objective.y * torch.from_numpy(weights)
    w = torch.from_numpy(weights)
    low = Objective.gaussian(waves.operator, y, NOISE, weights=w).below(20.0)
    f, g = low(waves.truth[None])
    scale = float(low(waves.truth[None] + 30.0)[0])
    assert float(f) < 1e-20 * scale
    assert float(abs(g).max()) < 1e-9 * scale
    assert low.shots([0]).has_data
    # Mutes of what was recorded are left to the filtered traces, whose ends are the same in both.
    muted = Objective.gaussian(waves.operator, given.objective.y, NOISE, weights=w).below(20.0)
    assert isinstance(muted.misfit, Filtered)


def test_weights_of_nested_masks_multiply(waves: WavesProblem) -> None:
    inner = torch.ones(N_SHOTS, 6, 10, dtype=torch.float64)
    inner[1:] = 0
    outer = torch.ones(N_SHOTS, 1, 1, dtype=torch.float64)
    outer[0] = 0
    objective = Objective.gaussian(
        waves.operator, setting(waves).objective.y, NOISE,
        misfit=Masked(L2(NOISE), inner), weights=outer,
    )  # fmt: skip
    assert not objective.has_data
    assert not objective.below(20.0).has_data
