"""Correctors: MALA, ULA and renewal at a level, and in a sampler."""

import pytest
import torch
from torch import Tensor

from invdiff.covariance import DenseCovariance
from invdiff.noise import NoiseField
from invdiff.posterior import Posterior
from invdiff.samplers import Ancestral, sample
from invdiff.samplers.corrector import MALA, ULA, Corrected, Renew
from invdiff.samplers.ddim import DDIM
from tests.support.closed_form import (
    OPERATORS,
    affine_law,
    gaussian_prior,
    gaussian_problem,
    grid2d,
    normal,
    whiten,
    whiteness,
)

every_operator = pytest.mark.parametrize("name", OPERATORS)


@every_operator
def test_renewal_leaves_less_of_the_error_of_ddpm(name: str) -> None:
    problem, ddpm = gaussian_problem(name, 0.5, n=4), DDIM(8, eta=1.0)
    model = Posterior(problem.prior, problem.term)
    share = []
    for sampler in (ddpm, Corrected(ddpm, Renew(), 1), Corrected(ddpm, Renew(), 3)):
        _, covariance = affine_law(model, sampler)
        ratio = torch.linalg.solve(problem.covariance, covariance).diagonal().real.mean()
        share.append(abs(float(ratio) - 1))
    assert share[2] < share[1] < 0.8 * share[0]


def at_a_level(corrector, n_steps: int, *, n: int = 400) -> tuple[Tensor, Tensor]:
    """Exact draws of ``z`` at ratio 0.5 under a Gaussian prior, corrected; and their covariance."""
    prior, ratio = gaussian_prior(grid2d(3)), 0.5
    covariance = (prior._vectors * prior._values) @ prior._vectors.mT
    covariance = covariance + ratio**2 * torch.eye(9).double()
    z = DenseCovariance.of(covariance).sqrt(normal((n, 3, 3), 0))
    for i in range(n_steps):
        draws = NoiseField(1).at(range(n), i, torch.device("cpu"))
        z = corrector(prior, z, torch.tensor(ratio, dtype=torch.float64), noise=draws)
    return z, covariance


@pytest.mark.parametrize("corrector", [MALA(0.5), Renew(), Renew(0.7)], ids=repr)
def test_exact_correctors_leave_the_law_as_it_is(corrector) -> None:
    z, covariance = at_a_level(corrector, 10)
    assert min(whiteness(whiten(z, torch.zeros(9).double(), covariance)).values()) > 1e-3


def test_ula_inflates_by_what_its_step_says() -> None:
    """Stationary variance of a mode of variance v: v / (1 - h r^2 / (2 v))."""
    h, ratio, n = 0.8, 0.5, 1000
    z, covariance = at_a_level(ULA(h), 15, n=n)
    values, vectors = torch.linalg.eigh(covariance)
    wider = values / (1 - h * ratio**2 / (2 * values))
    white = (z.flatten(1) @ vectors) / wider.sqrt()
    assert min(whiteness(white).values()) > 1e-3
    narrow = (z.flatten(1) @ vectors) / values.sqrt()
    assert whiteness(narrow)["spread"] < 1e-3  # the test sees the difference
    assert n == len(z)


def test_mala_moves_and_refuses() -> None:
    prior, z = gaussian_prior(grid2d(3)), normal((200, 3, 3), 0)
    draws = NoiseField(1).at(range(200), 0, torch.device("cpu"))
    moved = MALA(1.0)(prior, z, torch.tensor(0.5, dtype=torch.float64), noise=draws)
    stayed = (moved == z).flatten(1).all(1).float().mean()
    assert 0.02 < float(stayed) < 0.9


def test_corrections_keep_members_apart() -> None:
    problem = gaussian_problem("inpainting", 0.1, n=5)
    model, sampler = Posterior(problem.prior, problem.term), Corrected(Ancestral(5), MALA(0.3), 2)
    whole = sample(model, sampler, realizations=8, seed=3, batch_size=4)
    part = sample(model, sampler, realizations=[6, 4, 5, 7], seed=3, batch_size=4)
    torch.testing.assert_close(part, whole[[6, 4, 5, 7]], rtol=0, atol=1e-12)
