"""DDRM and DDNM: the coordinates of the data in which they work."""

import pytest
import torch

from invdiff.errors import UnsupportedError
from invdiff.likelihood import Gaussian
from invdiff.operators import Identity, Linear, Mask, Matrix
from invdiff.posterior import Posterior
from invdiff.samplers import sample
from invdiff.samplers.ddnm import DDNM
from invdiff.samplers.ddrm import DDRM
from invdiff.samplers.eigenbasis import data_modes
from tests.support.closed_form import (
    OPERATORS,
    dense,
    grid2d,
    half,
    linear_operator,
    normal,
    observe,
    stationary_prior,
)


def operators() -> list[Linear]:
    grid = grid2d(5)
    several = [linear_operator(name, 5) for name in OPERATORS]
    return [*several, Matrix(normal((7, 25), 2), grid), Identity(grid)]


@pytest.mark.parametrize("operator", operators(), ids=repr)
def test_data_modes_diagonalise_the_precision(operator: Linear) -> None:
    grid, noise = operator.domain, 0.3
    term = observe(operator, normal(grid.shape, 1, grid.dtype), noise, seed=2)
    modes, x = data_modes((term,), grid), normal((3, *grid.shape), 3, grid.dtype)
    u = modes.to_modes(x)
    torch.testing.assert_close(modes.to_field(u, grid), x)
    torch.testing.assert_close(modes.to_field(u / modes.noise**2, grid), term.precision(x))
    # Least squares: the normal equations hold for the data put back into the field.
    fit = modes.to_field(modes.data[None], grid)
    torch.testing.assert_close(term.pullback(term.residual(fit)), torch.zeros_like(fit))
    rank = int(torch.linalg.matrix_rank(dense(operator)))
    assert int(modes.noise.isfinite().sum()) == rank


def test_data_modes_of_several_terms_are_those_of_all() -> None:
    grid, matrix, y = grid2d(4), normal((6, 16), 4), normal((6,), 5)
    whole = data_modes((Gaussian(y, Matrix(matrix, grid), 0.3),), grid)
    parts = [Gaussian(y[s], Matrix(matrix[s], grid), 0.3) for s in (slice(2), slice(2, 6))]
    joined = data_modes(tuple(parts), grid)
    torch.testing.assert_close(joined.noise, whole.noise)
    field = joined.to_field(joined.data[None], grid)
    torch.testing.assert_close(field, whole.to_field(whole.data[None], grid))


def test_masks_of_any_size_need_no_decomposition_and_others_are_refused() -> None:
    grid = grid2d(72)
    mask = observe(Mask(grid, half((72, 72), 0.5, seed=1)), normal((72, 72), 1), 0.1, seed=2)
    assert data_modes((mask,), grid).vectors is None
    rows = Gaussian(normal((3,), 1), Matrix(normal((3, 72 * 72), 2), grid), 0.1)
    prior = stationary_prior(grid)
    for sampler in (DDRM(2), DDNM(2)):
        with pytest.raises(UnsupportedError, match="5184 unknowns"):
            sample(Posterior(prior, rows), sampler, realizations=1, seed=0)
