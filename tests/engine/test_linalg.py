"""Krylov methods against dense algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from invdiff.linalg import conjugate_gradient, lanczos
from tests.support.closed_form import normal

DTYPES = (torch.float64, torch.complex128)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def hermitian(values: Tensor, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues."""
    n = len(values)
    q = torch.linalg.qr(normal((n, n), seed, dtype)).Q
    return (q * values) @ q.mH


def applied(matrix: Tensor):
    return lambda x: (x.flatten(1) @ matrix.mT).reshape(x.shape)


@settings(max_examples=30)
@given(st.integers(1, 12), st.sampled_from(DTYPES), st.integers(0, 99))
def test_conjugate_gradients_solve(n: int, dtype: torch.dtype, seed: int) -> None:
    matrix = hermitian(torch.linspace(1, 50, n, dtype=torch.float64), dtype, seed)
    b = normal((3, n), seed + 1, dtype)
    solution = conjugate_gradient(applied(matrix), b, rtol=1e-12)
    torch.testing.assert_close(solution.x, torch.linalg.solve(matrix, b.mT).mT)
    assert solution.iterations <= 2 * n + 2
    assert (solution.residual <= 1e-12).all()


@every_dtype
def test_a_preconditioner_changes_the_cost_only(dtype: torch.dtype) -> None:
    scale = torch.logspace(0, 4, 40, dtype=torch.float64)
    matrix = hermitian(torch.linspace(1, 2, 40, dtype=torch.float64), dtype)
    matrix = scale.sqrt()[:, None] * matrix * scale.sqrt()
    b = normal((2, 40), 1, dtype)
    plain = conjugate_gradient(applied(matrix), b, rtol=1e-12, max_iterations=1000)
    helped = conjugate_gradient(
        applied(matrix), b, precondition=lambda r: r / scale, rtol=1e-12, max_iterations=1000
    )
    torch.testing.assert_close(helped.x, torch.linalg.solve(matrix, b.mT).mT)
    assert helped.iterations < plain.iterations / 3


@every_dtype
def test_the_absolute_tolerance_bounds_the_energy_of_the_error(dtype: torch.dtype) -> None:
    """For ``K >= I``, whatever the preconditioner: here one that is wrong by up to 1e4."""
    values = torch.logspace(0, 4, 60, dtype=torch.float64)
    matrix, b = hermitian(values, dtype), 100 * normal((4, 60), 1, dtype)
    flat = conjugate_gradient(
        applied(matrix), b, precondition=lambda r: r / 1e4, rtol=0, atol=0.1, max_iterations=1000
    )
    error = flat.x - torch.linalg.solve(matrix, b.mT).mT
    energy = (error.conj() * (error @ matrix.mT)).sum(1).real.sqrt()
    assert (energy <= 0.1).all()
    assert (energy > 1e-6).all()  # it did stop early


