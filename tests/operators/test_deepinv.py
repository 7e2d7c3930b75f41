"""Operators to and from deepinv, with deepinv's own operators and algorithms."""

import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError, NoiseLevelError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators import (
    Convolution,
    Identity,
    Lognormal,
    Mask,
    Matrix,
    check_operator,
    checks,
    from_deepinv,
    to_deepinv,
)
from invdiff.operators.mri import CartesianMRI, birdcage, poisson_disc
from tests.support.operators import Declared, Thinned

deepinv = pytest.importorskip("deepinv")

SHAPES = [(12, 10), (11, 9), (4, 6, 5)]


def grid(*shape: int, dtype: torch.dtype = torch.complex64) -> Grid:
    return Grid(("coil", "z", "y", "x")[-len(shape) :], shape, dtype)


def noise(g: Grid, n: int = 2, seed: int = 0) -> Tensor:
    return NoiseField(seed)(g, range(n), 0)


def ours_and_theirs(shape: tuple[int, ...], n_coils: int):
    """The same MRI operator in both libraries."""
    mask = poisson_disc(shape, 2, calibration=2, seed=0)
    three_d = len(shape) == 3
    if n_coils == 0:
        theirs = deepinv.physics.MRI(mask=mask.float(), img_size=(2, *shape), three_d=three_d)
        return CartesianMRI(mask), theirs
    maps = noise(grid(*shape), n_coils, seed=3)
    theirs = deepinv.physics.MultiCoilMRI(
        mask=mask.float(), coil_maps=maps, img_size=(2, *shape), three_d=three_d
    )
    return CartesianMRI(mask, maps), theirs


