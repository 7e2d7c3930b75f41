"""Likelihoods besides Gaussian: density, information, gradient; magnitudes of complex data."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NoiseLevelError, NonFiniteError, ShapeError
from invdiff.grid import Grid
from invdiff.likelihood.base import Likelihood
from invdiff.likelihood.poisson import Poisson
from invdiff.likelihood.rician import Rician
from invdiff.likelihood.student_t import StudentT
from invdiff.operators import Magnitude, Mask, Matrix
from tests.support.closed_form import grid2d, normal

S, NU, GAIN = 0.3, 4.0, 2.5
POINT = Grid(("x",), (1,), torch.float64)
COMPLEX_POINT = Grid(("x",), (1,), torch.complex128)
T = torch.tensor(0.0)
ROOT2 = 2**0.5  # S is the deviation of one part of the noise


def identity(n: int = 1, dtype: torch.dtype = torch.float64) -> Matrix:
    return Matrix(torch.eye(n, dtype=dtype), Grid(("x",), (n,), dtype))


def at(y: float | complex, kind: str) -> Likelihood:
    """A likelihood of one datum that is predicted by the field itself."""
    if kind == "complex t":
        datum = torch.tensor([y], dtype=torch.complex128)
        return StudentT(datum, identity(dtype=torch.complex128), S, degrees=NU)
    datum = torch.tensor([y], dtype=torch.float64)
    if kind == "t":
        return StudentT(datum, identity(), S, degrees=NU)
    return (
        Poisson(datum, identity(), GAIN)
        if kind == "poisson"
        else Rician(datum, identity(), ROOT2 * S)
    )


def support(kind: str, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Data and their quadrature weights."""
    if kind == "poisson":
        counts = np.arange(200.0)
        return counts, np.ones_like(counts)
    if kind == "t":  # heavy tails: y = z + tan, whose measure falls off fast enough
        angle, weights = np.polynomial.legendre.leggauss(400)
        angle = angle * np.pi / 2
        return z + S * np.tan(angle), weights * np.pi / 2 * S / np.cos(angle) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = max(0.0, z - 9 * S), z + 9 * S
    return low + (high - low) * (nodes + 1) / 2, weights * (high - low) / 2


