"""What the linear operators and their algebra do, and what they refuse."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from invdiff.errors import (
    DTypeError,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)
from invdiff.operators import (
    Composed,
    Convolution,
    Fourier,
    Identity,
    LineIntegrals,
    Lognormal,
    Mask,
    Matrix,
    Saturating,
    Scaled,
    Stacked,
)
from invdiff.operators.mri import CartesianMRI
from tests.support.operators import COMPLEX, DOUBLE, REAL, Derivative, Thinned, grid, keep, noise


def mri(*shape: int, n_coils: int = 0) -> CartesianMRI:
    g = grid(*shape)
    return CartesianMRI(keep(*shape), noise(g, n_coils) if n_coils else None, domain=g)


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


def test_lines_outside_the_field_see_nothing():
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


def test_own_operators_join_the_algebra():
    """An operator of no base class keeps its values in a composition, a stack and a product."""
    own = Thinned(grid(3, 5))
    mask = Mask(own.range, [True, False, True])
    x = noise(own.domain, 2)
    assert torch.equal((mask @ own)(x), own(x) * mask.keep)
    assert torch.equal(Stacked(own, Identity(own.domain))(x)[:, :9], own(x).flatten(1))
    assert torch.equal(Scaled(own, 2j)(x), 2j * own(x))
    assert (mask @ own).n_data == 6
    assert Stacked(own, Identity(own.domain)).n_data == 9 + 15


def test_preconditioned_solve_takes_fewer_iterations():
    g = grid(6, 7, dtype=REAL)
    operator = Mask(g, keep(6, 7)) @ Convolution.gaussian(g, 1.0)
    exact = operator.solve(b := noise(operator.domain, 2), 0.01, 0.1, rtol=1e-6)
    few = operator.solve(b, 0.01, 0.1, max_iterations=8)

    class Plain(Composed):
        gram_spectrum = None

    plain = Plain(operator.outer, operator.inner).solve(b, 0.01, 0.1, max_iterations=8)
    assert (few - exact).norm() < 0.8 * (plain - exact).norm()


def test_a_mask_solves_in_double_precision():
    operator = Mask(grid(4, dtype=DOUBLE), [1, 0, 1, 1])
    found = operator.solve(torch.ones(1, 4, dtype=DOUBLE), 0.1, 0.3)
    exact = 1 / (np.array([1, 0, 1, 1]) / 0.09 + 0.1)
    np.testing.assert_allclose(found[0], exact, rtol=1e-15)


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
    operator = Stacked(mri(8, 6, n_coils=3), mri(8, 6), Mask(grid(8, 6), keep(8, 6)))
    moved = operator.to("meta")
    x = torch.zeros(1, 8, 6, dtype=COMPLEX, device="meta")
    assert moved(x).device.type == moved.gram(x).device.type == "meta"
    assert operator(x.new_zeros(x.shape, device="cpu")).device.type == "cpu"


def test_to_moves_the_linear_operator_of_a_nonlinear_one():
    operator = Saturating(Mask(grid(4, dtype=REAL), [1, 0, 1, 1]), 2.0)
    assert operator.to("meta")(torch.zeros(1, 4, device="meta")).device.type == "meta"


# Arrays and numbers of every kind.

KERNEL = [[1, 2, 0], [0, -3, 4]]


@settings(max_examples=40)
@given(
    dtype=st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]),
    order=st.sampled_from("<>"),
    wrap=st.sampled_from([np.array, xr.DataArray, np.asfortranarray, np.ndarray.tolist]),
)
def test_arrays_of_any_dtype_and_byte_order_keep_their_values(dtype, order, wrap):
    g = grid(4, 5, dtype=REAL)
    values = np.abs(KERNEL) if dtype.startswith("u") else np.array(KERNEL)
    given_kernel = wrap(values.astype(order + dtype))
    expected = Convolution(g, torch.tensor(values, dtype=REAL))
    assert torch.equal(Convolution(g, given_kernel).transfer, expected.transfer)
    rows = wrap(np.arange(40).reshape(2, 20).astype(order + dtype))
    assert torch.equal(Matrix(rows, g).matrix, torch.arange(40.0).reshape(2, 20))
    mask = wrap((np.arange(5) % 2).astype(order + dtype))
    assert Mask(g, mask).keep.tolist() == 4 * [[False, True, False, True, False]]


def test_complex_big_endian_arrays_keep_their_values():
    values = (np.arange(6).reshape(2, 3) + 1j).astype(">c16")
    assert Matrix(values, grid(3)).matrix.tolist() == values.tolist()


def test_sparse_matrices_are_made_dense():
    operator = Matrix(torch.eye(3).to_sparse(), grid(3, dtype=REAL))
    assert torch.equal(operator.matrix, torch.eye(3))


def test_arrays_are_copied():
    kernel = np.array([1.0, 2.0, 3.0], np.float32)
    operator = Matrix(kernel[None], grid(3, dtype=REAL))
    kernel[:] = 0
    assert operator.matrix.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("std", [2, np.int64(2), np.float64(2), np.float32(2), torch.tensor(2.0)])
def test_blur_widths_of_any_number(std):
    g = grid(6, 7, dtype=REAL)
    assert torch.equal(Convolution.gaussian(g, std).transfer, Convolution.gaussian(g, 2.0).transfer)


@pytest.mark.parametrize("factor", [2, np.int64(2), np.float32(2), np.float64(2)])
def test_factors_of_any_number(factor):
    operator = factor * Identity(grid(3, dtype=REAL))
    assert isinstance(operator, Scaled)
    assert operator.factor == 2.0
    assert isinstance(operator.factor, float)
    assert isinstance((np.complex64(1j) * Identity(grid(3))).factor, complex)


@pytest.mark.parametrize("angles", [np.array([0, 1], ">f4"), np.array([0, 1]), torch.arange(2)])
def test_angles_and_counts_of_any_number(angles):
    g = grid(4, 5, dtype=REAL)
    expected = LineIntegrals(g, [0.0, 1.0], 3)
    found = LineIntegrals(g, angles, np.int16(3))
    assert torch.equal(found.matrix.to_dense(), expected.matrix.to_dense())
    assert found.range == expected.range


# Bad input.

REAL3 = grid(3, dtype=REAL)
BAD = {
    "mask of zeros": (lambda: Mask(grid(3, 4), torch.zeros(3, 4)), InputError, "empty"),
    "mask of halves": (lambda: Mask(grid(3, 4), torch.full((3, 4), 0.5)), InputError, r"0\.5"),
    "mask of NaN": (lambda: Mask(grid(3), [1.0, np.nan, 0.0]), InputError, "1 other"),
    "mask transposed": (lambda: Mask(grid(3, 4), torch.ones(4, 3)), ShapeError, "broadcastable"),
    "mask of text": (lambda: Mask(grid(3), "keep"), DTypeError, "'keep'"),
    "mask of objects": (lambda: Mask(grid(3), [None, 1, 0]), DTypeError, "numbers"),
    "mask ragged": (lambda: Mask(grid(3), [[1, 0], [1]]), DTypeError, "numbers"),
    "mask of dates": (lambda: Mask(grid(3), np.zeros(3, "M8[s]")), DTypeError, "numbers"),
    "mask with masked values": (
        lambda: Mask(grid(3), np.ma.masked_array([1, 1, 1], mask=[1, 0, 0])),
        InputError,
        "MaskedArray",
    ),
    "mask swapped": (lambda: Mask(torch.ones(3), grid(3)), InputError, r"Mask\(domain, keep\)"),
    "identity of a shape": (lambda: Identity((3, 4)), InputError, r"Identity\(domain\)"),
    "matrix too wide": (lambda: Matrix(torch.ones(2, 3), grid(4, dtype=REAL)), ShapeError, "2, 4"),
    "matrix of one number": (lambda: Matrix(1.0, REAL3), ShapeError, "3"),
    "matrix real": (lambda: Matrix(torch.ones(2, 4), grid(4)), DTypeError, "matrix is real"),
    "matrix complex": (lambda: Matrix(torch.ones(2, 3) * 1j, REAL3), DTypeError, "is complex"),
    "matrix range": (
        lambda: Matrix(torch.ones(3, 3), REAL3, grid(3)),
        DTypeError,
        "all real or all complex",
    ),
    "matrix range shape": (lambda: Matrix(torch.ones(3, 3), REAL3, (3,)), InputError, "range of"),
    "matrix of NaN": (lambda: Matrix(torch.full((2, 3), np.nan), REAL3), NonFiniteError, "6 of 6"),
    "matrix too fine": (lambda: Matrix([[2**24 + 1, 0, 0]], REAL3), InputError, "cannot hold"),
    "matrix too large": (lambda: Matrix([[1e300, 0, 0]], REAL3), InputError, "cannot hold"),
    "matrix of uint64": (
        lambda: Matrix(np.array([[2**64 - 1, 0, 0]], np.uint64), REAL3),
        DTypeError,
        "uint64",
    ),
    "matrix of long doubles": (
        lambda: Matrix(np.ones((2, 3), np.longdouble), REAL3),
        DTypeError,
        "float128",
    ),
    "matrix swapped": (
        lambda: Matrix(REAL3, torch.ones(2, 3)),
        InputError,
        r"Matrix\(matrix, domain, range\)",
    ),
    "kernel too long": (lambda: Convolution(REAL3, torch.ones(4)), ShapeError, "at most"),
    "kernel real": (lambda: Convolution(grid(3), torch.ones(3)), DTypeError, "kernel is real"),
    "kernel of text": (lambda: Convolution(REAL3, ["a"]), DTypeError, "kernel"),
    "kernel swapped": (
        lambda: Convolution(torch.ones(3), REAL3),
        InputError,
        r"Convolution\(domain, kernel\)",
    ),
    "blur of none": (lambda: Convolution.gaussian(grid(3), 0.0), InputError, "std"),
    "blur of NaN": (lambda: Convolution.gaussian(grid(3), np.nan), InputError, "std"),
    "blur of text": (lambda: Convolution.gaussian(grid(3), "1"), InputError, "std"),
    "blur swapped": (lambda: Convolution.gaussian(1.0, grid(3)), InputError, "not a Grid"),
    "fourier real": (lambda: Fourier(REAL3), DTypeError, "complex domain"),
    "fourier of text": (lambda: Fourier("x"), InputError, r"Fourier\(domain\)"),
    "composed shapes": (lambda: Identity(grid(3)) @ Identity(grid(4)), ShapeError, "compose"),
    "composed dtypes": (lambda: Identity(grid(3)) @ Identity(REAL3), DTypeError, "compose"),
    "composed nonlinear": (
        lambda: Identity(REAL3) @ Lognormal(Identity(REAL3)),
        UnsupportedError,
        "not linear",
    ),
    "composed with a field": (lambda: Identity(grid(3)) @ noise(grid(3)), InputError, "operator"),
    "factor complex": (lambda: 1j * Identity(REAL3), DTypeError, "complex factor"),
    "factor NaN": (lambda: np.nan * Identity(REAL3), InputError, "finite"),
    "factor of text": (lambda: "2" * Identity(REAL3), InputError, "'2'"),
    "factor a field": (lambda: torch.ones(1, 3) * Identity(REAL3), InputError, r"A\(x\)"),
    "stack of none": (lambda: Stacked(), InputError, "nothing"),
    "stack of a list": (lambda: Stacked([Identity(grid(3))]), InputError, "operator"),
    "stacked shapes": (lambda: Stacked(Identity(grid(3)), Identity(grid(4))), ShapeError, "domain"),
    "stacked dtypes": (lambda: Stacked(Identity(grid(3)), Identity(REAL3)), DTypeError, "dtypes"),
    "applied to an array": (
        lambda: Identity(REAL3)(np.ones((1, 3), np.float32)),
        DTypeError,
        "torch.from_numpy",
    ),
    "applied to a DataArray": (
        lambda: Identity(REAL3).adjoint(xr.DataArray(np.ones((1, 3)))),
        DTypeError,
        "DataArray",
    ),
    "solve of no noise": (
        lambda: Identity(grid(3)).solve(noise(grid(3)), 1.0, 0.0),
        NoiseLevelError,
        "> 0",
    ),
    "lines in 1-D": (lambda: LineIntegrals(grid(3), [0.0], 2), ShapeError, "plane"),
    "lines of no angle": (lambda: LineIntegrals(grid(3, 3), [], 2), InputError, "angles"),
    "lines of NaN": (lambda: LineIntegrals(grid(3, 3), [np.nan], 2), InputError, "angles"),
    "lines of one angle": (lambda: LineIntegrals(grid(3, 3), 0.3, 2), InputError, "angles"),
    "lines of text": (lambda: LineIntegrals(grid(3, 3), "all", 2), DTypeError, "angles"),
    "lines of no offset": (lambda: LineIntegrals(grid(3, 3), [0.0], 0), InputError, "n_offsets"),
    "lines of 2.5": (lambda: LineIntegrals(grid(3, 3), [0.0], 2.5), InputError, "n_offsets"),
    "lines swapped": (
        lambda: LineIntegrals([0.0], grid(3, 3), 2),
        InputError,
        r"LineIntegrals\(domain, angles, n_offsets\)",
    ),
}


@pytest.mark.parametrize(("make", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(make, error, words):
    with pytest.raises(error, match="got") as caught:
        make()
    assert caught.match(words)
