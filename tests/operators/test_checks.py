"""Each check sees the fault that it is for; `check_operator` names the law that is broken."""

import pytest
import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid
from invdiff.operators import (
    BlackBox,
    Identity,
    Linear,
    Mask,
    Saturating,
    Scaled,
    check_operator,
    checks,
)
from tests.support.operators import COMPLEX, DOUBLE, REAL, Declared, Thinned, grid, noise


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
        self.factor = factor

    def __call__(self, x: Tensor) -> Tensor:
        y = x**2
        return self.factor * y + (1 - self.factor) * y.detach()


def test_taylor_slope_and_linearity_of_a_nonlinear_operator():
    x, d = noise(grid(4, dtype=torch.float64), 2).split(1)
    assert checks.taylor_slope(Quadratic(1.0), x, d) == pytest.approx(2, abs=0.01)
    assert checks.taylor_slope(Quadratic(0.9), x, d) < 1.5
    assert checks.linearity_error(Quadratic(1.0)) > 0.1


def test_gradient_error_is_the_fraction_that_is_missing():
    assert checks.gradient_error(Quadratic(1.0)) < 1e-9
    # The difference is g, the vjp 0.9 g: |<g, d>| / 9 |g| |d| at most, and about as much along g.
    assert 0.05 < checks.gradient_error(Quadratic(0.9)) < 1 / 9


def test_check_kind_sees_a_changed_dtype():
    operator = Identity(grid(3, dtype=REAL))
    operator.domain = grid(3, dtype=torch.float64)
    with pytest.raises(DTypeError, match="dtype"):
        checks.check_kind(Scaled(operator, 2.0))


# Operators of no base class, right and wrong.


class Own:
    """``y_i = w_i x_i`` with complex weights, as a user would write it."""

    def __init__(self, n: int = 6) -> None:
        self.domain = self.range = Grid(("x",), (n,), COMPLEX)
        self.w = noise(self.domain)[0]

    def __call__(self, x: Tensor) -> Tensor:
        return self.w * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.w.conj() * y


def test_right_operators_pass_with_the_laws_that_apply():
    basic = ["input", "batch", "linearity", "adjoint", "vjp"]
    assert list(check_operator(Own())) == basic
    assert list(check_operator(Declared(grid(6)))) == basic
    full = check_operator(Mask(grid(6), [1, 0, 1, 1, 1, 1]))
    assert list(full) == [*basic, "gram", "spectrum", "solve"]
    saturating = Saturating(Thinned(grid(6, dtype=REAL)), 1.0)
    assert list(check_operator(saturating)) == ["input", "batch", "gradient"]
    assert max(full.values()) < 1e-6


class WrongSign(Own):
    def adjoint(self, y):
        return -super().adjoint(y)


class WrongScale(Own):
    """By one percent, which random data of many values hide."""

    def adjoint(self, y):
        return 1.01 * super().adjoint(y)


class NoConjugate(Own):
    def adjoint(self, y):
        return self.w * y


class Affine(Own):
    def __call__(self, x):
        return self.w * x + 0.1


class RealPart(Own):
    def __call__(self, x):
        return self.w * x.real

    def adjoint(self, y):
        return (self.w.conj() * y).real + 0j


class Detached(Own):
    def __call__(self, x):
        return self.w * x.detach()


class HalfDetached(Own):
    def __call__(self, x):
        return self.w * (0.5 * x + 0.5 * x.detach())


class MixedBatch(Own):
    def __call__(self, x):
        return self.w * x - x.mean(0)


class Normalised(Own):
    """Divides by the largest value of the whole batch."""

    def __call__(self, x):
        return self.w * x / x.abs().max()


class InPlace(Own):
    def __call__(self, x):
        return x.mul_(self.w)


class InPlaceAdjoint(Own):
    def adjoint(self, y):
        return y.mul_(self.w.conj())


class WrongGram(Own):
    def gram(self, x):
        return self.w.abs() * x


class WrongSpectrum(Own):
    @property
    def gram_spectrum(self):
        return self.w.abs().square()  # in the grid, not in the DFT


class Circulant(Own):
    is_circulant = True

    @property
    def gram_spectrum(self):
        return torch.full((6,), float(self.w.abs().square().mean()))


class WrongSolve(Identity):
    def solve(self, b, rho, noise_std, *, rtol=1e-5, max_iterations=100):
        return b / (1 / noise_std + rho)


