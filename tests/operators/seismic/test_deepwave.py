"""Deepwave as engine: the same data and gradients as Devito's, and exact gradients of its own."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import InputError, MissingDependencyError, UnsupportedError
from invdiff.fwi.misfit import NormalisedCorrelation
from invdiff.grid import Grid
from invdiff.operators import checks
from invdiff.operators.seismic import (
    Acoustic,
    Born,
    Boundary,
    Deepwave,
    Devito,
    Survey,
    gardner,
    ricker,
)
from invdiff.operators.seismic.deepwave import dominant_frequency
from invdiff.operators.seismic.points import Points

pytest.importorskip("deepwave")
pytestmark = pytest.mark.seismic

SPACING, DT, BOUNDS = 10.0, 0.001, (1500.0, 4000.0)
EXACT = Deepwave(snapshot=1)


def domain(n_z: int = 30, n_x: int = 40, *, dtype: torch.dtype = torch.float64) -> Grid:
    coords = {"z": np.arange(n_z) * SPACING, "x": np.arange(n_x) * SPACING}
    return Grid(("z", "x"), (n_z, n_x), dtype, coords=coords, units="m s-1")


def velocity(grid: Grid) -> Tensor:
    """Smooth: faster downwards, with a lens."""
    z, x = np.meshgrid(*(np.arange(n) / n for n in grid.shape), indexing="ij")
    lens = 500 * np.exp(-((z - 0.5) ** 2 + (x - 0.5) ** 2) / 0.04)
    return torch.tensor(2000 + 1000 * z + lens, dtype=grid.dtype)[None]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


# --- the same as Devito --------------------------------------------------------------------------

LARGE = domain(60, 80, dtype=torch.float32)


def inner_survey(*, depth: float) -> Survey:
    """So far from the absorbing edges that nothing comes back from them within the time.

    Devito's are sponges, Deepwave's CPMLs. The second source and the last receiver lie between
    grid points.
    """
    receivers = np.stack([np.full(5, depth + 10), np.arange(360.0, 510.0, 30.0)], axis=-1)
    receivers[-1] += (4.0, 3.0)
    sources = np.array([[depth, 350.0], [depth + 5, 423.0]])
    return Survey(sources, receivers, ricker(20.0, DT, 200), DT)


def two_engines(*, is_free_surface: bool, has_density: bool) -> list[Acoustic]:
    pytest.importorskip("devito")
    survey = inner_survey(depth=20.0 if is_free_surface else 300.0)
    boundary = Boundary(n_absorbing=15, is_free_surface=is_free_surface)
    density = gardner if has_density else None
    return [
        Acoustic(survey, LARGE, bounds=BOUNDS, boundary=boundary, density=density, engine=engine)
        for engine in (Devito(snapshot=1), EXACT)
    ]


@pytest.mark.parametrize("has_density", [False, True])
@pytest.mark.parametrize("is_free_surface", [False, True])
def test_data_are_those_of_devito(is_free_surface, has_density):
    theirs, ours = two_engines(is_free_surface=is_free_surface, has_density=has_density)
    v = velocity(LARGE)
    assert relative(ours(v), theirs(v)) < 1e-4
    weights = np.array([[1.0, -2.0]])
    assert relative(ours.encoded(weights)(v), theirs.encoded(weights)(v)) < 1e-4


@pytest.mark.parametrize(("is_free_surface", "has_density"), [(True, False), (False, True)])
def test_gradients_are_those_of_devito(is_free_surface, has_density):
    theirs, ours = two_engines(is_free_surface=is_free_surface, has_density=has_density)
    v = velocity(LARGE)
    start = 0.97 * v
    (value_a, gradient_a), (value_b, gradient_b) = (
        operator.misfit_and_gradient(start, ours(v)) for operator in (theirs, ours)
    )
    assert float(value_b) == pytest.approx(float(value_a), rel=1e-3)
    assert cosine(gradient_a, gradient_b) > 0.999
    assert relative(gradient_b, gradient_a) < 1e-3


# --- laws ----------------------------------------------------------------------------------------

CASES = [(False, False, None), (True, False, 2), (False, True, None), (True, True, 2)]
SMALL = domain(16, 20)


def small(
    is_free_surface: bool = False,
    has_density: bool = False,
    engine: Deepwave = EXACT,
    *,
    survey: Survey | None = None,
    grid: Grid = SMALL,
) -> Acoustic:
    boundary = Boundary(n_absorbing=8, is_free_surface=is_free_surface)
    density = gardner if has_density else None
    survey = survey or small_survey()
    return Acoustic(survey, grid, bounds=BOUNDS, boundary=boundary, density=density, engine=engine)


def small_survey() -> Survey:
    receivers = np.stack([np.full(4, 30.0), np.array([20.0, 70.0, 114.0, 160.0])], axis=-1)
    return Survey(np.array([[20.0, 50.0], [25.0, 140.0]]), receivers, ricker(25.0, DT, 110), DT)


def edge(grid: Grid) -> Tensor:
    """A change of the outermost cells alone, whose velocity the absorbing layers continue."""
    mask = torch.ones(grid.shape, dtype=grid.dtype)
    mask[2:-1, 1:-1] = 0
    return mask[None]


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_exact(case):
    is_free_surface, has_density, substeps = case
    operator = small(is_free_surface, has_density, Deepwave(snapshot=1, substeps=substeps))
    v = velocity(SMALL)
    bump = 300 * torch.sin(torch.arange(20.0, dtype=torch.float64)) * torch.ones_like(v)
    assert checks.taylor_slope(operator, v, bump) == pytest.approx(2, abs=0.1)

    observed = operator(0.95 * v)
    _, gradient = operator.misfit_and_gradient(v, observed)
    for direction in (bump, edge(SMALL)):
        step = 1e-3 * direction
        ahead, _ = operator.misfit_and_gradient(v + step, observed)
        behind, _ = operator.misfit_and_gradient(v - step, observed)
        expected = float(ahead - behind) / 2
        assert float((gradient * step).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("misfit", [None, NormalisedCorrelation()])
@pytest.mark.parametrize("has_density", [False, True])
def test_fused_gradient_is_that_of_autograd(has_density, misfit):
    operator = small(has_density=has_density)
    v = torch.cat([velocity(SMALL), velocity(SMALL) + 50])
    observed = operator(0.95 * v)
    values, gradient = operator.misfit_and_gradient(v, observed, misfit=misfit)

    leaf = v.clone().requires_grad_()
    traces = operator(leaf)
    if misfit is None:
        expected = 0.5 * (traces - observed).square().sum((1, 2, 3))
    else:
        expected = misfit(traces, observed).sum(1)
    (by_autograd,) = torch.autograd.grad(expected.sum(), leaf)
    assert values.dtype == torch.float64
    assert torch.allclose(values, expected.detach(), rtol=1e-12)
    assert relative(gradient, by_autograd) < 1e-12


def test_fixed_density_and_torch_func():
    density = gardner(velocity(SMALL)[0])
    v = velocity(SMALL)
    boundary = Boundary(n_absorbing=8)
    fixed = Acoustic(
        small_survey(), SMALL, bounds=BOUNDS, boundary=boundary, density=density, engine=EXACT
    )
    assert relative(fixed(v), small(has_density=True)(v)) < 1e-12
    observed = fixed(0.95 * v)
    _, gradient = fixed.misfit_and_gradient(v, observed)
    traces, pull_back = torch.func.vjp(fixed, v)
    assert relative(pull_back(traces - observed)[0], gradient) < 1e-12


@pytest.mark.parametrize("has_density", [False, True])
def test_models_and_shots_do_not_depend_on_what_shares_their_call(has_density):
    operator = small(has_density=has_density)
    v = torch.cat([velocity(SMALL), velocity(SMALL) + 300, velocity(SMALL) - 200])
    observed = operator(0.95 * v)
    assert observed.shape == (3, 2, 4, 110)
    for b in range(3):
        assert relative(operator(v[b : b + 1])[0], operator(v)[b]) < 1e-12
    assert relative(operator.shots([1])(v)[:, 0], operator(v)[:, 1]) < 1e-12

    values, gradient = operator.misfit_and_gradient(v, observed)
    for n in (1, 4):  # 4 of 6 solves: calls across the models
        few = small(has_density=has_density, engine=Deepwave(snapshot=1, shots_per_call=n))
        assert relative(few(v), operator(v)) < 1e-12
        values_few, gradient_few = few.misfit_and_gradient(v, observed)
        assert torch.allclose(values_few, values, rtol=1e-12)
        assert relative(gradient_few, gradient) < 1e-12


def test_encoded_shots_are_sums():
    # Two of the three sources are in the same place.
    sources = np.array([[20.0, 50.0], [25.0, 140.0], [20.0, 50.0]])
    wavelets = np.stack([ricker(f, DT, 110) for f in (25.0, 20.0, 22.0)])
    survey = Survey(sources, small_survey().receivers, wavelets, DT)
    weights = np.array([[1.0, -1.0, 1.0], [0.0, 2.0, 1.0]])
    operator, v = small(survey=survey), velocity(SMALL)
    expected = torch.einsum("sj,bjrt->bsrt", torch.tensor(weights), operator(v))
    assert relative(operator.encoded(weights)(v), expected) < 1e-12


def test_a_moving_spread_and_receivers_in_the_same_place():
    line = small_survey()
    same = line.receivers[[0, 0, 2, 3]]
    moving = np.stack([line.receivers, same])
    operator = small(survey=Survey(line.sources, moving, line.wavelet, DT))
    v = velocity(SMALL)
    whole = small()(v)
    assert relative(operator(v)[:, 0], whole[:, 0]) < 1e-12
    assert relative(operator(v)[:, 1], whole[:, 1, [0, 0, 2, 3]]) < 1e-12


def test_time_step_and_layers_are_those_of_the_bounds():
    fast = small(engine=Deepwave(), survey=small_survey().resampled(0.002))
    engine = fast.propagator.engine
    assert engine.substeps == 2
    assert engine.pml_frequency == pytest.approx(25, rel=0.03)
    assert fast.shots([0]).propagator.engine == engine
    assert dominant_frequency(small_survey()) == pytest.approx(25, rel=0.03)
    v = velocity(SMALL)
    coarse, fine = fast(v), small(engine=Deepwave(substeps=2))(v)
    # 55 samples of 2 ms against every second of 110 of 1 ms, at half the step of the former.
    assert relative(coarse, fine[..., ::2]) < 0.02


def test_single_precision():
    grid = domain(16, 20, dtype=torch.float32)
    single = small(grid=grid)
    data = single(velocity(grid))
    assert data.dtype == torch.float32
    assert relative(data.double(), small()(velocity(SMALL))) < 1e-4


@pytest.mark.gpu
def test_on_a_gpu():
    operator, v = small(), velocity(SMALL)
    there = operator(v.cuda())
    assert there.device.type == "cuda"
    assert relative(there.cpu(), operator(v)) < 1e-9
    _, gradient = operator.misfit_and_gradient(v.cuda(), 0.9 * there)
    assert relative(gradient.cpu(), operator.misfit_and_gradient(v, 0.9 * operator(v))[1]) < 1e-9


# --- points --------------------------------------------------------------------------------------


def test_points_interpolate_linearly_and_spread_is_the_transpose():
    positions = np.array(
        [[[0.0, 0.0], [2.25, 3.5], [4.0, 5.0]], [[1.0, 1.0], [1.0, 1.0], [3, 4.5]]]
    )
    points = Points.between(positions, (5, 6))
    plane = (points.cells[..., 0] + 10 * points.cells[..., 1]).double()  # linear in row and column
    expected = torch.tensor(positions[..., 0] + 10 * positions[..., 1])
    assert torch.allclose(points.gather(plane[..., None])[..., 0], expected)
    for cells, is_used in zip(points.cells, points.is_used, strict=True):
        assert len(torch.unique(cells[is_used], dim=0)) == int(is_used.sum())

    rng = np.random.default_rng(0)
    a = torch.tensor(rng.standard_normal((2, points.cells.shape[1], 7)))
    b = torch.tensor(rng.standard_normal((2, 3, 7)))
    inner = float((points.gather(a) * b).sum())
    assert float((a * points.spread(b)).sum()) == pytest.approx(inner, rel=1e-12)


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"space_order": 3}, r"space_order=3; expected one of \(2, 4, 6, 8\)"),
        ({"substeps": 0}, "substeps.*>= 1"),
        ({"shots_per_call": 0}, "shots_per_call.*>= 1"),
        ({"snapshot": 1.5}, "snapshot is not an integer"),
        ({"substeps": True}, "substeps is not an integer"),
    ],
)
def test_engines_that_do_not_exist(changes, match):
    with pytest.raises(InputError, match=match):
        Deepwave(**changes)


def test_too_long_a_time_step():
    with pytest.raises(InputError, match="CFL"):
        small(engine=Deepwave(substeps=1), survey=small_survey().resampled(0.002))


def test_densities_that_need_a_shorter_step():
    density = torch.full(SMALL.shape, 1000.0, dtype=torch.float64)
    density[8:] = 3000.0
    survey, boundary = small_survey(), Boundary(n_absorbing=8)
    bounds = (1500.0, 5000.0)
    v = torch.full((1, *SMALL.shape), 4900.0, dtype=torch.float64)
    refused = Acoustic(
        survey, SMALL, bounds=bounds, boundary=boundary, density=density, engine=Deepwave()
    )
    with pytest.raises(InputError, match=r"Deepwave refuses this medium[\s\S]*substeps=2"):
        refused(v)
    shorter = Deepwave(substeps=2)
    data = Acoustic(
        survey, SMALL, bounds=bounds, boundary=boundary, density=density, engine=shorter
    )(v)
    assert torch.isfinite(data).all()


def test_born_is_of_devito():
    with pytest.raises(UnsupportedError, match=r"torch\.func\.vjp"):
        Born(small(), velocity(SMALL)[0])


def test_deepwave_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepwave", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        small()
