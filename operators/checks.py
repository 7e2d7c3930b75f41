"""The laws every operator must obey, each as a number that should be near zero.

They take any operator, need no solver and draw their vectors from a `NoiseField`: use them on
operators of your own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invdiff.errors import DTypeError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators.base import Linear
from invdiff.protocols import LinearOperator, Operator

__all__ = [
    "adjoint_error",
    "batch_error",
    "check_kind",
    "gram_error",
    "linearity_error",
    "solve_error",
    "spectrum_error",
    "taylor_slope",
    "vjp_error",
]


def _random(grid: Grid, seed: int, *, n: int = 2, stream: int = 0) -> Tensor:
    return NoiseField(seed)(grid, range(n), 0, stream=stream)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """``<a, b>`` of each member; not flattened before the shapes are known to agree."""
    if a.shape != b.shape:
        raise ShapeError("operands of an inner product differ", got=a.shape, expected=b.shape)
    return (a.conj() * b).flatten(1).sum(1)


def _relative(a: Tensor, b: Tensor) -> float:
    """``|a - b| / |b|``, shapes equal."""
    if a.shape != b.shape:
        raise ShapeError("results differ in shape", got=tuple(a.shape), expected=tuple(b.shape))
    return float((a - b).norm() / b.norm().clamp_min(torch.finfo(torch.float32).tiny))


def adjoint_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """``|<A x, y> - <x, A^H y>| / (|A x| |y|)``, worst of the members."""
    x, y = _random(operator.domain, seed), _random(operator.range, seed, stream=1)
    forward, adjoint = operator(x), operator.adjoint(y)
    difference = (_inner(forward, y) - _inner(x, adjoint)).abs()
    scale = (_inner(forward, forward).abs() * _inner(y, y).abs()).sqrt()
    return float((difference / scale).max())


def linearity_error(operator: Operator, *, seed: int = 0) -> float:
    """``|A (a x + z) - a A x - A z|``, relative; ``a`` is complex on a complex domain."""
    x, z = _random(operator.domain, seed), _random(operator.domain, seed, stream=1)
    a: complex = 1.5 - 0.5j if operator.domain.is_complex else 1.5
    return _relative(operator(a * x + z), a * operator(x) + operator(z))


def gram_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """``|gram(x) - A^H A x|``, relative."""
    x = _random(operator.domain, seed)
    return _relative(operator.gram(x), operator.adjoint(operator(x)))


def vjp_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """``|vjp(y) - A^H y|``, relative: torch's gradient of a linear map is its adjoint."""
    x = _random(operator.domain, seed).requires_grad_()
    y = _random(operator.range, seed, stream=1)
    (vjp,) = torch.autograd.grad(operator(x), x, y)
    return _relative(vjp, operator.adjoint(y))


def batch_error(operator: Operator, *, seed: int = 0) -> float:
    """Largest relative change of a member's data when it is alone in its batch."""
    x = _random(operator.domain, seed, n=3)
    together = operator(x)
    return max(_relative(operator(x[i : i + 1]), together[i : i + 1]) for i in range(3))


def spectrum_error(operator: LinearOperator) -> float:
    """Error of ``gram_spectrum`` against the explicit matrix ``F A^H A F^H``, relative.

    Against its diagonal, or against all of it where ``is_circulant``. For small domains: the
    matrix has ``domain.size ** 2`` entries.

    Raises:
        UnsupportedError: an operator without ``gram_spectrum``.
    """
    spectrum, shape = operator.gram_spectrum, operator.domain.shape
    if spectrum is None:
        raise UnsupportedError(f"{operator!r} has no gram_spectrum")
    if tuple(spectrum.shape) != shape or spectrum.is_complex():
        raise ShapeError("gram_spectrum does not fit", got=spectrum.shape, expected=shape)
    n, axes = operator.domain.size, tuple(range(1, len(shape) + 1))
    basis = torch.eye(n, dtype=operator.domain.dtype).reshape(n, *shape)
    # Columns of A^H A in the grid first: a real operator takes no complex waves.
    columns = torch.fft.fftn(operator.gram(basis), dim=axes, norm="ortho").reshape(n, n).T
    rows = torch.fft.ifftn(columns.reshape(n, *shape), dim=axes, norm="ortho").reshape(n, n)
    if operator.is_circulant:
        return _relative(rows, torch.diag(spectrum.flatten()).to(rows))
    return _relative(rows.diagonal(), spectrum.flatten().to(rows))


def solve_error(operator: Linear, rho: float, noise_std: float, *, seed: int = 0) -> float:
    """Relative residual of ``operator.solve``, ``|(A^H A / s^2 + rho) x - b| / |b|``."""
    b = _random(operator.domain, seed)
    x = operator.solve(b, rho, noise_std)
    return _relative(operator.gram(x) / noise_std**2 + rho * x, b)


def taylor_slope(
    operator: Operator,
    x: Tensor,
    direction: Tensor,
    *,
    steps: Sequence[float] = (1e-1, 3e-2, 1e-2, 3e-3),
    seed: int = 0,
) -> float:
    """Order in ``h`` of ``|<w, F(x + h d) - F(x)> - h <J^H w, d>|``: 2 if the vjp is right, else 1.

    For nonlinear operators; the remainder of a linear one is rounding. Use double precision where
    the operator allows it, and steps whose remainder stays above rounding.

    Args:
        operator: any differentiable operator.
        x: fields ``(batch, *domain.shape)`` at which it is checked.
        direction: perturbation of the same shape, scaled so that a step of 1 is large.
        steps: values of ``h``.
        seed: of the random cotangent ``w``.
    """
    w = _random(operator.range, seed, n=x.shape[0], stream=1)

    def value(field: Tensor) -> Tensor:
        return _inner(w, operator(field)).real.sum()

    x = x.detach().requires_grad_()
    at_x = value(x)
    (gradient,) = torch.autograd.grad(at_x, x)
    with torch.no_grad():
        slope = _inner(gradient, direction).real.sum()
        remainders = [(value(x + h * direction) - at_x - h * slope).abs() for h in steps]
    log_h = torch.tensor(steps, dtype=torch.float64).log()
    log_r = torch.stack(remainders).double().log()
    log_h, log_r = log_h - log_h.mean(), log_r - log_r.mean()
    return float((log_h * log_r).sum() / (log_h**2).sum())


def check_kind(operator: LinearOperator, *, device: torch.device | str = "cpu") -> None:
    """Raise unless data, adjoint and gram keep the grids' dtype and the input's device.

    Raises:
        DTypeError: a result of another dtype than its grid.
        ShapeError: a result of another shape, or on another device.
    """
    x = _random(operator.domain, 0).to(device)
    y = _random(operator.range, 0).to(device)
    results = {
        "forward": (operator(x), operator.range),
        "adjoint": (operator.adjoint(y), operator.domain),
        "gram": (operator.gram(x), operator.domain),
    }
    for name, (result, grid) in results.items():
        grid.check(result, name=name)
        if result.dtype != grid.dtype:
            raise DTypeError(f"{name} changes dtype", got=result.dtype, expected=grid.dtype)
        if result.device.type != torch.device(device).type:
            raise ShapeError(f"{name} changes device", got=result.device, expected=device)
