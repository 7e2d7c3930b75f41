"""Laws that hold for every sampler."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import invdiff.samplers
from invdiff.conditioning import DPS, MMPS, Laplace, MomentMatching, PiGDM
from invdiff.covariance import Covariance, NoCovariance
from invdiff.errors import DivergedError, InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.needs import registered
from invdiff.noise import NoiseField
from invdiff.operators import Mask
from invdiff.posterior import Posterior
from invdiff.protocols import BasePrior
from invdiff.samplers import (
    DAPS,
    DDIM,
    DDNM,
    DDRM,
    EKI,
    HMC,
    MALA,
    TDS,
    Ancestral,
    AnnealedGibbs,
    Corrected,
    DiffPIR,
    DPMSolver,
    EnKG,
    Heun,
    MCGDiff,
    RatioSpread,
    REDDiff,
    Renew,
    SamplerState,
    SDEDPMSolver,
    SplitGibbs,
    TwistedSMC,
    iterate,
    load_state,
    sample,
    save_state,
)
from invdiff.samplers.base import RatioSampler
from invdiff.schedule import VE, VP, Cosine, RectifiedFlow, Schedule
from tests.support.closed_form import (
    gaussian_prior,
    gaussian_problem,
    grid2d,
    half,
    observe,
    whiten,
    whiteness,
)

STEPS = 6
OF_PRIORS = (
    Ancestral(STEPS),
    DDIM(STEPS),
    DDIM(STEPS, eta=1.0),
    Heun(STEPS),
    DPMSolver(STEPS),
    SDEDPMSolver(STEPS),
    Corrected(Heun(STEPS), MALA()),
    Corrected(Ancestral(STEPS), Renew()),
)
TIGHT = Laplace(tolerance=1e-11, max_iterations=500)
OF_TERMS = (
    DDRM(STEPS),
    DDNM(STEPS),
    DiffPIR(STEPS),
    DAPS(STEPS),
    DAPS(STEPS, kernel=HMC(solver=TIGHT), spread=RatioSpread(0.3), ode_steps=2),
    SplitGibbs(STEPS, rho_min=0.1, calls=2),
    REDDiff(STEPS),
)
COUPLED = (
    TwistedSMC(STEPS, 2),
    TDS(STEPS, 2),
    MCGDiff(STEPS, 2),
    AnnealedGibbs(STEPS, rho_min=0.1, calls=2),
    EnKG(STEPS, calls=3),
    EKI(STEPS, updates=3),
)
INDEPENDENT = (*OF_PRIORS, *OF_TERMS)
SAMPLERS = (*INDEPENDENT, *COUPLED)
OPTIMISERS = (REDDiff,)  # draw nothing without data
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
independent = pytest.mark.parametrize("sampler", INDEPENDENT, ids=repr)
of_priors = pytest.mark.parametrize("sampler", OF_PRIORS, ids=repr)
drawing = pytest.mark.parametrize(
    "sampler", [s for s in SAMPLERS if not isinstance(s, OPTIMISERS)], ids=repr
)


def test_the_registry_holds_every_sampler() -> None:
    """A new sampler has no excuse."""
    kinds = {type(s) for s in SAMPLERS}
    named = {
        value
        for name in invdiff.samplers.__all__
        if hasattr(value := getattr(invdiff.samplers, name), "advance") or hasattr(value, "init")
    }
    assert named <= kinds
    built_in = {c for c in registered("samplers") if c.__module__.startswith("invdiff.")}
    assert built_in <= kinds


@pytest.fixture(scope="module", params=["inpainting", "fourier"])
def posterior(request: pytest.FixtureRequest) -> Posterior:
    problem = gaussian_problem(request.param, 0.1, n=6)
    return Posterior(problem.prior, problem.term)


def last(
    model: BasePrior, sampler: RatioSampler, members: Sequence[int], *, state=None
) -> SamplerState:
    *_, state = iterate(model, sampler, realizations=members, seed=3, state=state)
    return state


@independent
def test_members_do_not_depend_on_batches_or_order(
    posterior: Posterior, sampler: RatioSampler
) -> None:
    whole = sample(posterior, sampler, realizations=16, seed=3, batch_size=8)
    first = sample(posterior, sampler, realizations=range(8), seed=3, batch_size=8)
    second = sample(posterior, sampler, realizations=range(8, 16), seed=3, batch_size=8)
    assert torch.equal(whole, torch.cat([first, second]))
    order = np.random.default_rng(0).permutation(16).tolist()
    shuffled = sample(posterior, sampler, realizations=order, seed=3, batch_size=8)
    assert torch.equal(shuffled, whole[order])
    short = sample(posterior, sampler, realizations=11, seed=3, batch_size=8)
    assert torch.equal(short, whole[:11])
    assert not torch.allclose(whole[0], whole[1])
    assert not torch.equal(whole[0], sample(posterior, sampler, realizations=8, seed=4)[0])


@every_sampler
def test_a_run_draws_each_field_of_noise_once(
    posterior: Posterior, sampler: RatioSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two draws from one address would be one draw, and correlate what must be independent."""
    draw, drawn = NoiseField.__call__, Counter[tuple[int, int, int]]()

    def counted(self: NoiseField, grid: Grid, members, step: int, *, stream: int) -> Tensor:
        drawn.update((member, step, int(stream)) for member in members)
        return draw(self, grid, members, step, stream=stream)

    monkeypatch.setattr(NoiseField, "__call__", counted)
    last(posterior, sampler, range(4))
    assert set(drawn.values()) == {1}