def density_and_score(kind: str, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data, weights = support(kind, z)
    density, score = [], []
    for y in data:
        term = at(y, kind)
        leaf = torch.tensor([[z]], dtype=torch.float64, requires_grad=True)
        value = term.log_density(leaf)
        density.append(float(value.detach()) + term.log_normalisation)
        score.append(float(torch.autograd.grad(value.sum(), leaf)[0]))
    return weights, np.exp(density), np.array(score)


@pytest.mark.parametrize("kind", ["t", "poisson", "rician"])
@pytest.mark.parametrize("z", [0.05, 0.6, 4.0])
def test_density_integrates_to_one_and_information_is_the_variance_of_the_score(
    kind: str, z: float
) -> None:
    weights, density, score = density_and_score(kind, z)
    assert np.sum(weights * density) == pytest.approx(1, rel=1e-5)
    assert np.sum(weights * density * score) == pytest.approx(0, abs=1e-4)
    variance = np.sum(weights * density * score**2)
    information = at(1.0, kind).information(torch.tensor([[z]], dtype=torch.float64))
    assert float(information) == pytest.approx(variance, rel=1e-5)


def test_the_densities_are_those_of_scipy() -> None:
    z = torch.tensor([[0.7]], dtype=torch.float64)
    for y in (0.0, 1.0, 3.0):
        got = float(at(y, "poisson").log_density(z)) + at(y, "poisson").log_normalisation
        assert got == pytest.approx(stats.poisson(GAIN * 0.7).logpmf(y))
        got = float(at(y, "t").log_density(z)) + at(y, "t").log_normalisation
        assert got == pytest.approx(stats.t(NU, 0.7, S).logpdf(y))
    for y in (0.01, 1.0, 3.0):
        got = float(at(y, "rician").log_density(z)) + at(y, "rician").log_normalisation
        assert got == pytest.approx(stats.rice(0.7 / S, scale=S).logpdf(y))
    y = 0.3 - 0.2j
    parts = stats.multivariate_t([0.7, 0], S**2 / 2 * np.eye(2), NU)
    term = at(y, "complex t")
    got = float(term.log_density(z.to(torch.complex128))) + term.log_normalisation
    assert got == pytest.approx(parts.logpdf([y.real, y.imag]))


def simulated(kind: str, z: Tensor, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    if kind == "poisson":
        return torch.from_numpy(rng.poisson(GAIN * z.numpy()).astype(float))
    if kind == "rician":
        return torch.from_numpy(np.abs(z.numpy() + S * rng.standard_normal((len(z), 2)) @ [1, 1j]))
    dims = 2 if kind == "complex t" else 1
    n = stats.multivariate_t(np.zeros(dims), S**2 / dims * np.eye(dims), NU)
    draws = n.rvs(len(z), random_state=rng).reshape(len(z), dims)
    return z + torch.from_numpy(draws @ ([1, 1j] if dims == 2 else [1]))


@pytest.mark.parametrize("kind", ["t", "complex t", "poisson", "rician"])
def test_the_misfit_of_the_truth_is_one(kind: str) -> None:
    n = 20_000
    dtype = torch.complex128 if kind == "complex t" else torch.float64
    z = torch.from_numpy(np.random.default_rng(0).uniform(0.2, 2, n)).to(dtype)
    y, operator = simulated(kind, z, seed=1), identity(1, dtype)
    grid = Grid(("x",), (n,), dtype)
    operator = Mask(grid, torch.arange(n) % 2 == 0)  # half of them, so that n_data counts
    y = operator(y[None])[0]
    term: Likelihood = {
        "t": lambda: StudentT(y, operator, S, degrees=NU),
        "complex t": lambda: StudentT(y, operator, S, degrees=NU),
        "poisson": lambda: Poisson(y, operator, GAIN),
        "rician": lambda: Rician(y, operator, ROOT2 * S),
    }[kind]()
    residual = term.local(operator(z[None])).residual.abs().square().flatten()[::2]
    error = float(residual.std()) / (n / 2) ** 0.5
    assert float(term.misfit(z[None])) == pytest.approx(1, abs=4 * error)
    assert error < 0.03


@pytest.mark.parametrize("kind", ["t", "complex t", "poisson", "rician"])
def test_gradients(kind: str) -> None:
    dtype = torch.complex128 if kind == "complex t" else torch.float64
    z = (normal((3, 1), 5, dtype).abs() + 0.2).to(dtype).requires_grad_()
    y = {"t": 50.0, "complex t": 1 + 0.5j, "poisson": 3.0, "rician": 40.0}[kind]
    assert torch.autograd.gradcheck(at(y, kind).log_density, z)


def test_large_and_vanishing_signals_stay_finite() -> None:
    leaf = torch.tensor([[0.0], [1e4], [-1e4]], dtype=torch.float64, requires_grad=True)
    value = at(1e4, "rician").log_density(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert float(value[1].detach()) == float(
        value[2].detach()
    )  # the sign of a magnitude does not matter
    information = at(1.0, "rician").information(leaf.detach()) * S**2
    assert information.flatten().tolist() == pytest.approx([0, 1, 1], abs=1e-6)


def test_an_outlier_pulls_less_than_in_a_gaussian() -> None:
    leaf = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    scores = [
        float(torch.autograd.grad(at(y, "t").log_density(leaf).sum(), leaf)[0][0])
        for y in (1.0, 100.0)
    ]
    assert scores[1] < scores[0] < 1 / S**2


def test_impossible_counts_have_no_likelihood_and_no_working_model() -> None:
    z = torch.tensor([[-0.1], [0.0], [0.5]], dtype=torch.float64)
    assert at(2.0, "poisson").log_density(z).tolist()[:2] == [-torch.inf] * 2
    assert at(0.0, "poisson").log_density(z).tolist() == [-torch.inf, 0.0, -GAIN * 0.5]
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at(2.0, "poisson").log_density(leaf).sum(), leaf)
    assert torch.isfinite(gradient).all()
    with pytest.raises(InputError, match="not positive"):
        at(2.0, "poisson").information(z)
    with pytest.raises(InputError, match="not positive"):
        at(2.0, "poisson").misfit(z[:1])


def test_unmeasured_counts_do_not_matter() -> None:
    grid, keep = grid2d(4), torch.zeros(4, 4, dtype=torch.bool)
    keep[0, 0] = True
    operator, x = Mask(grid, keep), normal((2, 4, 4), 0).abs() + 0.1
    term = Poisson(3.0 * keep, operator)
    expected = 3 * x[:, 0, 0].log() - x[:, 0, 0]
    torch.testing.assert_close(term.log_prob(x, x, T), expected)
    local = term.local(operator(x))
    assert torch.isfinite(local.whiten(x)).all()
    assert float(local.residual[:, 1:].abs().max()) == 0


def magnitude() -> Magnitude:
    matrix = normal((3, 4), 1, torch.complex128)
    grids = [Grid((d,), (n,), torch.complex128) for d, n in (("x", 4), ("k", 3))]
    return Magnitude(Matrix(matrix, *grids))


def test_magnitudes_and_their_gradient() -> None:
    operator, x = magnitude(), normal((2, 4), 2, torch.complex128)
    y = operator(x)
    torch.testing.assert_close(y, operator.linear(x).abs())
    assert operator.range.dtype == torch.float64
    assert operator.n_data == 3
    assert torch.autograd.gradcheck(operator, x.requires_grad_())
    zero = torch.zeros_like(x).requires_grad_()
    (gradient,) = torch.autograd.grad(operator(zero).sum(), zero)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    term = Rician(y[0].detach(), operator, ROOT2 * S)
    assert torch.autograd.gradcheck(lambda v: term.log_prob(v, v, T), x.detach().requires_grad_())
    with pytest.raises(DTypeError, match="complex"):
        Magnitude(identity())


def test_bad_input_is_refused() -> None:
    grid = grid2d(4)
    operator, y = Mask(grid, torch.ones(4, 4)), torch.ones(4, 4, dtype=torch.float64)
    for level in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(NoiseLevelError, match="not positive"):
            StudentT(y, operator, level)
        with pytest.raises(NoiseLevelError, match="not positive"):
            Rician(y, operator, level)
        with pytest.raises(InputError, match="gain"):
            Poisson(y, operator, level)
        with pytest.raises(InputError, match="degrees"):
            StudentT(y, operator, 1.0, degrees=level)
    with pytest.raises(InputError, match="not counts"):
        Poisson(0.5 * y, operator)
    with pytest.raises(InputError, match="not counts"):
        Poisson(-y, operator)
    with pytest.raises(InputError, match="negative"):
        Rician(-y, operator, 1.0)
    with pytest.raises(ShapeError):
        Poisson(y[:3], operator)
    with pytest.raises(NonFiniteError):
        StudentT(y * torch.nan, operator, 1.0)
    complex_operator = identity(4, torch.complex128)
    data = torch.ones(4, dtype=torch.complex128)
    with pytest.raises(DTypeError, match="magnitudes"):
        Rician(data, complex_operator, 1.0)
    with pytest.raises(DTypeError, match="counts"):
        Poisson(data, complex_operator)


@pytest.mark.parametrize("kind", ["t", "poisson", "rician"])
def test_reprs_name_what_matters(kind: str) -> None:
    assert repr(at(1.0, kind)).startswith(type(at(1.0, kind)).__name__ + "(y, ")
