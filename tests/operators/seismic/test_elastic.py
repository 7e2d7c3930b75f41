"""Elastic waves: acoustic ones where there is no shear, S waves where there is, exact gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError, NonFiniteError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.operators import checks
from invdiff.operators.seismic import Acoustic, Boundary, Deepwave, Elastic, Survey, ricker

pytest.importorskip("deepwave")
pytestmark = pytest.mark.seismic

DT, BOUNDS = 0.001, (1500.0, 4000.0)
EXACT = Deepwave(snapshot=1)


def grids(n_z: int = 16, n_x: int = 20) -> tuple[Grid, Grid]:
    """Of elastic and of acoustic models."""
    coords = {"z": np.arange(n_z) * 10.0, "x": np.arange(n_x) * 10.0}
    section = Grid(("z", "x"), (n_z, n_x), torch.float64, coords=coords, units="m s-1")
    names = {"parameter": np.array(["vp", "vs", "density"])}
    return Grid(("parameter", "z", "x"), (3, n_z, n_x), torch.float64, names | coords), section


def survey(n_samples: int = 160) -> Survey:
    receivers = np.stack([np.full(4, 60.0), np.array([20.0, 70.0, 114.0, 160.0])], axis=-1)
    wavelet = ricker(16.0, DT, n_samples)
    return Survey(np.array([[40.0, 50.0], [45.0, 140.0]]), receivers, wavelet, DT)


def elastic(engine: Deepwave = EXACT) -> Elastic:
    boundary = Boundary(n_absorbing=10)
    return Elastic(survey(), grids()[0], bounds=BOUNDS, boundary=boundary, engine=engine)


def model(ratio: float = 0.5) -> Tensor:
    """Smooth; S velocities a fraction ``ratio`` of P velocities."""
    z, x = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 20), indexing="ij")
    vp = 2200 + 800 * z + 200 * np.sin(4 * x)
    return torch.tensor(np.stack([vp, ratio * vp, 1800 + 200 * z]))[None]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_without_shear_it_is_acoustic():
    x = model(ratio=0.0)
    operator = elastic()
    fluid = Acoustic(
        survey(), grids()[1], bounds=BOUNDS, boundary=Boundary(n_absorbing=10),
        density=x[0, 2], engine=Deepwave(substeps=operator.propagator.engine.substeps, snapshot=1),
    )  # fmt: skip
    assert relative(operator(x), fluid(x[:, 0])) < 1e-3
    observed = fluid(0.97 * x[:, 0])
    _, expected = fluid.misfit_and_gradient(x[:, 0], observed)
    assert relative(operator.misfit_and_gradient(x, observed)[1][:, 0], expected) < 1e-2


@pytest.mark.parametrize("ratio", [0.45, 0.6])
def test_an_explosion_in_a_homogeneous_solid(ratio):
    # No S waves there: rho phi_tt = (lambda + 2 mu) lap phi - K S, and p = -K phi_tt / vp^2, so
    # the fluid's pressure is multiplied by (K / (lambda + 2 mu))^2 = (1 - vs^2 / vp^2)^2.
    solid = torch.tensor([3000.0, 3000.0 * ratio, 2000.0]).double()[:, None, None].expand(3, 16, 20)
    fluid = solid * torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    expected = (1 - ratio**2) ** 2 * elastic()(fluid[None])
    assert relative(elastic()(solid[None]), expected) < 0.02


def test_an_interface_converts_waves():
    layered = model()
    layered[:, 1, :9] = 1100.0
    smooth = model()
    assert relative(elastic()(layered), elastic()(smooth)) > 0.05


def test_derivatives_are_exact():
    operator, x = elastic(), model()
    assert operator.domain.shape == x.shape[1:]
    pattern = torch.cos(torch.arange(x[0].numel(), dtype=x.dtype)).reshape(x.shape)
    direction = pattern * torch.tensor([200.0, 100.0, 150.0])[:, None, None]
    assert checks.taylor_slope(operator, x, direction) == pytest.approx(2, abs=0.1)

    observed = operator(0.97 * x)
    _, gradient = operator.misfit_and_gradient(x, observed)
    for i in range(3):  # each parameter alone, edge cells and all
        step = torch.zeros_like(x)
        step[:, i] = 1e-3 * direction[:, i]
        ahead, _ = operator.misfit_and_gradient(x + step, observed)
        behind, _ = operator.misfit_and_gradient(x - step, observed)
        assert float((gradient * step).sum()) == pytest.approx(float(ahead - behind) / 2, rel=1e-6)


def test_batches_and_shots():
    operator = elastic(Deepwave(snapshot=1, shots_per_call=3))
    x = torch.cat([model(), model(0.6)])
    data = operator(x)
    assert data.shape == (2, 2, 4, 160)
    for b in range(2):
        assert relative(elastic()(x[b : b + 1])[0], data[b]) < 1e-12
    assert relative(operator.shots([1])(x)[:, 0], data[:, 1]) < 1e-12


def test_media_and_domains_that_are_none():
    operator, good = elastic(), model()
    for change in ([0.001, 0.001, 1.0], [1.0, 1.9, 1.0], [1.0, 1.0, 0.001]):
        with pytest.raises(InputError, match="not an elastic medium"):
            operator(good * torch.tensor(change)[:, None, None])
    with pytest.raises(NonFiniteError):
        operator(good * torch.nan)
    with pytest.raises(ShapeError, match="three parameters"):
        Elastic(survey(), grids()[1], bounds=BOUNDS)
    with pytest.raises(UnsupportedError, match="free surface"):
        Elastic(survey(), grids()[0], bounds=BOUNDS, boundary=Boundary(is_free_surface=True))
    with pytest.raises(InputError, match="bounds"):
        Elastic(survey(), grids()[0], bounds=(1.5, 4.0))


def test_data_that_do_not_fit_are_refused_as_by_acoustic():
    operator, x = elastic(), model()
    y = torch.zeros(operator.range.shape, dtype=torch.float64)
    with pytest.raises(ShapeError, match="differ in number"):
        operator.misfit_and_gradient(x, torch.stack([y, y]))
    y[0, 1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="data"):
        operator.misfit_and_gradient(x, y)
