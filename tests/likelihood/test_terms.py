"""Extra terms: each moves its statistic, and the rest by what Bayes' rule says."""

import pytest
import torch
from torch import Tensor

from invdiff.conditioning import MomentMatching
from invdiff.errors import InputError, NoiseLevelError, ShapeError
from invdiff.posterior import Posterior
from invdiff.samplers.ancestral import Ancestral
from invdiff.samplers.drive import sample
from invdiff.samplers.split_gibbs import SplitGibbs
from invdiff.terms import Classifier, Conservation, GroupFairness, Penalty
from tests.support.closed_form import (
    GaussianProblem,
    affine_law,
    gaussian_problem,
    grid2d,
    kalman,
    normal,
)

N = 4
GROUPS = torch.tensor([[1, 1, 0, 2]] * N)
T = torch.tensor(0.0)


@pytest.fixture(scope="module")
def problem() -> GaussianProblem:
    return gaussian_problem("inpainting", 0.5, n=N)


def rows(kind: str) -> Tensor:
    """The statistic as a row on flattened fields, ``(1, n^2)``."""
    if kind == "conservation":
        return torch.ones(1, N * N, dtype=torch.float64)
    first, second = ((g == GROUPS).double().flatten() for g in (1, 2))
    return (first / first.sum() - second / second.sum())[None]


def quadratic(kind: str, problem: GaussianProblem, width: float):
    """A term, ``width`` times as wide as the posterior's own spread; target and std of its row."""
    row = rows(kind)
    std = width * float((row @ problem.covariance @ row.mT).squeeze()) ** 0.5
    if kind == "conservation":
        total = float((row @ problem.mean).squeeze()) + 2 * std
        return Conservation(total, std), total, std
    return GroupFairness(GROUPS, std / 2**0.5), 0.0, std  # -(f1 - f2)^2 / (4 s^2)


def exact(kind: str, problem: GaussianProblem, target: float, *, std: float):
    row = rows(kind)
    shift, covariance = kalman(problem.covariance, row, target - row @ problem.mean, std)
    return problem.mean + shift, covariance


@pytest.mark.parametrize("width", [2.0, 0.5, 0.1])
@pytest.mark.parametrize("kind", ["conservation", "fairness"])
def test_quadratic_terms_are_exact_at_any_width(
    kind: str, width: float, problem: GaussianProblem
) -> None:
    """They are data of their statistic: the exact mean and covariance, up to the step ends."""
    term, target, std = quadratic(kind, problem, width=width)
    mean, covariance = exact(kind, problem, target, std=std)
    got_mean, got_covariance = affine_law(
        Posterior(problem.prior, problem.term, term), Ancestral(8)
    )
    spread = problem.covariance.diagonal().sqrt()
    assert float(((got_mean.flatten() - mean) / spread).abs().max()) < 0.01
    ratio = (got_covariance.diagonal() / covariance.diagonal()).sqrt()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0.01, atol=0)


@pytest.mark.parametrize("complex_field", [False, True])
@pytest.mark.parametrize("predicted", [False, True])
def test_a_quadratic_term_is_its_likelihood(complex_field: bool, predicted: bool) -> None:
    dtype = torch.complex128 if complex_field else torch.float64
    grid, x = grid2d(N, dtype), normal((3, N, N), 0, dtype)
    fairness = GroupFairness(GROUPS, 0.3, prediction=torch.tanh if predicted else None)
    for term in (fairness, Conservation(1.0, 0.5, weights=normal((N, N), 1).abs())):
        likelihood = term.likelihood(grid)
        torch.testing.assert_close(likelihood.log_prob(x, x, T), term.log_prob(x, x, T))
        assert likelihood.is_linear == (not (predicted and term is fairness))