@settings(max_examples=60)
@given(
    n=st.integers(40, 200),
    condition=st.floats(0.5, 5),
    decay=st.floats(0.3, 3),
    guess=st.floats(0, 2.5),
    data=st.floats(-1, 2),
    seed=st.integers(0, 99),
)
def test_the_energy_of_the_error_is_within_the_tolerance_asked(
    n: int, condition: float, decay: float, guess: float, data: float, seed: int
) -> None:
    """Many spectra, preconditioners off by up to ``10^guess``, and data that outweigh the noise."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(1 + 10**condition * rng.random(n) ** (1 / decay))
    values[: n // 4] = 1.0
    scale = values * torch.from_numpy(10 ** (guess * rng.uniform(-0.5, 0.5, n)))
    b = values.sqrt() * normal((3, n), seed) + 10**data * (values - 1) * normal((3, n), seed + 1)
    atol = 0.05 * n**0.5
    x = conjugate_gradient(
        lambda x: values * x, b, precondition=lambda r: r / scale, rtol=0, atol=atol,
        max_iterations=3000,
    ).x  # fmt: skip
    assert ((values * (x - b / values).square()).sum(1).sqrt() <= atol).all()


def test_a_good_preconditioner_stops_by_energy_not_by_the_plain_residual() -> None:
    values = torch.logspace(0, 4, 400, dtype=torch.float64)
    scale = values * torch.from_numpy(np.random.default_rng(0).uniform(0.03, 1, 400))
    b = values.sqrt() * normal((4, 400), 1)
    done = {}
    for atol in (1.0, 1e-6):
        solution = conjugate_gradient(
            lambda x: values * x, b, precondition=lambda r: r / scale, rtol=0, atol=atol
        )
        done[atol] = solution.iterations
        error = solution.x - b / values
        assert ((values * error.square()).sum(1) <= atol**2).all()
        if atol == 1.0:
            assert (b - values * solution.x).norm(dim=1).min() > 3 * atol
    assert done[1.0] < done[1e-6] / 2


def test_a_member_does_not_depend_on_its_company() -> None:
    """Bit for bit; the operator is elementwise, so that its own rounding is the same."""
    diagonal = torch.logspace(0, 3, 30, dtype=torch.float64)
    easy = torch.zeros(1, 30, dtype=torch.float64)
    easy[0, 3] = 1.0
    b = torch.cat([normal((2, 30), 0), easy, 1e-8 * normal((1, 30), 1), 0 * easy])
    for atol in (0.0, 1e-3):
        whole = conjugate_gradient(lambda x: diagonal * x, b, atol=atol).x
        for i, row in enumerate(b):
            alone = conjugate_gradient(lambda x: diagonal * x, row[None], atol=atol).x
            assert torch.equal(alone[0], whole[i])


def test_zero_is_solved_by_zero() -> None:
    solution = conjugate_gradient(lambda x: 2 * x, torch.zeros(2, 5))
    assert solution.iterations == 0
    assert torch.equal(solution.x, torch.zeros(2, 5))


def test_a_singular_system_with_data_in_its_range_is_solved() -> None:
    values = torch.tensor([0.0, 0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    matrix = hermitian(values, torch.float64)
    b = normal((2, 5), 3) @ matrix
    x = conjugate_gradient(applied(matrix), b, rtol=1e-12, max_iterations=3).x
    torch.testing.assert_close(x @ matrix, b)
    torch.testing.assert_close(x, b @ torch.linalg.pinv(matrix))


def test_real_linear_operators_on_complex_fields() -> None:
    """``x -> 3 x + conj(x)`` is symmetric under ``Re <a, b>`` only."""
    b = normal((2, 6), 0, torch.complex128)
    x = conjugate_gradient(lambda x: 3 * x + x.conj(), b, rtol=1e-12).x
    torch.testing.assert_close(3 * x + x.conj(), b)


@settings(max_examples=30)
@given(st.integers(1, 10), st.sampled_from(DTYPES), st.integers(0, 99))
def test_lanczos_applies_a_function(n: int, dtype: torch.dtype, seed: int) -> None:
    values = torch.linspace(0.5, 9, n, dtype=torch.float64)
    matrix, v = hermitian(values, dtype, seed), normal((3, n), seed + 1, dtype)
    root = hermitian(values.sqrt(), dtype, seed)
    got = lanczos(applied(matrix), v, torch.sqrt, iterations=n)
    torch.testing.assert_close(got, v @ root.mT)


@every_dtype
@pytest.mark.parametrize("function", [torch.sqrt, torch.rsqrt, torch.log], ids=lambda f: f.__name__)
def test_lanczos_survives_an_exhausted_krylov_space(dtype: torch.dtype, function) -> None:
    """Two distinct eigenvalues, more iterations than dimensions, and a null vector."""
    values = torch.tensor([1.0, 1.0, 1.0, 1e4, 1e4], dtype=torch.float64)
    matrix, v = hermitian(values, dtype), normal((3, 5), 1, dtype)
    v[2] = 0
    got = lanczos(applied(matrix), v, function, iterations=12)
    torch.testing.assert_close(got, v @ hermitian(function(values), dtype).mT, rtol=1e-6, atol=1e-9)


def test_lanczos_keeps_the_shape_of_fields() -> None:
    v = normal((2, 3, 4), 0)
    torch.testing.assert_close(lanczos(lambda x: 4 * x, v, torch.sqrt, iterations=1), 2 * v)
