"""RED-diff: where it ends, and its spread."""

import pytest

from invdiff.posterior import Posterior
from invdiff.samplers import sample
from invdiff.samplers.red_diff import REDDiff
from tests.support.closed_form import (
    gaussian_problem,
)
from tests.support.sampling import mean_error


@pytest.mark.parametrize("name", ["inpainting", "blur"])
def test_red_diff_ends_near_the_mean_with_a_spread_of_its_own(name: str) -> None:
    """Measured at noise 0.5: mean off by 0.13 to 0.18 std, half of the variance, whatever it is."""
    problem = gaussian_problem(name, 0.5, n=6)
    posterior = Posterior(problem.prior, problem.term)
    draws = sample(posterior, REDDiff(), realizations=64, seed=0, batch_size=64).flatten(1)
    assert mean_error(draws.mean(0), problem) < 0.3
    # 64 members know the variance of 36 correlated points to about 5 %.
    spread = draws.var(0).sum() / problem.covariance.diagonal().real.sum()
    assert 0.35 < float(spread) < 0.7
    # Half the rate, a smaller spread: it is not a property of the posterior.
    slow = sample(posterior, REDDiff(rate=0.015), realizations=64, seed=0, batch_size=64)
    assert slow.flatten(1).var(0).sum() < 0.75 * draws.var(0).sum()
