"""The laws of linear operators, over a registry of all of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NoiseLevelError, NonFiniteError, ShapeError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators import checks
from invdiff.operators.linear import (
    Composed,
    Convolution,
    Fourier,
    HandWritten,
    Identity,
    Linear,
    Mask,
    Matrix,
    Scaled,
    Stacked,
)
from invdiff.operators.mri import CartesianMRI
from invdiff.operators.nonlinear import BlackBox, Lognormal, Saturating
from invdiff.operators.radon import LineIntegrals
from invdiff.protocols import LinearOperator, Operator

TOLERANCE = 2e-6  # float32: a few roundings of sums over some hundred values


def grid(*shape: int, dtype: torch.dtype = torch.complex64) -> Grid:
    return Grid(("t", "z", "y", "x")[-len(shape) :], shape, dtype)


def noise(g: Grid, n: int = 1, stream: int = 7) -> Tensor:
    return NoiseField(5)(g, range(n), 0, stream=stream)


def keep(*shape: int, fraction: float = 0.5, seed: int = 0) -> Tensor:
    mask = torch.from_numpy(np.random.default_rng(seed).random(shape) < fraction)
    mask[(0,) * len(shape)] = True
    return mask


def mri(*shape: int, n_coils: int = 0, lines: bool = False) -> CartesianMRI:
    g = grid(*shape)
    mask = keep(*(1,) * (len(shape) - 1), shape[-1]) if lines else keep(*shape)
    return CartesianMRI(mask, noise(g, n_coils) if n_coils else None, domain=g)


def matrix(m: int, *shape: int, dtype: torch.dtype = torch.complex64) -> Matrix:
    g = grid(*shape, dtype=dtype)
    return Matrix(noise(Grid(("row", "column"), (m, g.size), dtype))[0], g)


class Derivative(HandWritten):
    """Periodic difference along the last axis, in numpy: torch cannot differentiate it."""

    def __init__(self, domain: Grid) -> None:
        super().__init__(domain, domain)

    def _forward(self, x: Tensor) -> Tensor:
        values = x.detach().numpy()
        return torch.from_numpy(np.roll(values, -1, -1) - values)

    def _adjoint(self, y: Tensor) -> Tensor:
        values = y.detach().numpy()
        return torch.from_numpy(np.roll(values, 1, -1) - values)


REAL, COMPLEX = torch.float32, torch.complex64
blur = Convolution.gaussian
REGISTRY: dict[str, Callable[[], Linear]] = {
    "identity": lambda: Identity(grid(4, 5, dtype=REAL)),
    "mask-real": lambda: Mask(grid(6, 7, dtype=REAL), keep(6, 7)),
    "mask-complex": lambda: Mask(grid(5, 4), keep(1, 4)),
    "mask-float": lambda: Mask(grid(5, 4), keep(5, 4).float()),
    "matrix-real": lambda: matrix(7, 3, 4, dtype=REAL),
    "matrix-complex": lambda: matrix(9, 7),
    "convolution-real-even": lambda: Convolution(
        grid(6, 8, dtype=REAL), noise(grid(3, 2, dtype=REAL))[0]
    ),
    "convolution-real-odd": lambda: Convolution(
        grid(5, 7, dtype=REAL), noise(grid(5, 3, dtype=REAL))[0]
    ),
    "convolution-complex-3d": lambda: Convolution(grid(3, 4, 5), noise(grid(3, 3, 4))[0]),
    "gaussian-1d": lambda: blur(grid(16, dtype=REAL), 1.5),
    "gaussian-2d": lambda: blur(grid(6, 9, dtype=REAL), 0.8),
    "fourier-even": lambda: Fourier(grid(4, 6)),
    "fourier-odd": lambda: Fourier(grid(5, 3, 3)),
    "adjoint": lambda: matrix(9, 3, 4).H,
    "adjoint-convolution": lambda: Convolution(grid(5, 4), noise(grid(3, 3))[0]).H,
    "scaled": lambda: (0.5 + 2j) * mri(5, 6, n_coils=2),
    "scaled-real": lambda: 3.0 * matrix(5, 6, dtype=REAL),
    "masked-blur": lambda: (
        Mask(grid(6, 7, dtype=REAL), keep(6, 7)) @ blur(grid(6, 7, dtype=REAL), 1.0)
    ),
    "blur-twice": lambda: blur(grid(6, 7, dtype=REAL), 1.0) @ blur(grid(6, 7, dtype=REAL), 0.5),
    "masked-fourier": lambda: Mask(Fourier(grid(6, 5)).range, keep(6, 5)) @ Fourier(grid(6, 5)),
    "stacked": lambda: Stacked(mri(5, 6, n_coils=2), mri(5, 6), Identity(grid(5, 6))),
    "stacked-circulant": lambda: Stacked(
        Identity(grid(5, dtype=REAL)), blur(grid(5, dtype=REAL), 1)
    ),
    "hand-written": lambda: Derivative(grid(3, 6, dtype=REAL)),
    "hand-written-adjoint": lambda: Derivative(grid(3, 5)).H,
    "lines-real": lambda: LineIntegrals(grid(6, 7, dtype=REAL), [0.0, 0.3, 2.0], 5),
    "lines-complex": lambda: LineIntegrals(grid(5, 4), [0.7, np.pi / 2], 6),
    "mri-single-even": lambda: mri(8, 6),
    "mri-single-odd": lambda: mri(7, 5),
    "mri-single-3d": lambda: mri(4, 5, 6),
    "mri-multi-even": lambda: mri(8, 6, n_coils=3),
    "mri-multi-mixed": lambda: mri(8, 9, n_coils=2),
    "mri-multi-odd": lambda: mri(7, 9, n_coils=1),
    "mri-multi-3d": lambda: mri(3, 4, 5, n_coils=2),
    "mri-lines": lambda: mri(8, 9, n_coils=2, lines=True),
    "mri-lines-3d": lambda: mri(3, 4, 7, n_coils=2, lines=True),
    "mri-full": lambda: CartesianMRI(torch.ones(1, 1), noise(grid(5, 6), 2)),
}
OPERATORS = [pytest.param(make, id=name) for name, make in REGISTRY.items()]
every_operator = pytest.mark.parametrize("make", OPERATORS)


@every_operator
def test_is_a_linear_operator(make):
    operator = make()
    assert isinstance(operator, LinearOperator)
    assert 0 < operator.n_data <= operator.range.size
    assert len(repr(operator)) < 200


@every_operator
def test_adjoint(make):
    assert checks.adjoint_error(make()) < TOLERANCE


@every_operator
def test_adjoint_of_the_adjoint(make):
    operator = make()
    x = noise(operator.domain, 2)
    torch.testing.assert_close(operator.H.H(x), operator(x))
    assert checks.adjoint_error(operator.H) < TOLERANCE


@every_operator
def test_linearity(make):
    assert checks.linearity_error(make()) < TOLERANCE


@every_operator
def test_gram(make):
    assert checks.gram_error(make()) < TOLERANCE


@every_operator
def test_vjp_is_the_adjoint(make):
    assert checks.vjp_error(make()) < TOLERANCE


@every_operator
def test_members_do_not_depend_on_their_batch(make):
    assert checks.batch_error(make()) < TOLERANCE


@every_operator
def test_dtype_and_device_are_kept(make):
    checks.check_kind(make())


@every_operator
def test_gram_spectrum_is_the_explicit_diagonal(make):
    operator = make()
    if operator.gram_spectrum is None:
        assert not operator.is_circulant
        return
    assert checks.spectrum_error(operator) < TOLERANCE


@every_operator
def test_solve(make):
    operator = make()
    # Closed forms to rounding; conjugate gradients stop at their relative tolerance of 1e-5.
    assert checks.solve_error(operator, 0.7, 0.5) < 3e-5


@every_operator
def test_shapes_and_kinds_are_checked(make):
    operator = make()
    with pytest.raises(ShapeError):
        operator(torch.zeros(operator.domain.shape, dtype=operator.domain.dtype))
    with pytest.raises(DTypeError):
        operator.adjoint(
            torch.zeros(
                1, *operator.range.shape, dtype=REAL if operator.range.is_complex else COMPLEX
            )
        )


def test_the_registry_knows_what_is_circulant():
    circulant = {name for name, make in REGISTRY.items() if make().is_circulant}
    assert {"gaussian-2d", "mri-single-odd", "mri-single-3d", "blur-twice"} <= circulant
    assert "mri-multi-odd" not in circulant
    assert "masked-blur" not in circulant


@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    n_coils=st.integers(0, 3),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_mri_laws_for_any_shape_and_mask(shape, n_coils, fraction, seed):
    g = grid(*shape)
    maps = noise(g, n_coils) if n_coils else None
    operator = CartesianMRI(keep(*shape, fraction=fraction, seed=seed), maps, domain=g)
    # One point may be all there is: inner products of few values cancel to within 1e-5.
    assert checks.adjoint_error(operator) < 1e-5
    assert checks.gram_error(operator) < 1e-5
    assert checks.spectrum_error(operator) < 1e-5


@settings(max_examples=20)
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), data=st.data())
def test_convolution_laws_for_any_kernel(shape, data):
    kernel = [data.draw(st.integers(1, n)) for n in shape]
    operator = Convolution(grid(*shape, dtype=REAL), noise(grid(*kernel, dtype=REAL))[0])
    assert checks.adjoint_error(operator) < 1e-5
    assert checks.spectrum_error(operator) < 1e-5


# What the operators do, not only that they are consistent.


def test_convolution_by_hand():
    g = grid(5, dtype=REAL)
    operator = Convolution(g, torch.tensor([1.0, 2.0, 3.0]))  # origin at index 1
    x = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(operator(x), torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0]]))


def test_fourier_of_a_constant_is_the_centre():
    for shape in [(4, 6), (5, 3), (3, 4, 5)]:
        y = Fourier(grid(*shape))(torch.ones(1, *shape, dtype=COMPLEX))[0]
        centre = tuple(n // 2 for n in shape)
        assert y[centre].real == pytest.approx(np.prod(shape) ** 0.5, rel=1e-6)
        y[centre] = 0
        assert y.abs().max() < 1e-5


def test_line_integrals_of_a_gaussian():
    """``sqrt(2 pi) s exp(-(offset - c)^2 / 2 s^2)`` at any angle; bilinear weights widen it."""
    n, s, centre = 32, 4.0, (2.0, -1.0)
    g = grid(n, n, dtype=torch.float64)
    axis = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    field = torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * s**2))
    operator = LineIntegrals(g, [0.0, 0.4, np.pi / 2, 3.0], 16)
    angle, offset = (torch.from_numpy(operator.range.coords[d]) for d in operator.range.dims)
    along = centre[1] * torch.cos(angle) + centre[0] * torch.sin(angle)
    exact = torch.exp(-((offset - along[:, None]) ** 2) / (2 * s**2)) * (2 * np.pi) ** 0.5 * s
    # Linear interpolation errs by at most h^2 / 8 times the curvature, 1 / s^2, along each axis.
    bound = 2 * float(exact.max()) / (8 * s**2)
    assert (operator(field[None])[0] - exact).abs().max() < bound
    assert offset[1] - offset[0] == n / 16


def test_lines_beside_the_field_see_nothing():
    operator = LineIntegrals(grid(3, 30, dtype=REAL), [np.pi / 2], 30)
    y = operator(torch.ones(1, 3, 30))[0, 0]
    assert (y[:13] == 0).all()
    assert y[14] == pytest.approx(30, rel=0.1)


def test_n_data_counts_what_is_measured():
    mask = keep(6, 7)
    operator = Mask(grid(6, 7), mask)
    assert operator.n_data == int(mask.sum()) < 42
    assert (operator @ Fourier(grid(6, 7))).n_data == operator.n_data
    assert Stacked(operator, Identity(grid(6, 7))).n_data == operator.n_data + 42


def test_preconditioned_solve_takes_fewer_iterations():
    operator = REGISTRY["masked-blur"]()
    exact = operator.solve(b := noise(operator.domain, 2), 0.01, 0.1, rtol=1e-6)
    few = operator.solve(b, 0.01, 0.1, max_iterations=8)

    class Plain(Composed):
        gram_spectrum = None

    plain = Plain(operator.outer, operator.inner).solve(b, 0.01, 0.1, max_iterations=8)
    assert (few - exact).norm() < 0.8 * (plain - exact).norm()


# torch.func's forward mode loads scripted decompositions, which torch itself deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
def test_hand_written_differentiates_twice_and_forward():
    operator = Derivative(grid(6, dtype=REAL))
    x, v = noise(operator.domain, 2)
    x, v = x[None], v[None]

    def energy(field: Tensor) -> Tensor:
        return 0.5 * operator(field).square().sum()

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x), x, create_graph=True)
    (hessian_v,) = torch.autograd.grad(gradient, x, v)
    torch.testing.assert_close(gradient.detach(), operator.gram(x).detach())
    torch.testing.assert_close(hessian_v, operator.gram(v))
    _, tangent = torch.func.jvp(operator, (x.detach(),), (v,))
    torch.testing.assert_close(tangent, operator(v))


def test_to_moves_every_tensor_and_leaves_the_original():
    operator = Stacked(REGISTRY["mri-multi-even"](), REGISTRY["mri-single-even"]())
    moved = operator.to("meta")
    x = torch.zeros(1, 8, 6, dtype=COMPLEX, device="meta")
    assert moved(x).device.type == moved.gram(x).device.type == "meta"
    assert operator(x.new_zeros(x.shape, device="cpu")).device.type == "cpu"


# The checks themselves: each must see the fault it is for.


class Faulty(Linear):
    """``x -> 2 x`` with chosen faults."""

    def __init__(self, domain: Grid, adjoint: float = 2.0, offset: float = 0.0) -> None:
        super().__init__(domain, domain)
        self.factor, self.offset = adjoint, offset

    def _forward(self, x: Tensor) -> Tensor:
        return 2 * x + self.offset * x.mean(0)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor * y

    def gram(self, x: Tensor) -> Tensor:
        return 4 * x

    @property
    def gram_spectrum(self) -> Tensor:
        return torch.full(self.domain.shape, 2.0 * self.factor)


def test_checks_see_faults():
    wrong = Faulty(grid(4, 5, dtype=REAL), adjoint=1.9)
    assert checks.adjoint_error(wrong) > 1e-3
    assert checks.gram_error(wrong) > 1e-3
    assert checks.vjp_error(wrong) > 1e-3
    assert checks.spectrum_error(wrong) > 1e-3
    assert checks.batch_error(Faulty(grid(4, 5, dtype=REAL), offset=0.1)) > 1e-3


class Quadratic:
    """``x -> x^2`` whose gradient may be off by a factor."""

    def __init__(self, factor: float) -> None:
        self.domain = self.range = grid(4, dtype=torch.float64)
        self.n_data, self.factor = 4, factor

    def __call__(self, x: Tensor) -> Tensor:
        y = x**2
        return self.factor * y + (1 - self.factor) * y.detach()


def test_taylor_slope_and_linearity_of_a_nonlinear_operator():
    x, d = noise(grid(4, dtype=torch.float64), 2).split(1)
    assert checks.taylor_slope(Quadratic(1.0), x, d) == pytest.approx(2, abs=0.01)
    assert checks.taylor_slope(Quadratic(0.9), x, d) < 1.5
    assert checks.linearity_error(Quadratic(1.0)) > 0.1


def test_check_kind_sees_a_changed_dtype():
    operator = Identity(grid(3, dtype=REAL))
    operator.domain = grid(3, dtype=torch.float64)
    with pytest.raises(DTypeError, match="dtype"):
        checks.check_kind(Scaled(operator, 2.0))


# Nonlinear operators.

DOUBLE = torch.float64
NONLINEAR: dict[str, Callable[[Grid], Operator]] = {
    "saturating": lambda g: Saturating(Mask(g, keep(*g.shape)), 0.8),
    "saturating-lines": lambda g: Saturating(LineIntegrals(g, [0.2, 1.0], 4), 2.0),
    "lognormal": lambda g: Lognormal(blur(g, 1.0), log_mean=-0.5, log_std=0.7),
}
every_nonlinear = pytest.mark.parametrize("make", NONLINEAR.values(), ids=NONLINEAR)


@every_nonlinear
def test_taylor_slope(make):
    operator = make(grid(5, 6, dtype=DOUBLE))
    x, d = noise(operator.domain, 4).split(2)
    steps = (1e-2, 3e-3, 1e-3, 3e-4)
    assert checks.taylor_slope(operator, x, d, steps=steps) == pytest.approx(2, abs=0.1)
    assert checks.linearity_error(operator) > 0.01


@every_nonlinear
@pytest.mark.parametrize("dtype", [REAL, DOUBLE], ids=str)
def test_nonlinear_operators_are_operators(make, dtype):
    operator = make(grid(5, 6, dtype=dtype))
    assert isinstance(operator, Operator)
    assert not isinstance(operator, LinearOperator)
    assert getattr(operator, "is_differentiable", True)
    assert operator.n_data == operator.linear.n_data
    assert operator(noise(operator.domain)).dtype == operator.range.dtype == dtype
    assert checks.batch_error(operator) < TOLERANCE
    with pytest.raises(ShapeError):
        operator(torch.zeros(5, 6, dtype=dtype))


def test_what_the_nonlinear_operators_do():
    g = grid(4, 4, dtype=DOUBLE)
    x, a = noise(g, 3), Mask(g, keep(4, 4))
    torch.testing.assert_close(Saturating(a, 1e4)(x), a(x), rtol=1e-7, atol=0)
    assert Saturating(a, 0.3)(100 * x).abs().max() == pytest.approx(0.3)
    assert torch.equal(Saturating(a, 0.3).measured, a.keep)
    expected = a(torch.exp(0.2 + 0.5 * x))
    torch.testing.assert_close(Lognormal(a, log_mean=0.2, log_std=0.5)(x), expected)


def test_a_black_box_has_no_gradient():
    g = grid(4, dtype=DOUBLE)
    box = BlackBox(lambda x: x.cumsum(1)[:, ::2], g, grid(2, dtype=DOUBLE))
    x = noise(g, 2).requires_grad_()
    assert isinstance(box, Operator)
    assert not box.is_differentiable
    assert box.n_data == 2
    assert checks.batch_error(box) < TOLERANCE
    with pytest.raises(RuntimeError, match="does not require grad"):
        box(x).sum().backward()
    with pytest.raises(ShapeError, match="black box"):
        BlackBox(lambda x: x, g, grid(2, dtype=DOUBLE))(x)
    with pytest.raises(DTypeError, match="black box"):
        BlackBox(lambda x: x * 1j, g, g)(x)


# Bad input.


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Mask(grid(3, 4), torch.zeros(3, 4)), InputError),
        (lambda: Mask(grid(3, 4), torch.full((3, 4), 0.5)), InputError),
        (lambda: Mask(grid(3, 4), torch.ones(4, 3)), ShapeError),
        (lambda: Matrix(torch.ones(2, 3), grid(4, dtype=REAL)), ShapeError),
        (lambda: Matrix(torch.ones(2, 4), grid(4)), DTypeError),
        (lambda: Matrix(torch.full((2, 4), torch.nan), grid(4, dtype=REAL)), NonFiniteError),
        (lambda: Convolution(grid(3, dtype=REAL), torch.ones(4)), ShapeError),
        (lambda: Convolution(grid(3), torch.ones(3)), DTypeError),
        (lambda: Convolution.gaussian(grid(3), 0.0), InputError),
        (lambda: Fourier(grid(3, dtype=REAL)), DTypeError),
        (lambda: Identity(grid(3)) @ Identity(grid(4)), ShapeError),
        (lambda: Identity(grid(3)) @ Identity(grid(3, dtype=REAL)), DTypeError),
        (lambda: 1j * Identity(grid(3, dtype=REAL)), DTypeError),
        (lambda: Stacked(), InputError),
        (lambda: Stacked(Identity(grid(3)), Identity(grid(4))), ShapeError),
        (lambda: Stacked(Identity(grid(3)), Identity(grid(3, dtype=REAL))), DTypeError),
        (lambda: Identity(grid(3)).solve(noise(grid(3)), 1.0, 0.0), NoiseLevelError),
        (lambda: LineIntegrals(grid(3), [0.0], 2), ShapeError),
        (lambda: LineIntegrals(grid(3, 3), [], 2), InputError),
        (lambda: LineIntegrals(grid(3, 3), [np.nan], 2), InputError),
        (lambda: LineIntegrals(grid(3, 3), [0.0], 0), InputError),
        (lambda: Saturating(Identity(grid(3)), 1.0), DTypeError),
        (lambda: Saturating(Identity(grid(3, dtype=REAL)), 0.0), InputError),
        (lambda: Lognormal(Identity(grid(3, dtype=REAL)), log_std=-1.0), InputError),
    ],
)
def test_bad_input_is_refused(make, error):
    with pytest.raises(error, match="got"):
        make()
