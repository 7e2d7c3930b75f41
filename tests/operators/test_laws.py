"""The laws of operators, over one registry of all of them, for any shape and precision."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invdiff.completion import completed, declares_linear
from invdiff.errors import DTypeError, ShapeError
from invdiff.grid import Grid
from invdiff.operators import (
    BlackBox,
    Convolution,
    Fourier,
    Identity,
    LineIntegrals,
    Lognormal,
    Magnitude,
    Mask,
    Matrix,
    Saturating,
    Scaled,
    Select,
    Stacked,
    check_operator,
    checks,
)
from invdiff.operators.atmosphere import AreaMean, Stations
from invdiff.operators.mri import CartesianMRI
from invdiff.protocols import LinearOperator, Operator
from invdiff.run_state import identity
from tests.support.operators import (
    COMPLEX,
    REAL,
    Declared,
    Derivative,
    Thinned,
    grid,
    keep,
    noise,
)


@dataclass(frozen=True)
class Case:
    """How to make an operator on a grid, of which dtype, and of how many axes."""

    make: Callable[[Grid], Operator]
    dtype: torch.dtype
    axes: tuple[int, int] = (1, 3)
    is_circulant: bool | None = False
    """None where it depends on the shape."""


def matrix(g: Grid, n_rows: int = 7) -> Matrix:
    return Matrix(noise(Grid(("row", "column"), (n_rows, g.size), g.dtype))[0], g)


def filter_of(g: Grid) -> Convolution:
    """A random kernel of about half the width, even and odd."""
    shape = tuple(n // 2 + 1 for n in g.shape)
    return Convolution(g, noise(Grid(g.dims, shape, g.dtype))[0])


def mri(g: Grid, n_coils: int = 0, *, lines: bool = False) -> CartesianMRI:
    mask = keep(*(1,) * (g.ndim - 1), g.shape[-1]) if lines else keep(*g.shape)
    return CartesianMRI(mask, noise(g, n_coils) if n_coils else None, domain=g)


def masked(g: Grid) -> Mask:
    return Mask(g, keep(*g.shape))


def globe(g: Grid) -> Grid:
    """The grid with latitudes from the north and longitudes around the globe as its last axes."""
    n_lat, n_lon = g.shape[-2:]
    coords = {"lat": np.linspace(80, -80, n_lat), "lon": np.arange(n_lon) * 360 / n_lon}
    return Grid((*g.dims[:-2], "lat", "lon"), g.shape, g.dtype, coords)


def stations(g: Grid) -> Stations:
    """Five stations, in the grid's only latitude where it has but one, at its only longitude."""
    n_lat, n_lon = g.shape[-2:]
    lat = np.linspace(-75.0, 71, 5) if n_lat > 1 else np.full(5, 80.0)
    lon = np.linspace(-170.0, 140, 5) if n_lon > 1 else np.zeros(5)
    one = slice(0, 1) if n_lat == n_lon == 1 else slice(None)
    return Stations(globe(g), lat[one], lon[one])


def area_mean(g: Grid) -> AreaMean:
    return AreaMean(globe(g), tuple(next(f for f in (3, 2, n) if n % f == 0) for n in g.shape[-2:]))


