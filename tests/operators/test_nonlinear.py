"""What the nonlinear operators do, and what they refuse."""

import numpy as np
import pytest
import torch

from invdiff.errors import DTypeError, InputError, ShapeError, UnsupportedError
from invdiff.operators import BlackBox, Identity, Lognormal, Magnitude, Mask, Saturating, checks
from invdiff.protocols import Operator
from tests.support.operators import DOUBLE, REAL, grid, keep, noise


def test_what_the_nonlinear_operators_do():
    g = grid(4, 4, dtype=DOUBLE)
    x, a = noise(g, 3), Mask(g, keep(4, 4))
    torch.testing.assert_close(Saturating(a, 1e4)(x), a(x), rtol=1e-7, atol=0)
    assert Saturating(a, 0.3)(100 * x).abs().max() == pytest.approx(0.3)
    assert torch.equal(Saturating(a, 0.3).measured, a.keep)
    expected = a(torch.exp(0.2 + 0.5 * x))
    torch.testing.assert_close(Lognormal(a, log_mean=0.2, log_std=0.5)(x), expected)


@pytest.mark.parametrize("dtype", [REAL, DOUBLE], ids=str)
def test_nonlinear_operators_keep_what_the_linear_one_measures(dtype):
    linear = Mask(grid(5, 6, dtype=dtype), keep(5, 6))
    for operator in (Saturating(linear, 0.8), Lognormal(linear)):
        assert operator.n_data == linear.n_data == int(keep(5, 6).sum())
        assert operator(noise(operator.domain)).dtype == operator.range.dtype == dtype


def test_a_black_box_has_no_gradient():
    g = grid(4, dtype=DOUBLE)
    box = BlackBox(lambda x: x.cumsum(1)[:, ::2], g, grid(2, dtype=DOUBLE))
    x = noise(g, 2).requires_grad_()
    assert isinstance(box, Operator)
    assert not box.is_differentiable
    assert box.n_data == 2
    assert checks.batch_error(box) < 1e-15
    with pytest.raises(RuntimeError, match="does not require grad"):
        box(x).sum().backward()
    with pytest.raises(ShapeError, match="black box"):
        BlackBox(lambda x: x, g, grid(2, dtype=DOUBLE))(x)
    with pytest.raises(DTypeError, match="black box"):
        BlackBox(lambda x: x * 1j, g, g)(x)


def test_settings_of_any_number():
    linear = Identity(grid(3, dtype=REAL))
    assert Saturating(linear, np.float64(2)).level == 2.0
    assert repr(Lognormal(linear, np.float32(0.5), np.int64(2))).endswith(
        "log_mean=0.5, log_std=2.0)"
    )


G = grid(3, dtype=REAL)
BAD = {
    "saturating complex": (lambda: Saturating(Identity(grid(3)), 1.0), DTypeError, "real"),
    "saturating at zero": (lambda: Saturating(Identity(G), 0.0), InputError, "level"),
    "saturating at text": (lambda: Saturating(Identity(G), "1"), InputError, "level"),
    "saturating at NaN": (lambda: Saturating(Identity(G), np.nan), InputError, "level"),
    "saturating swapped": (lambda: Saturating(1.0, Identity(G)), InputError, "operator"),
    "saturating nonlinear": (
        lambda: Saturating(Lognormal(Identity(G)), 1.0),
        UnsupportedError,
        "linear",
    ),
    "lognormal width": (lambda: Lognormal(Identity(G), log_std=-1.0), InputError, "log_std"),
    "lognormal mean": (lambda: Lognormal(Identity(G), np.inf), InputError, "log_mean"),
    "lognormal of a field": (lambda: Lognormal(torch.ones(3)), InputError, "operator"),
    "magnitude real": (lambda: Magnitude(Identity(G)), DTypeError, "complex"),
    "magnitude of a class": (lambda: Magnitude(Identity), InputError, "operator"),
    "black box of a number": (lambda: BlackBox(3.0, G, G), InputError, "called"),
    "black box swapped": (lambda: BlackBox(G, torch.exp, G), InputError, "not a Grid"),
    "black box of a shape": (lambda: BlackBox(torch.exp, G, (3,)), InputError, "range"),
}


@pytest.mark.parametrize(("make", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(make, error, words):
    with pytest.raises(error, match="got") as caught:
        make()
    assert caught.match(words)