class Ridge:
    """``-|x|^2 / (2 s^2)``, far narrower than the prior: a slope alone would run away."""

    def log_prob(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return -x_0.square().flatten(1).sum(1) / (2 * 0.03**2)


def test_narrow_terms_do_not_run_away(problem: GaussianProblem) -> None:
    model = Posterior(problem.prior, problem.term, Ridge())
    draws = sample(model, Ancestral(24), realizations=64, seed=0, batch_size=64)
    assert float(draws.abs().max()) < 3 * float(problem.mean.abs().max() + 3)


@pytest.mark.parametrize("kind", ["conservation", "fairness"])
def test_quadratic_terms_by_split_gibbs(kind: str, problem: GaussianProblem) -> None:
    term, target, std = quadratic(kind, problem, width=1.0)
    mean, covariance = exact(kind, problem, target, std=std)
    n, sampler = 200, SplitGibbs(20, rho_max=2.0, rho_min=0.2, calls=1)
    draws = sample(
        Posterior(problem.prior, problem.term, term),
        sampler,
        realizations=n,
        seed=0,
        batch_size=n,
    ).flatten(1)
    row = rows(kind)
    sums, sigma = (draws @ row.mT)[:, 0], float((row @ covariance @ row.mT).squeeze()) ** 0.5
    wanted = float((row @ mean).squeeze())
    moved = abs(wanted - float((row @ problem.mean).squeeze()))
    assert sigma < 0.75 * std  # there is something to see
    # Monte-Carlo error and the lag of the sweeps behind the coupling.
    assert float(sums.mean()) == pytest.approx(
        wanted, abs=4 * sigma / n**0.5 + 0.1 * (sigma + moved)
    )
    assert float(sums.std()) == pytest.approx(sigma, rel=4 / (2 * n) ** 0.5 + 0.1)
    ratio = draws.std(0) / covariance.diagonal().sqrt()
    assert float(ratio.mean()) == pytest.approx(1, abs=0.15)


def test_a_classifier_raises_the_probability_of_its_label(problem: GaussianProblem) -> None:
    direction = rows("conservation").reshape(N, N) / N**2

    def log_prob(x: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(4 * (direction * x).flatten(1).sum(1))

    shares = []
    for terms in ([], [Classifier(log_prob)], [Classifier(log_prob, scale=3.0)]):
        model = Posterior(problem.prior, problem.term, *terms, conditioning=MomentMatching())
        draws = sample(model, Ancestral(16), realizations=128, seed=0, batch_size=128)
        shares.append(float(log_prob(draws).exp().mean()))
    assert shares[0] < shares[1] < shares[2]


def test_a_penalty_is_its_function(problem: GaussianProblem) -> None:
    x = normal((3, N, N), 0)
    penalty = Penalty(lambda v: v.square().flatten(1).sum(1), 2.0)
    torch.testing.assert_close(penalty.log_prob(x, x, T), -2 * x.square().sum((1, 2)))
    narrow = Posterior(problem.prior, problem.term, penalty, conditioning=MomentMatching())
    draws = [
        sample(model, Ancestral(24), realizations=64, seed=0, batch_size=64)
        for model in (Posterior(problem.prior, problem.term), narrow)
    ]
    assert float(draws[1].square().mean()) < float(draws[0].square().mean())


def test_statistics() -> None:
    x = normal((3, N, N), 0)
    area = normal((N, N), 1).abs()
    budget = Conservation(1.0, 0.5, weights=area)
    expected = -(((area * x).sum((1, 2)) - 1) ** 2) / (2 * 0.25)
    torch.testing.assert_close(budget.log_prob(x, x, T), expected)
    fairness = GroupFairness(GROUPS, 0.3, prediction=torch.sigmoid)
    gap = torch.sigmoid(x[:, :, :2]).mean((1, 2)) - torch.sigmoid(x[:, :, 3]).mean(1)
    torch.testing.assert_close(fairness.log_prob(x, x, T), -(gap**2) / (4 * 0.09))
    z = normal((3, N, N), 0, torch.complex128)
    assert not budget.log_prob(z, z, T).is_complex()


def test_bad_terms_are_refused() -> None:
    x = normal((3, N, N), 0)
    with pytest.raises(ShapeError, match="one number per member"):
        Penalty(torch.square, 1.0).log_prob(x, x, T)
    with pytest.raises(ShapeError, match="one number per member"):
        Classifier(torch.sum).log_prob(x, x, T)
    with pytest.raises(ShapeError, match="groups"):
        GroupFairness(torch.tensor([1, 2]), 0.1).log_prob(x, x, T)
    for groups in ([0, 1, 1], [1, 3, 3], [0, 0, 0], [-1, 1, 2]):
        with pytest.raises(InputError, match="groups"):
            GroupFairness(torch.tensor(groups), 0.1)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(NoiseLevelError, match="standard deviation"):
            Conservation(0.0, bad)
    with pytest.raises(InputError, match="strength"):
        Penalty(torch.square, -1.0)
    with pytest.raises(InputError, match="scale"):
        Classifier(torch.sum, scale=float("inf"))
