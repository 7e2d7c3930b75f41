"""The referee itself: exact draws are exact, chains agree with closed forms, distances see faults.

Chains are compared by their own spread: the standard error of a mean is that of the chains' means,
whatever their autocorrelation.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.operators import Identity
from invdiff.priors.levy import LevyPrior
from tests.support.chains import (
    REAL,
    coloured,
    filtered,
    gibbs,
    hmc,
    identity,
    likelihood_of,
    r_hat,
)
from tests.support.closed_form import (
    dense,
    grid2d,
    kalman,
    normal,
    stationary_prior,
    whiten,
    whiteness,
)
from tests.support.distances import (
    coverage,
    energy_distance,
    hpd_coverage,
    mmse_gap_db,
    mode_tv,
    spectrum_ratio,
)
from tests.support.referee import (
    OPERATORS,
    Case,
    filter_posterior,
    gaussian_case,
    kriging_posterior,
    levy_case,
    linear_operator,
    mixture_case8,
    mixture_case32,
    nonlinear_case,
    nonlinear_operator,
    observe,
)

SIGMAS = 5  # of the Monte-Carlo error; the worst of some hundred numbers stays below


def z_score(samples: Tensor, exact: Tensor) -> float:
    """Worst deviation of the mean of ``samples (n, ...)`` in standard errors."""
    error = samples.std(0) / len(samples) ** 0.5
    return float(((samples.mean(0) - exact).abs() / error).max())


def chain_scores(chains: Tensor, mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Of means and of covariances, one value a chain."""
    deviation = chains - mean
    products = deviation.mT @ deviation / chains.shape[1]
    return z_score(deviation.mean(1), torch.zeros_like(mean)), z_score(products, covariance)


# --- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 0.5, 3.0])
def test_gibbs_and_messages_agree_on_denoising(ratio: float) -> None:
    """Two exact methods with nothing in common but the prior."""
    prior = LevyPrior(Grid(("x",), (8,), REAL), 0.5)
    term = observe(Identity(prior.grid), prior.exact_draws(1, seed=0)[0], ratio, seed=1)
    chains = gibbs(prior, term, ratio, n_chains=64, n_steps=400)
    mean, covariance = prior.moments(term.y[None], torch.tensor(ratio, dtype=REAL))
    matrix = (covariance.factor @ covariance.factor.mT)[0]
    assert r_hat(chains) < 1.01
    assert max(chain_scores(chains, mean[0], matrix)) < SIGMAS


def test_hmc_finds_a_gaussian_posterior() -> None:
    prior = stationary_prior(grid2d(4))
    operator = linear_operator("inpainting", prior.grid)
    term = observe(operator, coloured(prior, normal((1, 4, 4), 3))[0], 0.1, seed=4)
    chains = hmc(prior, term, n_chains=64, n_steps=150)
    mean, covariance, _, _ = kriging_posterior(prior, term, 0.1, normal((1, 4, 4), 0))
    assert r_hat(chains) < 1.01
    assert max(chain_scores(chains, mean, covariance)) < SIGMAS


@pytest.mark.parametrize("kind", ["saturating", "lognormal"])
def test_hmc_and_importance_sampling_agree_on_four_points(kind: str) -> None:
    prior, noise = stationary_prior(grid2d(2)), 0.3
    operator = nonlinear_operator(kind, prior.grid)
    term = observe(operator, coloured(prior, normal((1, 2, 2), 2))[0], noise, seed=4)
    x = coloured(prior, normal((200_000, 2, 2), 5))
    weights = torch.softmax(likelihood_of(term, x), 0)
    flat = x.flatten(1)
    chains = hmc(prior, term, n_chains=64, n_steps=100)
    for power in (1, 2):
        exact = weights @ flat**power
        error = (weights[:, None] * (flat**power - exact)).square().sum(0).sqrt()
        means = (chains**power).mean(1)
        total = (error.square() + means.var(0) / len(means)).sqrt()
        assert ((means.mean(0) - exact).abs() / total).max() < SIGMAS


def stein_scores(case: Case) -> tuple[float, float]:
    """``E[g] = 0`` and ``E[x_i g_i] = -1`` for the gradient ``g`` of the log-density."""
    x = case.reference.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.log_prob(x).sum(), x)
    g, deviation = gradient.flatten(1), case.reference.flatten(1) - case.mean
    return z_score(g, torch.zeros(())), z_score(g * deviation, torch.tensor(-1.0))


