"""The laws of the wave-equation operators: exact gradients, and the physics of waves."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.errors import UnsupportedError
from invdiff.fwi.misfit import NormalisedCorrelation
from invdiff.operators.checks import adjoint_error, taylor_slope
from invdiff.operators.seismic import Acoustic, Born, Cluster, Devito, Survey, gardner, ricker
from invdiff.operators.seismic.devito import DevitoEngine
from tests.support.seismic_cases import BOUNDS, acoustic, domain, line, model

pytest.importorskip("devito")
pytestmark = pytest.mark.seismic

F64, F32 = torch.float64, torch.float32
# Order 6 over a free surface: the divergence of a gradient looks further up than order 4 shows.
LAWS = {
    "constant": {"space_order": 4},
    "free surface": {"space_order": 4, "is_free_surface": True},
    "density": {"space_order": 4, "density": gardner},
    "density, free surface": {"space_order": 6, "density": gardner, "is_free_surface": True},
}


def relative(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).norm() / b.norm())


def direction(where: str, shape: tuple[int, int] = (24, 30)) -> Tensor:
    d = torch.from_numpy(np.random.default_rng(5).standard_normal((1, *shape)))
    if where == "edges":
        d[:, 1:-1, 1:-1] = 0
    return d


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize("law", LAWS)
def test_gradient_is_the_derivative(law: str, substeps: int) -> None:
    operator = acoustic(substeps=substeps, **LAWS[law])
    v, y = model(), operator(model(seed=1))[0]
    value, gradient = operator.misfit_and_gradient(v, y)

    def misfit(x: Tensor) -> Tensor:
        return 0.5 * (operator(x) - y).square().sum()

    for where in ("everywhere", "edges"):
        d = direction(where)
        slope = (gradient * d).sum()
        wide, narrow = ((misfit(v + h * d) - misfit(v - h * d)) / (2 * h) for h in (1.0, 0.5))
        assert float((4 * narrow - wide) / 3 / slope - 1) == pytest.approx(0, abs=1e-6), where
        steps = (16.0, 8.0, 4.0, 2.0)
        rest = [abs(float(misfit(v + h * d) - value - h * slope)) for h in steps]
        slopes = [np.log2(a / b) for a, b in pairwise(rest)]
        assert slopes[-1] == pytest.approx(2, abs=0.1), where


@pytest.mark.parametrize("law", ["constant", "density, free surface"])
def test_pull_back_of_the_data_is_exact(law: str) -> None:
    operator = acoustic(**LAWS[law])
    slope = taylor_slope(operator, model(), 100 * direction("everywhere"))
    assert slope == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("law", ["constant", "density, free surface"])
@pytest.mark.parametrize("misfit", [None, NormalisedCorrelation()])
def test_fused_gradient_is_autograds(law: str, misfit: NormalisedCorrelation | None) -> None:
    operator = acoustic(**LAWS[law])
    v, y = torch.cat([model(), model(seed=2)]), operator(model(seed=1))[0]
    values, gradient = operator.misfit_and_gradient(v, y, misfit=misfit)
    leaf = v.clone().requires_grad_()
    predicted = operator(leaf)
    if misfit is None:
        expected = 0.5 * (predicted - y).square().sum(dim=(1, 2, 3))
    else:
        expected = misfit(predicted, y.expand_as(predicted)).sum(1)
    (by_torch,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-12, atol=0)
    assert relative(gradient, by_torch) < 1e-12


def test_gradient_of_a_fixed_density() -> None:
    """Only the velocity moves."""
    rho = 1000 + 500 * torch.from_numpy(np.random.default_rng(3).random((24, 30)))
    operator = acoustic(density=rho, **{"space_order": 4})
    y = operator(model(seed=1))[0]
    v, d = model(), direction("everywhere")
    _, gradient = operator.misfit_and_gradient(v, y)
    values = [operator.misfit_and_gradient(v + h * d, y)[0] for h in (1.0, -1.0, 0.5, -0.5)]
    central = (8 * (values[2] - values[3]) - (values[0] - values[1])) / 6
    assert float(central / (gradient * d).sum() - 1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("is_free", "dtype"), [(False, F64), (True, F64), (False, F32)])
def test_born_is_the_derivative(is_free: bool, dtype: torch.dtype) -> None:
    operator = acoustic(grid=domain(dtype=dtype), space_order=4, is_free_surface=is_free)
    v = model(dtype=dtype)
    born = Born(operator, v[0])
    assert adjoint_error(born) < (1e-10 if dtype == F64 else 3e-5)
    if dtype == F64:
        d = direction("everywhere")
        wide, narrow = ((operator(v + h * d) - operator(v - h * d)) / (2 * h) for h in (2.0, 1.0))
        assert relative((4 * narrow - wide) / 3, born(d)) < 1e-6


def test_born_refuses_other_equations() -> None:
    with pytest.raises(UnsupportedError, match="constant density"):
        Born(acoustic(density=gardner), model()[0])


def test_works_with_torch_func() -> None:
    operator = acoustic(space_order=4)
    v, y = model(), torch.ones(1, *operator.range.shape, dtype=F64)
    data, pull_back = torch.func.vjp(operator, v)
    leaf = v.clone().requires_grad_()
    (expected,) = torch.autograd.grad(operator(leaf), leaf, y)
    assert torch.equal(data, operator(v))
    assert torch.equal(pull_back(y)[0], expected)


def test_refuses_a_second_derivative() -> None:
    operator = acoustic(space_order=4)
    leaf = model().requires_grad_()
    (first,) = torch.autograd.grad(operator(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(UnsupportedError, match="second derivatives of waves are not available"):
        torch.autograd.grad(first.sum(), leaf)
    # Nor where the cotangent does not depend on the model.
    (first,) = torch.autograd.grad(operator(leaf).sum(), leaf, create_graph=True)
    with pytest.raises(UnsupportedError, match="second derivatives of waves are not available"):
        torch.autograd.grad(first.sum(), leaf)


# ---------------------------------------------------------------- shots and models


def test_threads_give_the_same_bits() -> None:
    survey, grid = line(5), domain(dtype=F32)
    operators = [acoustic(survey, grid, n_threads=n) for n in (1, 2, 4)]
    v = torch.cat([model(dtype=F32), model(seed=2, dtype=F32)])
    y = operators[0](model(seed=1, dtype=F32))[0]
    expected = operators[0](v)
    value, gradient = operators[0].misfit_and_gradient(v, y)
    assert gradient.abs().max() > 0
    for operator in operators[1:]:
        assert torch.equal(operator(v), expected)
        value_n, gradient_n = operator.misfit_and_gradient(v, y)
        assert torch.equal(value_n, value)
        assert torch.equal(gradient_n, gradient)


def test_models_of_a_batch_do_not_meet() -> None:
    operator = acoustic(grid=domain(dtype=F32), density=gardner, space_order=4)
    v = torch.cat([model(seed=i, dtype=F32) for i in range(3)])
    y = torch.stack([operator(model(seed=i, dtype=F32))[0] for i in range(3, 6)])
    data = operator(v)
    values, gradients = operator.misfit_and_gradient(v, y)
    for i in range(3):
        assert torch.equal(operator(v[i : i + 1])[0], data[i])
        value, gradient = operator.misfit_and_gradient(v[i : i + 1], y[i])
        assert torch.equal(value[0], values[i])
        assert torch.equal(gradient[0], gradients[i])


def test_some_shots_are_rows() -> None:
    operator = acoustic(line(4), domain(dtype=F32))
    v = model(dtype=F32)
    data = operator(v)
    some = operator.shots([2, 0])
    assert some.range.shape == (2, *operator.range.shape[1:])
    assert torch.equal(some(v), data[:, [2, 0]])
    assert operator.n_shots == 4


def test_moving_spread_and_wavelets_of_their_own() -> None:
    """Each shot of a survey is the survey of that shot."""
    fixed, grid, v = line(3), domain(dtype=F32), model(dtype=F32)
    receivers = fixed.receivers + np.array([0.0, 3.0]) * np.arange(3)[:, None, None]
    wavelets = np.stack([ricker(f, fixed.dt, fixed.n_samples) for f in (12.0, 15.0, 18.0)])
    data = acoustic(Survey(fixed.sources, receivers, wavelets, fixed.dt), grid)(v)
    for i in range(3):
        alone = Survey(fixed.sources[i : i + 1], receivers[i], wavelets[i], fixed.dt)
        assert torch.equal(acoustic(alone, grid)(v)[0, 0], data[0, i])


def test_encoded_shots_are_sums_of_shots() -> None:
    operator = acoustic(line(3))
    weights = np.array([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0]])
    encoded, v = operator.encoded(weights), model()
    y = operator(model(seed=1))[0]
    summed = torch.einsum("sj,bjrt->bsrt", torch.from_numpy(weights), operator(v))
    assert relative(encoded(v), summed) < 1e-12
    y_encoded = torch.einsum("sj,jrt->srt", torch.from_numpy(weights), y)
    value, gradient = encoded.misfit_and_gradient(v, y_encoded)
    leaf = v.clone().requires_grad_()
    data = torch.einsum("sj,bjrt->bsrt", torch.from_numpy(weights), operator(leaf))
    expected = 0.5 * (data - y_encoded).square().sum()
    (by_torch,) = torch.autograd.grad(expected, leaf)
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert relative(gradient, by_torch) < 1e-12


def test_substeps_converge_to_the_wave_equation() -> None:
    """Second order in time: two steps a sample leave a quarter of the error of one."""
    grid = domain((41, 51))
    v = model(grid.shape)
    one, two, many = (acoustic(spread(), grid, substeps=k, n_absorbing=40)(v) for k in (1, 2, 16))
    assert 3.5 < relative(one, many) / relative(two, many) < 4.6


def test_pickled_operator_is_small_and_the_same() -> None:
    operator = acoustic(grid=domain(dtype=F32))
    v = model(dtype=F32)
    data = operator(v)  # the wave fields must not travel
    stored = pickle.dumps(operator)
    assert len(stored) < 200_000
    assert torch.equal(pickle.loads(stored)(v), data)


@pytest.mark.cluster
def test_cluster_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes; the engine travels once, the models once a call."""
    distributed = pytest.importorskip("distributed")
    survey, grid, v = line(4), domain(dtype=F32), model(dtype=F32)
    here = acoustic(survey, grid)
    y = here(model(seed=1, dtype=F32))[0]
    value, gradient = here.misfit_and_gradient(v, y)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        sent: list[type] = []
        scatter = client.scatter

        def counted(data: object, *, broadcast: bool, hash: bool) -> object:
            sent.append(type(data))
            return scatter(data, broadcast=broadcast, hash=hash)

        monkeypatch.setattr(client, "scatter", counted)
        engine = Devito(snapshot=1, workers=Cluster(client))
        there = Acoustic(survey, grid, bounds=BOUNDS, boundary=here.boundary, engine=engine)
        assert torch.equal(there(v), here(v))
        for operator, rows in ((there, slice(None)), (there.shots([1, 3]), [1, 3])):
            expected = here if operator is there else here.shots([1, 3])
            value_there, gradient_there = operator.misfit_and_gradient(v, y[rows])
            value, gradient = expected.misfit_and_gradient(v, y[rows])
            assert torch.equal(value_there, value)
            assert torch.equal(gradient_there, gradient)
        assert sent == [DevitoEngine, list, list, list]


