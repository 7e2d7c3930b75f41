"""An operator of one's own, in the four ways to write it, run by the default sampler."""

import numpy as np
import pytest
import torch
import xarray as xr

from invdiff import Grid, reconstruct
from invdiff.operators import HandWritten, Linear, check_operator
from invdiff.priors.gaussian import GaussianPrior
from tests.support.closed_form import correlation, kalman, normal, whiten, whiteness

GRID = Grid(("y", "x"), (6, 6), torch.float64)
DATA = Grid(("y", "block"), (6, 3), torch.float64)
NOISE = 0.3
COVARIANCE = correlation(6, length=3.0)


class Averages:
    """Means of pairs along ``x``, without a base class."""

    domain, range = GRID, DATA

    def __call__(self, x):
        return x.unflatten(-1, (3, 2)).mean(-1)

    def adjoint(self, y):
        return y.repeat_interleave(2, dim=-1) / 2


class Declared:
    """The same without an adjoint: torch derives it."""

    domain, range, is_linear = GRID, DATA, True

    def __call__(self, x):
        return x.unflatten(-1, (3, 2)).mean(-1)


class Derived(Linear):
    """The same with the base class, which brings the algebra."""

    def __init__(self):
        super().__init__(GRID, DATA)

    def _forward(self, x):
        return x.unflatten(-1, (3, 2)).mean(-1)

    def _adjoint(self, y):
        return y.repeat_interleave(2, dim=-1) / 2


class InNumPy(HandWritten):
    """The same in NumPy, which torch cannot differentiate."""

    def __init__(self):
        super().__init__(GRID, DATA)

    def _forward(self, x):
        return torch.from_numpy(x.numpy().reshape(-1, 6, 3, 2).mean(-1))

    def _adjoint(self, y):
        return torch.from_numpy(np.repeat(y.numpy(), 2, -1) / 2)


@pytest.fixture(scope="module")
def data() -> xr.DataArray:
    truth = torch.linalg.cholesky(COVARIANCE) @ normal((36,), 1)
    y = Averages()(truth.reshape(1, 6, 6))[0] + NOISE * normal((6, 3), 2)
    return DATA.to_dataarray(y, "mean velocity")


def members(operator, data: xr.DataArray) -> xr.Dataset:
    prior = GaussianPrior(GRID, torch.zeros(6, 6), COVARIANCE)
    return reconstruct(data, operator, prior, realizations=32, seed=0, noise_std=NOISE, name="v")


@pytest.fixture(scope="module")
def derived(data: xr.DataArray) -> xr.Dataset:
    return members(Derived(), data)


def test_the_default_sampler_draws_the_exact_posterior(data, derived) -> None:
    matrix = Averages()(torch.eye(36).double().reshape(36, 6, 6)).flatten(1).T
    exact = kalman(COVARIANCE, matrix, torch.from_numpy(data.values).flatten(), NOISE)
    fields = torch.from_numpy(derived["v"].values)
    p_values = whiteness(whiten(fields, *exact))
    assert min(p_values.values()) > 1e-3, p_values


@pytest.mark.parametrize("own", [Averages, Declared, InNumPy])
def test_an_operator_is_the_same_whichever_way_it_is_written(own, data, derived) -> None:
    assert max(check_operator(own()).values()) < 1e-12
    result = members(own(), data)
    np.testing.assert_allclose(result["v"], derived["v"], atol=1e-9)
    assert result.attrs["invdiff_sampler"] == derived.attrs["invdiff_sampler"]