@pytest.mark.parametrize("kind", ["saturating", "lognormal"])
def test_nonlinear_gold_obeys_stein(kind: str) -> None:
    case = nonlinear_case(kind, 0.1, n_steps=200)
    assert case.reference.shape == (4096, 8, 8)
    assert max(stein_scores(case)) < SIGMAS


@pytest.mark.parametrize("operator", ["inpainting", "fourier"])
def test_levy_gold_obeys_stein(operator: str) -> None:
    case = levy_case(operator, 0.1)
    assert case.reference.shape == (4096, 32)
    assert max(stein_scores(case)) < SIGMAS


def test_stein_sees_a_wrong_spread() -> None:
    case = gaussian_case("blur", 0.1, 8)
    wrong = case.mean.reshape(8, 8) + 0.9 * (case.reference - case.mean.reshape(8, 8))
    object.__setattr__(case, "reference", wrong)
    assert stein_scores(case)[1] > SIGMAS


def test_r_hat() -> None:
    chains = normal((16, 400, 3), 0)
    assert r_hat(chains) < 1.01
    chains[0, :, 1] += 1
    assert r_hat(chains) > 1.01


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
def test_gaussian_cases_are_those_of_kalman(operator: str) -> None:
    noise, n = 0.2, 8
    case = gaussian_case(operator, noise, n)
    c = filtered(case.prior.spectrum, identity(case.prior)).flatten(1)
    matrix, y = dense(case.term.operator), case.term.y.flatten()
    mean, covariance = kalman(c, matrix, y, noise)
    torch.testing.assert_close(case.mean, mean)
    torch.testing.assert_close(case.covariance, covariance)
    p_values = whiteness(whiten(case.reference[:500], mean, covariance))
    assert min(p_values.values()) > 1e-4, p_values
    innovation = matrix @ c @ matrix.mT + noise**2 * torch.eye(len(y), dtype=REAL)
    data = torch.distributions.MultivariateNormal(torch.zeros(len(y), dtype=REAL), innovation)
    evidence = float(data.log_prob(y)) + len(y) / 2 * math.log(2 * math.pi * noise**2)
    assert case.log_evidence == pytest.approx(evidence, rel=1e-8)
    deviation = case.reference[:20].flatten(1) - mean
    quadratic = -0.5 * (deviation * torch.linalg.solve(covariance, deviation.mT).mT).sum(1)
    constant = case.log_prob(case.reference[:20]) - quadratic
    torch.testing.assert_close(constant, constant[:1].expand(20), rtol=0, atol=1e-6)


def test_filters_and_kriging_agree() -> None:
    case = gaussian_case("blur", 0.1, 8, n_reference=1, n_spare=1)
    eps = normal((1, 8, 8), 0)
    one = filter_posterior(case.prior, case.term, 0.1, eps)
    other = kriging_posterior(case.prior, case.term, 0.1, eps)
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])
    assert one[3] == pytest.approx(other[3])


def check_bayes(case: Case) -> None:
    """Posterior density over prior times likelihood is the same everywhere: the evidence."""
    x = case.reference[:20]
    ratio = case.modes.log_prob(x) - case.log_prob(x)
    expected = torch.full((20,), -case.log_evidence, dtype=REAL)
    torch.testing.assert_close(ratio, expected, rtol=0, atol=1e-4)
    assert case.modes.weights.max() < 0.95
    draws = case.reference[:512]
    bound = SIGMAS * (case.covariance.diagonal() / len(draws)).sqrt()
    assert ((draws.flatten(1).mean(0) - case.mean).abs() < bound).all()
    # Two of the modes may hold all of the weight: then TV is one binomial share.
    assert mode_tv(draws, case.modes) < SIGMAS * 0.5 / len(draws) ** 0.5


@pytest.mark.parametrize("operator", OPERATORS)
def test_mixture_cases_are_bayes(operator: str) -> None:
    check_bayes(mixture_case8(operator))


def test_the_large_mixture_case_is_bayes() -> None:
    check_bayes(mixture_case32("fourier"))


def test_spectra_of_the_spread() -> None:
    case = gaussian_case("blur", 0.3, 8)
    s, gain = case.prior.spectrum, case.term.operator.gram_spectrum
    torch.testing.assert_close(case.power, s * 0.09 / (s * gain + 0.09))
    ratio = spectrum_ratio(case.reference, case.power)
    # A ring holds two waves or more, but for the constant: one chi-square of 4096 draws.
    assert (ratio - 1).abs().max() < SIGMAS * (2 / len(case.reference)) ** 0.5
    ring = torch.fft.fft2(case.reference - case.reference.mean(0))
    ring[:, :, 4:5] *= 1.2  # the shortest waves along x, and their own opposites
    wrong = spectrum_ratio(torch.fft.ifft2(ring).real, case.power)
    assert wrong[0] == pytest.approx(float(ratio[0]))
    assert wrong[-1] > 1.1 * ratio[-1]