RECOMPILED = """
import hashlib, sys
import numpy as np, torch
import devito
from invdiff.operators.seismic import Survey
from tests.support.seismic_cases import acoustic, domain, line, model

torch.set_num_threads(1)
F32 = torch.float32
folder = devito.configuration["compiler"].get_jit_dir()
count = lambda: sum(path.suffix == ".so" for path in folder.glob("*"))
before, grid, v = count(), domain(dtype=F32), model(dtype=F32)
survey = line(3)

def use(operator, v=v):
    y = operator(v)[0] * 0.9
    return operator.misfit_and_gradient(v, y)[1]

operator = acoustic(survey, grid)
gradient = use(operator)
first = count()
use(operator, torch.cat([model(seed=1, dtype=F32), model(seed=2, dtype=F32)]))
use(operator.shots([2]))
use(operator.encoded(np.array([[1.0, -1.0, 1.0]])))
fewer = Survey(survey.sources, survey.receivers[:3], survey.wavelet, survey.dt)
use(acoustic(fewer, grid))
moving = survey.receivers + np.array([0.0, 5.0]) * np.arange(3)[:, None, None]
use(acoustic(Survey(survey.sources, moving, survey.wavelet, survey.dt), grid))
use(acoustic(line(2, n_samples=250), grid))
use(acoustic(survey, domain((31, 33), F32), substeps=2, n_absorbing=15), model((31, 33), dtype=F32))
use(acoustic(survey, grid, n_threads=4))
print(before, first, count(), hashlib.sha256(gradient.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_nothing_is_compiled_after_the_first_call(tmp_path: Path) -> None:
    """In a compilation cache of its own: a first process, then another."""

    def run() -> list[str]:
        root = Path(__file__).resolve().parents[3]
        places = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", "-c", RECOMPILED]
        done = subprocess.run(
            command, env={**os.environ, **places}, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    before, first, last, bits = run()
    # forward, forward with stored wave fields, gradient
    assert (before, first, last) == ("0", "3", "3")
    assert run() == ["3", "3", "3", bits]


def test_kernels_do_not_start_threads() -> None:
    """`check_threads` counts on it: OpenMP for vectors only."""
    from invdiff.operators.seismic.devito import _built

    operator = acoustic(grid=domain(dtype=F32))
    code = str(_built(operator.propagator.engine.kernels, "forward").ccode)
    assert {line.split()[2] for line in re.findall(r"#pragma omp.*", code)} <= {"simd"}


# ---------------------------------------------------------------- physics

SPEED, DT, N = 2000.0, 1e-3, 300
OFFSETS = np.array([100.0, 200.0, 300.0, 400.0])


def analytic(distance: float, wavelet: np.ndarray) -> np.ndarray:
    """Pressure of a line source in a homogeneous medium, ``F(w) H_0^(2)(w r / v) / 4i``."""
    from scipy.special import hankel2

    n = 16 * len(wavelet)
    omega = 2 * np.pi * np.fft.rfftfreq(n, DT)
    response = np.zeros(len(omega), complex)
    response[1:] = hankel2(0, omega[1:] * distance / SPEED) / 4j
    return np.fft.irfft(np.fft.rfft(wavelet, n) * response, n)[: len(wavelet)]


def homogeneous(shape: tuple[int, int]) -> Tensor:
    return torch.full((1, *shape), SPEED, dtype=F64)


def spread(depth: float = 200.0) -> Survey:
    receivers = [(depth, 50.0 + r) for r in OFFSETS]
    return Survey([(depth, 50.0)], receivers, ricker(12.0, DT, N), DT)


def traces(operator: Acoustic) -> np.ndarray:
    return operator(homogeneous(operator.domain.shape))[0, 0].numpy()


@pytest.fixture(scope="module")
def in_the_open() -> np.ndarray:
    return traces(acoustic(spread(), domain((41, 51)), n_absorbing=40))


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_pressure_is_the_analytic_one(in_the_open: np.ndarray) -> None:
    for trace, r in zip(in_the_open, OFFSETS, strict=True):
        assert error(trace, analytic(r, spread().wavelet)) < 0.01, r


def test_waves_arrive_on_time_and_spread(in_the_open: np.ndarray) -> None:
    whole = in_the_open[:3]  # the last wave has not passed by the end
    peaks = np.abs(whole).argmax(axis=1)
    np.testing.assert_allclose(np.diff(peaks) * DT, np.diff(OFFSETS[:3]) / SPEED, atol=DT)
    amplitude = np.abs(whole).max(axis=1) * OFFSETS[:3] ** 0.5
    np.testing.assert_allclose(amplitude / amplitude[0], 1, atol=0.03)
    for trace, r in zip(in_the_open, OFFSETS, strict=True):
        # Nothing before the wave: the wavelet itself starts at 1e-8 of its peak, at time zero.
        before = int(r / SPEED / DT) - 10
        assert np.abs(trace[:before]).max() < 1e-5 * np.abs(trace).max(), r


def test_layers_absorb(in_the_open: np.ndarray) -> None:
    """Against a model whose edges no wave reaches and returns from in time."""
    survey = spread()
    moved = Survey(survey.sources + 400, survey.receivers + 400, survey.wavelet, DT)
    far = traces(acoustic(moved, domain((121, 131)), n_absorbing=1))
    reflected = np.abs(in_the_open - far).max()
    assert 0 < reflected < 0.02 * np.abs(far).max()


def test_free_surface_mirrors_with_the_opposite_sign() -> None:
    depth = 60.0
    operator = acoustic(spread(depth), domain((41, 51)), n_absorbing=40, is_free_surface=True)
    wavelet = spread().wavelet
    for trace, r in zip(traces(operator), OFFSETS, strict=True):
        image = analytic(np.hypot(r, 2 * depth), wavelet)
        assert error(trace, analytic(r, wavelet) - image) < 0.02, r
        assert error(trace, analytic(r, wavelet)) > 0.3  # without it they disagree


@pytest.mark.parametrize("law", LAWS)
def test_source_and_receiver_change_places(law: str) -> None:
    """Reciprocity, exact on the grid as well; with a density for the relative source strength."""
    a, b = (43.0, 61.0), (171.0, 228.0)
    there, back = (
        acoustic(Survey([s], [r], ricker(15.0, DT, 200), DT), **LAWS[law])(model())
        for s, r in ((a, b), (b, a))
    )
    assert relative(back, there) < 1e-10


@pytest.mark.parametrize("is_free", [False, True])
def test_constant_density_is_a_special_case(is_free: bool) -> None:
    """Of the equation of variable density, whose stencil is another one."""
    rho = torch.full((24, 30), 1000.0, dtype=F64)
    order = 6 if is_free else 4
    v = 2000 + torch.arange(24, dtype=F64)[None, :, None].expand(1, 24, 30) * 20
    one, other, heavier = (
        acoustic(density=d, space_order=order, is_free_surface=is_free, n_absorbing=40)(v)
        for d in (None, rho, 2 * rho)
    )
    assert 0 < relative(other, one) < 0.02
    assert relative(heavier, 2 * other) < 0.02  # the layers damp it differently


def test_the_callers_arithmetic_keeps_subnormal_numbers() -> None:
    # Compiled kernels flush them to zero in the thread that calls them; two calls, for the first
    # also compiles.
    operator = acoustic(line(), domain())
    for _ in range(2):
        operator.misfit_and_gradient(model()[:1], torch.zeros(operator.range.shape).double())
        assert (np.array([np.finfo(np.float64).smallest_subnormal]) * 1.0)[0] > 0