blur, F, C, IMAGE = Convolution.gaussian, REAL, COMPLEX, (2, 3)
LINEAR = {
    "identity": Case(Identity, F, is_circulant=True),
    "mask-real": Case(masked, F, is_circulant=None),
    "mask-complex": Case(lambda g: Mask(g, keep(g.shape[-1])), C, is_circulant=None),
    "mask-float": Case(lambda g: Mask(g, keep(*g.shape).float()), C, is_circulant=None),
    "select": Case(lambda g: Select(g, g.dims[-1], range(0, g.shape[-1], 2)), F),
    "select-complex": Case(lambda g: Select(g, g.dims[0], [g.shape[0] - 1]), C),
    "stations": Case(stations, F, IMAGE),
    "stations-complex": Case(stations, C, IMAGE),
    "area-mean": Case(area_mean, F, IMAGE),
    "matrix-real": Case(matrix, F),
    "matrix-complex": Case(matrix, C),
    "convolution-real": Case(filter_of, F, is_circulant=True),
    "convolution-complex": Case(filter_of, C, is_circulant=True),
    "gaussian": Case(lambda g: blur(g, 0.8), F, is_circulant=True),
    "fourier": Case(Fourier, C, is_circulant=True),
    "adjoint": Case(lambda g: matrix(g).H, C),
    "adjoint-convolution": Case(lambda g: filter_of(g).H, C, is_circulant=True),
    "scaled": Case(lambda g: (0.5 + 2j) * mri(g, 2), C, IMAGE),
    "scaled-real": Case(lambda g: 3.0 * matrix(g), F),
    "masked-blur": Case(lambda g: masked(g) @ blur(g, 1.0), F, is_circulant=None),
    "blur-twice": Case(lambda g: blur(g, 1.0) @ blur(g, 0.5), F, is_circulant=True),
    "masked-fourier": Case(lambda g: masked(Fourier(g).range) @ Fourier(g), C, is_circulant=None),
    "stacked": Case(lambda g: Stacked(mri(g, 2), mri(g), Identity(g)), C, IMAGE),
    "stacked-circulant": Case(lambda g: Stacked(Identity(g), blur(g, 1)), F, is_circulant=True),
    "hand-written": Case(Derivative, F),
    "hand-written-adjoint": Case(lambda g: Derivative(g).H, C),
    "lines-real": Case(lambda g: LineIntegrals(g, [0.0, 0.3, 2.0], 5), F, (2, 2)),
    "lines-complex": Case(lambda g: LineIntegrals(g, [0.7, np.pi / 2], 6), C, (2, 2)),
    "mri-single": Case(mri, C, IMAGE, is_circulant=True),
    "mri-multi": Case(lambda g: mri(g, 3), C, IMAGE),
    "mri-one-coil": Case(lambda g: mri(g, 1), C, IMAGE),
    "mri-lines": Case(lambda g: mri(g, 2, lines=True), C, IMAGE),
    "mri-full": Case(lambda g: CartesianMRI(torch.ones(1, 1), noise(g, 2), domain=g), C, (2, 2)),
    "own-composed": Case(lambda g: masked(Thinned(g).range) @ Thinned(g), C),
    "own-stacked": Case(lambda g: Stacked(2j * Identity(g), Declared(g)), C),
    "own-scaled": Case(lambda g: Scaled(Thinned(g), 2.0), F),
}
OWN = {
    "own-adjoint": Case(Thinned, F),
    "own-adjoint-complex": Case(Thinned, C),
    "own-declared": Case(Declared, F),
    "own-declared-complex": Case(Declared, C),
}
NONLINEAR = {
    "saturating": Case(lambda g: Saturating(masked(g), 0.8), F),
    "saturating-lines": Case(lambda g: Saturating(LineIntegrals(g, [0.2, 1.0], 4), 2.0), F, (2, 2)),
    "saturating-own": Case(lambda g: Saturating(Thinned(g), 0.8), F),
    "saturating-softsign": Case(
        lambda g: Saturating(masked(g), 0.8, torch.nn.functional.softsign), F
    ),
    "saturating-arctan": Case(lambda g: Saturating(masked(g), 0.8, torch.atan), F),
    "lognormal": Case(lambda g: Lognormal(blur(g, 1.0), log_mean=-0.5, log_std=0.7), F),
    "magnitude": Case(lambda g: Magnitude(matrix(g)), C),
    "magnitude-mri": Case(lambda g: Magnitude(mri(g)), C, IMAGE),
    "black-box": Case(lambda g: BlackBox(lambda x: x.sort(-1).values, g, g), F),
}


PRECISE = {REAL: torch.float64, COMPLEX: torch.complex128}


def over(*registries: dict[str, Case]):
    """Every case of the registries, by name."""
    cases = {name: case for registry in registries for name, case in registry.items()}
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


@st.composite
def operators(draw, case: Case, dtype: torch.dtype | None = None) -> Operator:
    """The operator of a case on one to five points per axis, in single or double precision."""
    low, high = case.axes
    shape = draw(st.lists(st.integers(1, 5), min_size=low, max_size=high))
    dtype = dtype or draw(st.sampled_from([case.dtype, PRECISE[case.dtype]]))
    return case.make(grid(*shape, dtype=dtype))


def tolerance(operator: Operator) -> float:
    """Of sums of a few hundred values at most, which may cancel."""
    return 100 * torch.finfo(operator.domain.dtype).eps


@over(LINEAR, OWN)
@settings(max_examples=8)
@given(data=st.data())
def test_linear_operators_obey_every_law(case, data):
    operator = data.draw(operators(case))
    errors = check_operator(operator, tolerance=tolerance(operator))
    assert {"input", "batch", "linearity", "adjoint", "vjp"} <= set(errors)
    complete = completed(operator)
    assert ("gram" in errors) == hasattr(operator, "gram")
    assert ("spectrum" in errors) == (complete.gram_spectrum is not None)


