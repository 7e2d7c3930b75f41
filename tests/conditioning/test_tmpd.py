"""TMPD: row sums in place of the data's covariance."""

import torch

from invdiff.conditioning import MomentMatching
from invdiff.conditioning.tmpd import TMPD
from invdiff.likelihood import Gaussian
from invdiff.operators import Matrix
from invdiff.posterior import Posterior
from tests.support.closed_form import (
    gaussian_prior,
    grid2d,
    linear_operator,
    normal,
    observe,
    stationary_prior,
)


def test_row_sums_are_exact_where_the_data_are_uncorrelated() -> None:
    """A stationary field in Fourier space: TMPD's mean is the exact one."""
    operator = linear_operator("fourier", 6)
    prior = stationary_prior(operator.domain)
    term = observe(operator, normal((6, 6), 1, operator.domain.dtype), 0.1, seed=2)
    x_t, t = normal((2, 6, 6), 3, operator.domain.dtype), torch.tensor(0.7)
    found = Posterior(prior, term, conditioning=TMPD()).denoise(x_t, t)
    exact = Posterior(prior, term, conditioning=MomentMatching(tolerance=1e-10)).denoise(x_t, t)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-7)


def test_row_sums_run_over_all_terms() -> None:
    """Data cut in two give the same row sums as in one piece."""
    grid = grid2d(5)
    prior, matrix, y = gaussian_prior(grid), normal((6, 25), 4), normal((6,), 5)
    whole = Gaussian(y, Matrix(matrix, grid), 0.3)
    parts = [Gaussian(y[s], Matrix(matrix[s], grid), 0.3) for s in (slice(2), slice(2, 6))]
    x_t, t = normal((2, 5, 5), 3), torch.tensor(0.7)
    one = Posterior(prior, whole, conditioning=TMPD()).denoise(x_t, t)
    two = Posterior(prior, *parts, conditioning=TMPD()).denoise(x_t, t)
    torch.testing.assert_close(two, one)