@every_sampler
@pytest.mark.parametrize("stop", [1, STEPS // 2, STEPS - 1])
def test_a_stopped_run_resumes_bit_for_bit(
    posterior: Posterior, sampler: RatioSampler, stop: int, tmp_path: Path
) -> None:
    members = (5, 0, 7)
    states = list(iterate(posterior, sampler, realizations=members, seed=3))
    assert [state.step for state in states] == list(range(1, STEPS + 1))
    save_state(states[stop - 1], tmp_path / "state.safetensors")
    stored = load_state(tmp_path / "state.safetensors")
    assert stored.realizations == members
    resumed = last(posterior, sampler, members, state=stored)
    assert torch.equal(resumed.x, states[-1].x)
    for a, b in zip(resumed.memory, states[-1].memory, strict=True):
        assert torch.equal(a, b)


@every_sampler
def test_the_global_generators_are_neither_read_nor_moved(
    posterior: Posterior, sampler: RatioSampler
) -> None:
    draws = []
    for seed in (0, 1):
        torch.random.default_generator.manual_seed(seed)
        np.random.set_state(np.random.RandomState(seed).get_state())  # noqa: NPY002 - on purpose
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        draws.append(sample(posterior, sampler, realizations=2, seed=3))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(*draws)


@pytest.mark.parametrize("conditioning", [MomentMatching(), MMPS(), DPS(), PiGDM()], ids=repr)
@of_priors
def test_the_posterior_of_no_terms_is_the_prior(sampler: RatioSampler, conditioning) -> None:
    prior = gaussian_prior(grid2d(6))
    model = Posterior(prior, conditioning=conditioning)
    assert torch.equal(last(model, sampler, [0, 1]).x, last(prior, sampler, [0, 1]).x)


# Mean ratio of variances over the exact ones without data, at 40 steps, by design or step error.
TOO_NARROW = {DDIM(40, eta=1.0): 0.74, DDRM(40): 0.65, DDNM(40): 0.74, DiffPIR(40): 0.42}


@drawing
def test_without_terms_every_sampler_draws_from_the_prior(sampler: RatioSampler) -> None:
    """Those that are too narrow by a known amount, as first-order steps are, are so by that."""
    prior = gaussian_prior(grid2d(3))
    if isinstance(sampler, Corrected):
        fine = replace(sampler, sampler=replace(sampler.sampler, steps=40))
    elif isinstance(sampler, DAPS):
        fine = DAPS(40)  # the paper's guess of the spread, in the registry, is far off
    else:
        fine = replace(sampler, steps=40)
    draws = sample(Posterior(prior), fine, realizations=256, seed=3, batch_size=256)
    assert torch.equal(draws, sample(prior, fine, realizations=256, seed=3, batch_size=256))
    unit = torch.eye(9, dtype=torch.float64).reshape(9, 3, 3)
    exact = prior.covariance(draws[:1], torch.tensor(1e6))(unit).flatten(1).diagonal()
    ratio = float((draws.flatten(1).var(0) / exact).mean())
    # The standard error of a variance is 9 % a point, and the points go together.
    assert ratio == pytest.approx(TOO_NARROW.get(fine, 1.0), abs=0.2)


@pytest.mark.parametrize(
    "sampler",
    [s for s in SAMPLERS if isinstance(s, SplitGibbs | AnnealedGibbs | EnKG | EKI)],
    ids=repr,
)
def test_without_terms_gibbs_and_kalman_draw_from_the_prior_in_six_steps(sampler) -> None:
    prior = gaussian_prior(grid2d(5))
    alone, posterior = (last(model, sampler, range(256)) for model in (prior, Posterior(prior)))
    assert torch.equal(alone.x, posterior.x)
    white = whiten(
        alone.x, prior.mean.flatten(), (prior._vectors * prior._values) @ prior._vectors.mT
    )
    # EnKG walks the flow by Heun's steps, which in 6 of them are not exact.
    if not isinstance(sampler, EnKG):
        assert min(whiteness(white).values()) > 1e-3


@every_sampler
def test_posterior_of_a_posterior_is_the_posterior_of_both(sampler: RatioSampler) -> None:
    grid = grid2d(6)
    prior = gaussian_prior(grid)
    x = last(prior, Ancestral(4), [9]).x[0]
    terms = [observe(Mask(grid, half((6, 6), 0.3, seed=s)), x, 0.1, seed=s) for s in (1, 2)]
    both = last(Posterior(prior, *terms), sampler, [0, 1]).x
    nested = last(Posterior(Posterior(prior, terms[0]), terms[1]), sampler, [0, 1]).x
    assert torch.equal(nested, both)


def test_posterior_of_a_posterior_by_another_method_has_the_same_moments() -> None:
    grid = grid2d(6)
    prior = gaussian_prior(grid)
    x = last(prior, Ancestral(4), [9]).x[0]
    terms = [observe(Mask(grid, half((6, 6), 0.3, seed=s)), x, 0.5, seed=s) for s in (1, 2)]
    exact = MomentMatching(tolerance=1e-10)
    inner = Posterior(prior, terms[0], conditioning=MomentMatching(tolerance=1e-11))
    x_t, t = x[None], torch.tensor(1.0)
    both = Posterior(prior, *terms, conditioning=exact).denoise(x_t, t)
    nested = Posterior(inner, terms[1], conditioning=exact).denoise(x_t, t)
    torch.testing.assert_close(nested, both, rtol=1e-6, atol=1e-6)


@every_sampler
def test_the_schedule_is_a_choice_of_variables(sampler: RatioSampler) -> None:
    limits = {"ratio_min": 0.01, "ratio_max": 50.0}
    of_priors = sampler in OF_PRIORS or isinstance(sampler, TwistedSMC)
    schedules: list[Schedule] = [VE(**limits), VP(**limits), Cosine(**limits)]
    schedules.append(RectifiedFlow(**limits))
    exact = MomentMatching(tolerance=1e-12, max_iterations=500)
    draws: list[Tensor] = []
    for schedule in schedules:
        problem = gaussian_problem("inpainting", 0.1, n=6, schedule=schedule)
        conditioning = exact if of_priors else None
        model = Posterior(problem.prior, problem.term, conditioning=conditioning)
        draws.append(last(model, sampler, [0, 1, 2]).x)
    for other in draws[1:]:
        # alpha falls to 0.02, so a few more digits than float64's 16 are lost.
        torch.testing.assert_close(other, draws[0], rtol=1e-8, atol=1e-8)


def test_states_that_differ_in_their_members_are_refused(posterior: Posterior) -> None:
    state = next(iterate(posterior, Ancestral(4), realizations=[0], seed=0))
    with pytest.raises(InputError, match="other members"):
        next(iterate(posterior, Ancestral(4), realizations=[1], seed=0, state=state))


def test_bad_arguments_are_refused(posterior: Posterior) -> None:
    with pytest.raises(InputError, match="steps is too small"):
        Heun(0)
    with pytest.raises(InputError, match="eta"):
        DDIM(4, eta=1.5)
    with pytest.raises(InputError, match="realizations is too small"):
        sample(posterior, Heun(4), realizations=0, seed=0)
    with pytest.raises(InputError, match="batch_size is too small"):
        sample(posterior, Heun(4), realizations=2, seed=0, batch_size=0)


class Exploding(BasePrior):
    """A model whose means blow up."""

    grid = grid2d(4)
    schedule = VE()

    def moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Covariance]:
        return x_t * 1e300, NoCovariance()


@every_sampler
def test_a_run_that_diverges_says_so(sampler: RatioSampler) -> None:
    with pytest.raises(DivergedError, match="after step"):
        last(Exploding(), sampler, [0])


def test_other_grids_and_nonlinear_operators_are_refused() -> None:
    prior, operator = gaussian_prior(grid2d(4)), Mask(grid2d(6), torch.ones(6, 6))
    with pytest.raises(ShapeError, match="different grids"):
        Posterior(prior, Gaussian(torch.ones(6, 6, dtype=torch.float64), operator, 0.1))

    class Square:
        domain = range = grid2d(4)
        n_data = 16

        def __call__(self, x: Tensor) -> Tensor:
            return x**2

    term = Gaussian(torch.ones(4, 4, dtype=torch.float64), Square(), 0.1)
    for conditioning in (MomentMatching(), MMPS(), PiGDM()):
        with pytest.raises(UnsupportedError, match="linear"):
            Posterior(prior, term, conditioning=conditioning)
    draw = last(Posterior(prior, term, conditioning=DPS()), DDIM(10, eta=1.0), [0]).x
    assert torch.isfinite(draw).all()