# --- distances ------------------------------------------------------------------------------------


def test_exact_draws_score_the_floor_and_faults_do_not() -> None:
    case = mixture_case8("inpainting")
    n = 256
    floor, exact = case.floor(n), case.score(case.modes.exact_draws(n, seed=99))
    for key in ("sw2", "energy", "mean_error", "covariance_error", "mode_tv"):
        assert exact[key] < 2 * floor[key], key
    assert floor["mean_error"] == pytest.approx(n**-0.5, rel=0.35)
    for key, level in (("coverage50", 0.5), ("hpd50", 0.5), ("coverage90", 0.9), ("hpd90", 0.9)):
        assert floor[key] == pytest.approx(level, abs=0.03), key
    draws = case.spare[:n]
    centre = case.mean.reshape(8, 8)
    narrow = case.score(centre + 0.7 * (draws - centre))
    assert narrow["spectrum_error"] > 2 * floor["spectrum_error"]
    assert narrow["std_ratio"] == pytest.approx(0.7, abs=0.05)
    assert narrow["coverage90"] < 0.83
    assert narrow["sw2"] > 2 * floor["sw2"]
    assert narrow["energy"] > 1.2 * floor["energy"]
    shifted = case.score(draws + 0.5 * case.reference.std(0))
    assert shifted["mmse_gap_db"] > 0.5
    assert shifted["mean_error"] > 3 * floor["mean_error"]
    shares = case.modes.responsibilities(case.spare, torch.tensor(1e-3))
    one_mode = case.score(case.spare[shares.argmax(1) == case.modes.weights.argmax()][:n])
    others = 1 - float(case.modes.weights.max())
    assert one_mode["mode_tv"] == pytest.approx(others, abs=0.01)
    assert one_mode["energy"] > 2 * floor["energy"]


@pytest.mark.parametrize("n", [9, 64])
def test_coverage_of_exact_ensembles_is_the_level_at_any_size(n: int) -> None:
    sets, reference = normal((400, n, 1), 0), normal((2000, 1), 1)
    for level in (0.5, 0.8):
        hits = torch.tensor([coverage(draws, reference, level) for draws in sets], dtype=REAL)
        # The reference's own error is common to all sets.
        error = (hits.var() / len(sets) + level * (1 - level) / len(reference)) ** 0.5
        assert abs(float(hits.mean()) - level) < SIGMAS * float(error)


def test_hpd_coverage_tells_too_narrow_from_too_wide() -> None:
    reference = normal((4096, 10), 0)

    def log_prob(x: Tensor) -> Tensor:
        return -0.5 * x.square().sum(1)

    draws = normal((512, 10), 1)
    for level in (0.5, 0.9):
        share = hpd_coverage(draws, reference, level, log_prob=log_prob)
        error = (level * (1 - level) * (1 / 512 + 1 / 4096)) ** 0.5
        assert abs(share - level) < SIGMAS * error
        assert hpd_coverage(0.7 * draws, reference, level, log_prob=log_prob) < share - 0.1
        assert hpd_coverage(1.5 * draws, reference, level, log_prob=log_prob) > share + 0.05


def test_distances_by_hand() -> None:
    a, b = torch.zeros(2, 1, dtype=REAL), torch.tensor([[0.0], [2.0]], dtype=REAL)
    assert energy_distance(a, b) == pytest.approx((2 * 1 - 0 - 1) ** 0.5)
    assert energy_distance(b, b) == 0
    mean, covariance = torch.zeros(2, dtype=REAL), torch.eye(2, dtype=REAL)
    draws = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=REAL)
    assert mmse_gap_db(draws, mean, covariance) == pytest.approx(10 * math.log10(2))


def test_a_floor_needs_enough_draws() -> None:
    case = gaussian_case("blur", 0.1, 4, n_spare=100)
    assert set(case.floor(8)) >= {"sw2", "coverage90", "hpd90"}
    with pytest.raises(ValueError, match="to spare"):
        case.floor(64)


def test_the_referee_is_reproducible() -> None:
    one, other = (levy_case("blur", 0.5, n=8) for _ in range(2))
    assert torch.equal(one.reference, other.reference)
    assert not np.array_equal(one.reference[0], levy_case("blur", 0.5, n=8, seed=1).reference[0])
