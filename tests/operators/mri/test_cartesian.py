"""The Cartesian operator against sigpy and by its definition."""

import numpy as np
import pytest
import torch

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.grid import Grid
from invdiff.operators.mri import (
    CartesianMRI,
    poisson_disc,
    random_lines,
)
from tests.support.scans import COMPLEX, grid, noise


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sigpy and numba, on import
@pytest.mark.parametrize("shape", [(8, 10), (9, 7), (8, 7), (4, 5, 6), (5, 3, 4)])
def test_agrees_with_sigpy(shape):
    from sigpy.mri.linop import Sense

    maps, x = noise(*shape, n=3), noise(*shape, seed=1)
    mask = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.5)
    ours = CartesianMRI(mask, maps)
    theirs = Sense(maps.numpy(), weights=mask.numpy())
    y = theirs(x[0].numpy())
    assert np.linalg.norm(ours(x)[0].numpy() - y) < 1e-5 * np.linalg.norm(y)
    back = theirs.H(y)
    assert np.linalg.norm(
        ours.adjoint(torch.from_numpy(y)[None])[0].numpy() - back
    ) < 1e-5 * np.linalg.norm(back)


def test_grids_and_counts():
    mask = random_lines((8, 9), 3, calibration=1, seed=0)
    operator = CartesianMRI(mask, noise(8, 9, n=4))
    assert operator.domain == Grid(("y", "x"), (8, 9), COMPLEX)
    assert operator.range == Grid(("coil", "ky", "kx"), (4, 8, 9), COMPLEX)
    assert operator.n_data == 4 * 8 * 3
    assert repr(operator) == "CartesianMRI(4 coils, 8x9, R=3.00)"
    single = CartesianMRI(mask)
    assert single.range == Grid(("ky", "kx"), (8, 9), COMPLEX)
    assert single.n_data == 8 * 3
    volume = CartesianMRI(torch.ones(3, 4, 5, dtype=torch.bool))
    assert volume.domain.dims == ("z", "y", "x")


def test_unacquired_samples_are_zero_and_ignored():
    mask = random_lines((8, 9), 3, calibration=1, seed=0)
    operator = CartesianMRI(mask, noise(8, 9, n=2))
    y = operator(noise(8, 9))
    assert (y[:, :, ~mask] == 0).all()
    torch.testing.assert_close(operator.adjoint(y + 9.0 * ~mask), operator.adjoint(y))


def test_gram_in_parts_is_the_gram(monkeypatch):
    operator = CartesianMRI(poisson_disc((9, 8), 2, calibration=3, seed=0), noise(9, 8, n=5))
    x = noise(9, 8, n=2)
    whole = operator.gram(x)
    monkeypatch.setattr("invdiff.operators.mri.cartesian._MAX_VALUES", 2 * x.numel())
    torch.testing.assert_close(operator.gram(x), whole)


def test_double_precision_is_kept():
    maps = noise(8, 9, n=2).to(torch.complex128)
    operator = CartesianMRI(torch.ones(8, 9), maps)
    x = noise(8, 9).to(torch.complex128)
    assert operator(x).dtype == operator.gram(x).dtype == torch.complex128
    assert (operator.gram(x) - operator.adjoint(operator(x))).abs().max() < 1e-13


MASK, MAPS = torch.ones(8, 9, dtype=torch.bool), noise(8, 9, n=2)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: CartesianMRI(MASK.T, MAPS), ShapeError),
        (lambda: CartesianMRI(MASK, MAPS[0]), ShapeError),
        (lambda: CartesianMRI(MASK, MAPS, domain=grid(9, 8)), ShapeError),
        (lambda: CartesianMRI(MASK[0]), ShapeError),
        (lambda: CartesianMRI(MASK, MAPS.abs()), DTypeError),
        (lambda: CartesianMRI(MASK, domain=Grid(("y", "x"), (8, 9))), DTypeError),
        (lambda: CartesianMRI(MASK, MAPS * torch.nan), NonFiniteError),
        (lambda: CartesianMRI(MASK * torch.inf), NonFiniteError),
        (lambda: CartesianMRI(~MASK, MAPS), InputError),
        (lambda: CartesianMRI(0.5 * MASK), InputError),
    ],
)
def test_bad_operators_are_refused(make, error):
    with pytest.raises(error, match="got"):
        make()