@over(LINEAR, OWN)
@settings(max_examples=4)
@given(data=st.data())
def test_what_a_linear_operator_states(case, data):
    operator = data.draw(operators(case))
    assert isinstance(operator, LinearOperator) or operator.is_linear
    operator = completed(operator)
    n_data = operator.range.size if operator.measured is None else int(operator.measured.sum())
    n_coils = (
        operator.range.size // operator.measured.numel() if n_data < operator.range.size else 1
    )
    assert 0 < operator.n_data == n_coils * n_data
    assert case.is_circulant in (None, operator.is_circulant)
    assert operator.gram_spectrum is not None or not operator.is_circulant
    assert len(repr(operator)) < 200


@over(LINEAR)
@settings(max_examples=4)
@given(data=st.data())
def test_adjoint_of_the_adjoint(case, data):
    operator = data.draw(operators(case))
    x = noise(operator.domain, 2)
    torch.testing.assert_close(operator.H.H(x), operator(x))
    assert checks.adjoint_error(operator.H) < tolerance(operator)


@over(LINEAR)
@settings(max_examples=4)
@given(data=st.data())
def test_solve(case, data):
    operator = data.draw(operators(case, dtype=PRECISE[case.dtype]))
    rho, noise_std, rtol = 0.7, 0.5, 1e-5
    # Conjugate gradients stop at |r|_M <= rtol |b|_M, with the preconditioner M.
    spectrum = operator.gram_spectrum
    m = torch.ones(1) if spectrum is None else 1 / (rho + spectrum / noise_std**2)
    bound = rtol * float(m.max() / m.min()) ** 0.5
    assert checks.solve_error(operator, rho, noise_std) < 1.01 * bound


@over(NONLINEAR)
@settings(max_examples=8)
@given(data=st.data())
def test_nonlinear_operators_obey_every_law(case, data):
    operator = data.draw(operators(case))
    errors = check_operator(operator, fields=noise(operator.domain, 2))
    assert set(errors) - {"gradient"} == {"input", "batch"}
    assert ("gradient" in errors) == operator.is_differentiable


@over(NONLINEAR)
def test_nonlinear_operators_are_not_linear_and_their_gradients_are_of_order_two(case):
    operator = case.make(grid(5, 6, dtype=PRECISE[case.dtype]))
    assert isinstance(operator, Operator)
    assert not isinstance(operator, LinearOperator)
    assert not declares_linear(operator)
    assert checks.linearity_error(operator) > 0.01
    if operator.is_differentiable:
        x, d = noise(operator.domain, 4).split(2)
        slope = checks.taylor_slope(operator, x, d, steps=(1e-2, 3e-3, 1e-3, 3e-4))
        assert slope == pytest.approx(2, abs=0.1)


@over(LINEAR, NONLINEAR)
def test_shapes_and_kinds_are_checked(case):
    operator = case.make(grid(5, 4, dtype=case.dtype))
    fields = torch.zeros(1, *operator.domain.shape, dtype=operator.domain.dtype)
    with pytest.raises(ShapeError):
        operator(fields[0])
    with pytest.raises(DTypeError):
        operator(fields.real if operator.domain.is_complex else fields + 0j)
    if declares_linear(operator):
        data = torch.zeros(1, *operator.range.shape, dtype=operator.range.dtype)
        with pytest.raises(ShapeError):
            operator.adjoint(data[0])
        with pytest.raises(DTypeError):
            operator.adjoint(data.real if operator.range.is_complex else data + 0j)


def test_identities_tell_operators_apart_and_survive_use():
    """A run is resumed by the identity of its operator: made again it is the same."""
    found = {}
    for name, case in (LINEAR | OWN | NONLINEAR).items():
        operator = case.make(grid(4, 5, dtype=case.dtype))
        found[name] = identity({"operator": operator})
        complete = completed(operator)
        complete(noise(operator.domain))
        if complete.is_linear:
            complete.gram_spectrum  # noqa: B018 - cached on first use
        assert identity({"operator": operator}) == found[name]
        assert identity({"operator": case.make(grid(4, 5, dtype=case.dtype))}) == found[name]
    # One mask as booleans and as floats is one operator.
    found.pop("mask-float")
    distinct = {tuple(sorted(parts.items())) for parts in found.values()}
    assert len(distinct) == len(found)


@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    n_coils=st.integers(0, 3),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_mri_laws_for_any_mask(shape, n_coils, fraction, seed):
    g = grid(*shape)
    maps = noise(g, n_coils) if n_coils else None
    operator = CartesianMRI(keep(*shape, fraction=fraction, seed=seed), maps, domain=g)
    check_operator(operator, tolerance=tolerance(operator))


@settings(max_examples=20)
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), data=st.data())
def test_convolution_laws_for_any_kernel(shape, data):
    kernel = [data.draw(st.integers(1, n)) for n in shape]
    operator = Convolution(grid(*shape, dtype=REAL), noise(grid(*kernel, dtype=REAL))[0])
    check_operator(operator, tolerance=tolerance(operator))