def assert_same(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize("n_coils", [0, 1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_agree_with_deepinv_mri(shape, n_coils):
    ours, theirs = ours_and_theirs(shape, n_coils)
    wrapped = from_deepinv(theirs, ours.domain, ours.range, n_data=ours.n_data)
    x, y = noise(ours.domain), noise(ours.range, seed=1)
    assert_same(wrapped(x), ours(x))
    assert_same(wrapped.adjoint(y), ours.adjoint(y))
    assert wrapped.n_data == ours.n_data

    exported = to_deepinv(ours)
    channels = ours.domain.to_channels(x)
    assert_same(exported.A(channels), theirs.A(channels))
    back = ours.range.to_channels(y)
    assert_same(exported.A_adjoint(back), theirs.A_adjoint(back))


@pytest.mark.parametrize("shape", SHAPES)
def test_wrapped_operators_obey_the_laws(shape):
    ours, theirs = ours_and_theirs(shape, 2)
    wrapped = from_deepinv(theirs, ours.domain, ours.range)
    check_operator(wrapped, tolerance=2e-6)
    assert checks.solve_error(wrapped, 0.5, 0.5) < 3e-5


def test_wrapped_real_operators():
    g = grid(9, 8, dtype=torch.float32)
    kernel = torch.ones(1, 1, 3, 3) / 9
    blur = from_deepinv(deepinv.physics.Blur(filter=kernel, padding="circular"), g, g)
    assert_same(blur(noise(g)), Convolution(g, kernel[0, 0])(noise(g)))
    assert checks.adjoint_error(blur) < 2e-6
    assert "Blur" in repr(blur)
    moved = blur.to("cpu")
    assert moved.physics is not blur.physics
    assert_same(moved(noise(g)), blur(noise(g)))


def test_round_trip_of_ours():
    g = grid(7, 6, dtype=torch.float32)
    keep = noise(g, 1)[0] > 0
    operator = Mask(g, keep)
    again = from_deepinv(to_deepinv(operator), g, g)
    assert_same(again(noise(g)), operator(noise(g)))
    rows = noise(Grid(("i", "j"), (5, 42)), 1)[0]
    matrix = Matrix(rows, g)
    again = from_deepinv(to_deepinv(matrix), g, matrix.range)
    assert_same(again.gram(noise(g)), matrix.gram(noise(g)))


def test_channels_round_trip():
    for g in (
        grid(5, 4),
        grid(3, 4, 5),
        grid(5, 4, dtype=torch.float32),
        grid(7, dtype=torch.float32),
    ):
        x = noise(g)
        torch.testing.assert_close(g.from_channels(g.to_channels(x)), x)
    assert grid(3, 5, 4).to_channels(noise(grid(3, 5, 4))).shape == (2, 2, 3, 5, 4)


def test_pseudoinverse_by_deepinv():
    """deepinv's least squares on our operator recovers the image from fully sampled k-space."""
    maps = birdcage((12, 11), 3)
    operator = CartesianMRI(torch.ones(12, 11), maps)
    x = noise(operator.domain, 1)
    physics = to_deepinv(operator)
    found = operator.domain.from_channels(physics.A_dagger(operator.range.to_channels(operator(x))))
    assert (found - x).norm() < 1e-3 * x.norm()


def test_proximal_step_by_deepinv_is_our_solve():
    operator, _ = ours_and_theirs((12, 10), 3)
    x, y = noise(operator.domain, 1), noise(operator.range, 1, seed=2)
    gamma = 0.7
    physics = to_deepinv(operator)
    physics.tol, physics.max_iter = 1e-6, 200
    theirs = physics.prox_l2(operator.domain.to_channels(x), operator.range.to_channels(y), gamma)
    ours = operator.solve(operator.adjoint(y) + x / gamma, 1 / gamma, 1.0, rtol=1e-6)
    found = operator.domain.from_channels(theirs)
    assert (found - ours).norm() < 1e-3 * ours.norm()


def test_a_deepinv_algorithm_runs_on_ours():
    """Proximal gradient descent with a total-variation prior beats zero filling."""
    from deepinv.optim import L2, optim_builder
    from deepinv.optim.prior import TVPrior

    shape = (24, 20)
    operator = CartesianMRI(poisson_disc(shape, 3, calibration=6, seed=0), birdcage(shape, 4))
    image = torch.zeros(1, *shape, dtype=torch.complex64)
    image[:, 6:18, 5:15] = 1 + 0.5j
    y = operator.range.to_channels(operator(image))
    model = optim_builder(
        iteration="PGD",
        prior=TVPrior(n_it_max=20),
        data_fidelity=L2(),
        max_iter=50,
        params_algo={"stepsize": 1.0, "lambda": 0.01},
    )
    with torch.no_grad():
        found = operator.domain.from_channels(model(y, to_deepinv(operator)))
    zero_filled = operator.adjoint(operator(image))
    assert (found - image).norm() < 0.5 * (zero_filled - image).norm()


def test_noise_of_the_exported_physics():
    g = grid(64, 64)
    physics = to_deepinv(Convolution.gaussian(g, 1.0), noise_std=0.3)
    added = physics(torch.zeros(4, 2, 64, 64))
    # 16384 complex samples: the relative standard error of E|n|^2 is 1 / 128.
    assert added.square().sum(1).mean() == pytest.approx(0.09, rel=4 / 128)
    with pytest.raises(NoiseLevelError):
        to_deepinv(Convolution.gaussian(g, 1.0), noise_std=0.0)


def test_misfits_are_refused():
    _, physics = ours_and_theirs((12, 10), 3)
    with pytest.raises(ShapeError, match="layout"):
        from_deepinv(physics, grid(12, 10), grid(12, 10))
    with pytest.raises(UnsupportedError, match="linear"):
        from_deepinv(deepinv.physics.Physics(A=lambda x, **_: x), grid(4, 4), grid(4, 4))
    with pytest.raises(UnsupportedError, match="got Grid"):
        from_deepinv(grid(12, 10), physics, grid(12, 10))
    with pytest.raises(InputError, match="domain of DeepinvLinear is not a Grid"):
        from_deepinv(physics, (12, 10), grid(12, 10))
    ours, physics = ours_and_theirs((12, 10), 3)
    for n_data in (0, 2.5, 361):
        with pytest.raises(InputError, match="n_data"):
            from_deepinv(physics, ours.domain, ours.range, n_data=n_data)
    with pytest.raises(UnsupportedError, match="not linear by declaration"):
        to_deepinv(Lognormal(Identity(grid(4, 4, dtype=torch.float32))))


@pytest.mark.parametrize("own", [Thinned, Declared])
def test_own_operators_become_physics(own):
    operator = own(grid(4, 5))
    physics, x = to_deepinv(operator), noise(operator.domain)
    channels = operator.domain.to_channels(x)
    assert_same(operator.range.from_channels(physics.A(channels)), operator(x))
    y = noise(operator.range)
    back = operator.domain.from_channels(physics.A_adjoint(operator.range.to_channels(y)))
    assert_same(back, Thinned(grid(4, 5)).adjoint(y))
