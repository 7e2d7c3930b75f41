"""The Jacobian-free covariance on known posteriors."""

import torch

from invdiff.conditioning import MomentMatching
from invdiff.conditioning.jacobian_free import JacobianFree
from invdiff.posterior import Posterior
from tests.support.closed_form import (
    OPERATORS,
    linear_operator,
    normal,
    observe,
    stationary_prior,
)


def test_the_jacobian_free_covariance_is_that_of_a_stationary_field() -> None:
    """For such a prior it is its own covariance, with real and with complex data."""
    for name in OPERATORS:
        operator = linear_operator(name, 8)
        prior = stationary_prior(operator.domain)
        term = observe(operator, normal((8, 8), 1, operator.domain.dtype), 0.1, seed=2)
        x_t, t = normal((2, 8, 8), 3, operator.domain.dtype), torch.tensor(0.7)
        free = JacobianFree(prior.spectrum, tolerance=1e-10, max_iterations=500)
        exact = MomentMatching(tolerance=1e-10, max_iterations=500)
        found, c = Posterior(prior, term, conditioning=free).moments(x_t, t)
        expected, d = Posterior(prior, term, conditioning=exact).moments(x_t, t)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(c(x_t), d(x_t), rtol=1e-6, atol=1e-7)
