"""Wave operators in deepinv's algorithms."""

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError, NoiseLevelError
from invdiff.grid import Grid
from invdiff.operators.deepinv import to_deepinv, to_deepinv_physics
from invdiff.operators.linear import Mask
from invdiff.operators.seismic import Acoustic, Born, Boundary, Deepwave, Devito, Survey, ricker

deepinv = pytest.importorskip("deepinv")
pytestmark = pytest.mark.seismic

BOUNDS, DT = (1500.0, 3500.0), 0.0015


def acoustic(
    engine: Deepwave | Devito, n_z: int = 30, n_x: int = 40, dtype: torch.dtype = torch.float32
) -> Acoustic:
    """Three shots and a line of receivers at the top, receivers down both sides."""
    coords = {"z": np.arange(n_z) * 10.0, "x": np.arange(n_x) * 10.0}
    grid = Grid(("z", "x"), (n_z, n_x), dtype, coords=coords, units="m s-1")
    top = [(20.0, x) for x in coords["x"][2:-2:3]]
    sides = [(z, x) for z in coords["z"][5::4] for x in coords["x"][[2, -3]]]
    sources = [(20.0, 60.0), (20.0, 10.0 * n_x - 60), (10.0 * n_z - 40, 5.0 * n_x)]
    survey = Survey(np.array(sources), np.array(top + sides), ricker(12.0, DT, 220), DT)
    return Acoustic(survey, grid, bounds=BOUNDS, boundary=Boundary(n_absorbing=12), engine=engine)


def models(operator: Acoustic) -> tuple[Tensor, Tensor]:
    """A faster lens in a gradient, and the gradient alone; ``(1, 1, z, x)``."""
    z, x = np.meshgrid(*(np.arange(n) / n for n in operator.domain.shape), indexing="ij")
    start = torch.tensor(2000 + 600 * z, dtype=operator.domain.dtype)[None, None]
    lens = 250 * np.exp(-((z - 0.5) ** 2 + (x - 0.5) ** 2) / 0.03)
    return start + torch.tensor(lens, dtype=start.dtype), start


def in_unit(v: Tensor) -> Tensor:
    return (v - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])


@pytest.fixture(scope="module")
def problem():
    pytest.importorskip("deepwave")
    operator = acoustic(Deepwave())
    truth, start = models(operator)
    physics = to_deepinv_physics(operator, interval=BOUNDS)
    y = physics(in_unit(truth))
    return physics, y, in_unit(start), in_unit(truth)


def misfit(physics, x: Tensor, y: Tensor) -> float:
    return float(deepinv.optim.L2()(x, y, physics))


def step_size(physics, x: Tensor, y: Tensor) -> float:
    """That changes no cell by more than a fiftieth of the interval at first."""
    return 0.02 / float(deepinv.optim.L2().grad(x, y, physics).abs().max())


@pytest.mark.parametrize("algorithm", ["GD", "PGD"])
def test_deepinv_algorithms_invert_wave_forms(problem, algorithm):
    physics, y, start, truth = problem
    step = step_size(physics, start, y)
    prior = deepinv.optim.prior.TVPrior(n_it_max=30) if algorithm == "PGD" else None
    model = getattr(deepinv.optim, algorithm)(
        data_fidelity=deepinv.optim.L2(),
        prior=prior,
        lambda_reg=1e-4 / step,
        stepsize=step,
        max_iter=15,
    )
    with torch.no_grad():
        x = model(y, physics, init=start)
    assert misfit(physics, x, y) < 0.5 * misfit(physics, start, y)
    assert (x - truth).norm() < (start - truth).norm()


def test_a_denoiser_of_deepinv_as_prior(problem):
    physics, y, start, _ = problem
    prior = deepinv.optim.prior.PnP(denoiser=deepinv.models.TGVDenoiser(n_it_max=20))
    model = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=prior,
        stepsize=step_size(physics, start, y),
        sigma_denoiser=0.001,
        max_iter=12,
    )
    with torch.no_grad():
        x = model(y, physics, init=start)
    assert misfit(physics, x, y) < 0.5 * misfit(physics, start, y)


def test_its_vjp_is_that_of_the_operator():
    pytest.importorskip("deepwave")
    operator = acoustic(Deepwave(snapshot=1), 12, 14, torch.float64)
    truth, start = models(operator)
    physics = to_deepinv_physics(operator, interval=BOUNDS)
    x = in_unit(start)
    residual = physics.A(x) - physics.A(in_unit(truth))
    ours = physics.A_vjp(x, residual)
    theirs = deepinv.physics.Physics.A_vjp(physics, x, residual)  # by torch.func, of A
    assert ours.shape == x.shape
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12 * float(theirs.abs().max()))
    _, gradient = operator.misfit_and_gradient(start[:, 0], operator(truth[:, 0]))
    assert torch.allclose(ours[:, 0], 2000 * gradient, rtol=1e-9, atol=1e-12)


class Squared:
    """``x |-> (m x)^2``: an operator of ours that has a derivative by torch alone."""

    def __init__(self, grid: Grid) -> None:
        self.domain = self.range = grid
        self.mask = Mask(grid, torch.arange(grid.size).reshape(grid.shape) % 3 > 0)
        self.n_data = grid.size

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask(x) ** 2


def test_any_differentiable_operator():
    grid = Grid(("z", "x"), (4, 5), torch.float64)
    operator = Squared(grid)
    physics = to_deepinv_physics(operator, noise_std=0.1)
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(1, 1, 4, 5)
    v = torch.cos(x)
    assert torch.allclose(physics.A(x)[:, 0], operator(x[:, 0]))
    assert torch.allclose(
        physics.A_vjp(x, v), 2 * x * v * operator.mask(torch.ones(1, 4, 5).double())
    )
    assert float((physics(x) - physics.A(x)).std()) == pytest.approx(0.1, rel=0.6)


def test_intervals_and_noise_levels_that_are_none():
    grid = Grid(("z", "x"), (4, 5), torch.float64)
    with pytest.raises(InputError, match="interval"):
        to_deepinv_physics(Squared(grid), interval=(3.0, 3.0))
    with pytest.raises(NoiseLevelError, match="positive"):
        to_deepinv_physics(Squared(grid), noise_std=0.0)
    complex_grid = Grid(("z", "x"), (4, 5), torch.complex64)
    with pytest.raises(InputError, match="real field"):
        to_deepinv_physics(Squared(complex_grid), interval=(0.0, 2.0))


def test_born_is_a_linear_physics_of_deepinv():
    pytest.importorskip("devito")
    operator = acoustic(Devito(snapshot=1), 12, 14, torch.float64)
    _, start = models(operator)
    physics = to_deepinv(Born(operator, start[0, 0]))
    error = physics.adjointness_test(img_size=(1, 12, 14), dtype=torch.float64)
    assert float(error) < 1e-10