class WrongGradient(Own):
    """Not linear, and half of its gradient is missing."""

    is_linear = False

    def __call__(self, x):
        return self.w * x * x.detach()


BROKEN = {
    WrongSign: "adjoint",
    WrongScale: "adjoint",
    NoConjugate: "adjoint",
    Affine: "linearity",
    RealPart: "linearity",
    Detached: "vjp",
    HalfDetached: "vjp",
    MixedBatch: "batch",
    Normalised: "batch",
    InPlace: "input",
    InPlaceAdjoint: "input",
    WrongGram: "gram",
    WrongSpectrum: "spectrum",
    Circulant: "spectrum",
    WrongGradient: "gradient",
}


@pytest.mark.parametrize(("wrong", "law"), BROKEN.items())
@pytest.mark.parametrize("n", [6, 400])
def test_a_wrong_operator_is_caught_by_its_law(wrong, law, n):
    if wrong is Circulant and n != 6:
        return
    with pytest.raises(InputError, match=f"breaks the law `{law}`"):
        check_operator(wrong(n))


def test_a_wrong_solve_is_caught():
    with pytest.raises(InputError, match="breaks the law `solve`") as caught:
        check_operator(WrongSolve(grid(5)))
    # b - (1 / s^2 + rho) x with x = b / (1 / s + rho), s = 0.5 and rho = 0.7: (4.7 / 2.7 - 1) b.
    assert caught.match(r"relative error of 0\.741")
    assert caught.match(r"at most 0\.000345")


class Doubled(Own):
    def __call__(self, x):
        return super().__call__(x).to(torch.complex128)


class AdjointReal(Own):
    def adjoint(self, y):
        return super().adjoint(y).real


class Cropped(Own):
    def __call__(self, x):
        return super().__call__(x)[:, :-1]


class AdjointFlat(Own):
    def adjoint(self, y):
        return super().adjoint(y).sum(0)


class Summed(Own):
    def __call__(self, x):
        return super().__call__(x).sum(0, keepdim=True)


class Array(Own):
    def __call__(self, x):
        return super().__call__(x).detach().numpy()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (Doubled, DTypeError, "forward changes dtype"),
        (AdjointReal, DTypeError, "adjoint"),
        (Cropped, ShapeError, "forward"),
        (AdjointFlat, ShapeError, "adjoint"),
        (Summed, ShapeError, "forward changes the batch"),
        (Array, DTypeError, "forward is not a tensor"),
    ],
)
def test_wrong_shapes_and_dtypes_name_the_part(wrong, error, words):
    with pytest.raises(error, match=words):
        check_operator(wrong())


class Undeclared(Own):
    """Linear, but its class says nothing of it."""

    adjoint = property()


def test_a_linear_operator_that_does_not_declare_it_is_refused():
    with pytest.raises(InputError, match="linear but does not declare it"):
        check_operator(Undeclared())
    Undeclared.is_linear = True
    assert "adjoint" in check_operator(Undeclared())


def test_a_black_box_needs_no_gradient():
    g = grid(5, dtype=REAL)
    assert list(check_operator(BlackBox(lambda x: x.cumsum(-1), g, g))) == ["input", "batch"]


class Root:
    """``y = sqrt(x)``: a nonlinear operator that takes positive fields alone."""

    domain = range = grid(7, dtype=DOUBLE)

    def __call__(self, x):
        if not (x > 0).all():
            raise InputError("fields must be positive", got=float(x.min()))
        return x.sqrt()


def test_fields_of_the_callers_choice():
    with pytest.raises(InputError, match="positive"):
        check_operator(Root())
    errors = check_operator(Root(), fields=1500 + noise(Root.domain))
    assert list(errors) == ["input", "batch", "gradient"]
    assert errors["gradient"] < 1e-9


class NoGrid(Own):
    domain = (6,)

    def __init__(self) -> None:
        self.range = Grid(("x",), (6,))


@pytest.mark.parametrize("wrong", [torch.ones(3), Identity, lambda x: x, "mask", None, NoGrid()])
def test_what_is_not_an_operator(wrong):
    with pytest.raises(InputError, match=r"not a forward operator|not a Grid"):
        check_operator(wrong)


def test_a_tolerance_of_the_callers_choice():
    check_operator(WrongScale(), tolerance=0.02)
    with pytest.raises(InputError, match=r"at most 0\.009"):
        check_operator(WrongScale(), tolerance=0.009)
