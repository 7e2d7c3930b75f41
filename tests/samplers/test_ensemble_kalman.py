"""Ensemble Kalman methods, EKI and EnKG, on Gaussian posteriors."""

import pytest
import torch

from invdiff.likelihood import Gaussian
from invdiff.operators import BlackBox
from invdiff.posterior import Posterior
from invdiff.samplers.drive import iterate
from invdiff.samplers.eki import EKI
from invdiff.samplers.enkg import EnKG
from tests.support.closed_form import (
    OPERATORS,
    gaussian_problem,
)
from tests.support.sampling import errors, last

every_operator = pytest.mark.parametrize("name", OPERATORS)


@pytest.mark.parametrize("sampler", [EKI(20), EnKG(16, calls=12)], ids=repr)
def test_a_black_box_is_as_good_as_its_operator(sampler) -> None:
    problem = gaussian_problem("blur", 0.1, n=5)
    operator = problem.term.operator
    box = BlackBox(operator, operator.domain, operator.range)
    terms = problem.term, Gaussian(problem.term.y, box, 0.1)
    a, b = (last(Posterior(problem.prior, term), sampler, 64).x for term in terms)
    assert torch.equal(a, b)


@every_operator
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_eki_approaches_the_posterior_as_members_grow(name: str, noise: float) -> None:
    problem = gaussian_problem(name, noise, n=5)
    model = Posterior(problem.prior, problem.term)
    few, many = (errors(problem, last(model, EKI(10, updates=4), n).x) for n in (128, 1024))
    # Errors of the gain go with n^-1/2 (of the mean) and -n^-1 (of the variance).
    assert many[0] < 0.2
    assert many[0] < 0.6 * few[0]
    assert 0.95 < many[1] < 1.03
    assert few[1] < many[1]


@every_operator
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_enkg_on_gaussian_posteriors(name: str, noise: float) -> None:
    problem = gaussian_problem(name, noise, n=5)
    model = Posterior(problem.prior, problem.term)
    mean, variance = errors(problem, last(model, EnKG(24, calls=12), 256).x)
    # Biased by the discrete flow and 256 members; six seeds gave 0.08 to 0.39, and 0.84 to 1.03.
    assert mean < 0.45
    assert 0.8 < variance < 1.1


def test_eki_tempers_in_as_many_updates_as_it_needs() -> None:
    problem = gaussian_problem("blur", 0.1, n=5)
    model = Posterior(problem.prior, problem.term)
    states = list(iterate(model, EKI(20, updates=10), realizations=range(128), seed=0))
    reached = [float(state.memory[0]) for state in states[10:]]
    assert reached[-1] == 1
    assert reached == sorted(reached)
    assert 0 < reached[0] < 0.1  # the data are strong: a whole step would leave one member
