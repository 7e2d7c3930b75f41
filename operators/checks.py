"""The laws that every operator must obey, each as a number that should be near zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invdiff.completion import completed, declares_linear
from invdiff.errors import DTypeError, InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators.base import Linear, as_linear
from invdiff.operators.inputs import check_grid, describe
from invdiff.protocols import LinearOperator, Operator

__all__ = [
    "adjoint_error",
    "batch_error",
    "check_kind",
    "check_operator",
    "gradient_error",
    "gram_error",
    "input_error",
    "linearity_error",
    "solve_error",
    "spectrum_error",
    "taylor_slope",
    "vjp_error",
]

_MAX_SPECTRUM = 1024  # points of the domain up to which the spectrum is compared with a matrix


def check_operator(
    operator: Operator,
    *,
    fields: Tensor | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """All laws that apply to an operator of your own; each is a relative error near zero.

    ====================  ================================================================
    ``input``             fields and data are left as they are: nothing is done in place
    ``batch``             members do not depend on the others in their batch
    ``linearity``         ``A (a x + z) = a A x + A z``
    ``adjoint``           ``<A x, y> = <x, A^H y>`` with ``<a, b> = sum conj(a) b``
    ``vjp``               torch's gradient of ``A`` is ``A^H``
    ``gram``              ``gram(x) = A^H A x``
    ``spectrum``          ``gram_spectrum`` is the diagonal of ``F A^H A F^H``
    ``solve``             ``solve`` inverts ``A^H A / s^2 + rho I``
    ``gradient``          the vjp agrees with finite differences (nonlinear operators)
    ====================  ================================================================

    Shapes, dtypes and devices come first. An operator is linear by declaration: it has an
    ``adjoint``, or says ``is_linear = True`` and torch's vjp is its adjoint. The laws from
    ``linearity`` to ``solve`` are for those: ``gram``, ``spectrum`` and ``solve`` where it brings
    its own. ``gradient`` is for the others, unless they say ``is_differentiable = False``;
    they are refused if they are linear without saying so. The spectrum is compared with a matrix of
    ``domain.size ** 2`` values and is left out on domains of more than 1024 points: check a smaller
    grid too. All laws together cost about twenty evaluations, on the CPU.

    Args:
        operator: any object with ``domain``, ``range`` and ``__call__``.
        fields: ``(batch, *domain.shape)`` at which a nonlinear operator is checked, such as
            velocities; standard normal values by default.
        tolerance: largest error that passes; by default the square root of the dtype's rounding,
            ``3e-4`` in single and ``1e-8`` in double precision, and the cube root for ``gradient``.
        seed: of the random fields and data.

    Returns:
        The error of each law that applies, in the order above.

    Raises:
        InputError: a broken law, with its name, error and tolerance; or not an operator.
        ShapeError: results of another shape than their grid.
        DTypeError: results of another dtype than their grid.

    Examples:
        An operator needs no base class. This one forgets the conjugate in its adjoint:

        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import check_operator
        >>> class Phase:
        ...     domain = range = Grid(("x",), (8,), torch.complex64)
        ...     shift = torch.exp(1j * torch.arange(8))
        ...     def __call__(self, x):
        ...         return self.shift * x
        ...     def adjoint(self, y):
        ...         return self.shift * y
        >>> check_operator(Phase())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        invdiff.errors.InputError: the operator breaks the law `adjoint`...
        >>> Phase.adjoint = lambda self, y: self.shift.conj() * y
        >>> list(check_operator(Phase()))
        ['input', 'batch', 'linearity', 'adjoint', 'vjp']
    """
    completed(operator)  # refuses what is not an operator
    for name in ("domain", "range"):
        check_grid(getattr(operator, name), type(operator), name=name)
    check_kind(operator, fields=fields)
    eps = torch.finfo(operator.domain.dtype).eps
    errors: dict[str, float] = {}
    for law, measure in _laws(operator, fields, seed).items():
        limit = eps ** (1 / 3 if law == "gradient" else 1 / 2) if tolerance is None else tolerance
        try:
            errors[law] = measure()
        except RuntimeError as error:  # torch's: it finds no graph to differentiate
            raise InputError(
                f"the operator breaks the law `{law}`: {error}", hint=_HINTS[law]
            ) from error
        if not errors[law] <= limit:
            raise InputError(
                f"the operator breaks the law `{law}`",
                got=f"a relative error of {errors[law]:.3g}",
                expected=f"at most {limit:.3g}",
                hint=_HINTS[law],
            )
    if "gradient" in errors and fields is None and linearity_error(operator, seed=seed) < eps**0.5:
        raise InputError(
            "the operator is linear but does not declare it",
            got=describe(operator),
            expected="an adjoint, or is_linear = True to have torch's vjp as the adjoint",
            hint="Where it is nonlinear for other fields than standard normal ones, pass fields=.",
        )
    return errors


_HINTS = {
    "input": "Its forward or adjoint writes into its argument: write x = x * m for x *= m.",
    "batch": "Axis 0 is the batch: sums, means and maxima must leave it out.",
    "linearity": "It has an adjoint or says is_linear = True but adds a constant or is not linear.",
    "adjoint": "Check the sign, scale and conjugates of the adjoint, and the order of its steps.",
    "vjp": "Torch cannot differentiate its forward, or does so to another result than the adjoint: "
    "derive from HandWritten, whose gradient is the adjoint, or avoid detach and NumPy.",
    "gram": "gram must be adjoint(A(x)); leave it out to have just that.",
    "spectrum": "gram_spectrum is the mean of A^H A along its diagonals, transformed, in torch.fft "
    "order (no fftshift); is_circulant claims that it is all of A^H A.",
    "solve": "solve must return x of (A^H A / noise_std^2 + rho) x = b.",
    "gradient": "Look for a detach, an in-place change, a wrong backward or a jump in the forward; "
    "an operator without gradients says is_differentiable = False.",
}


def _laws(operator: Operator, fields: Tensor | None, seed: int) -> dict[str, Callable[[], float]]:
    """Those that apply to the operator, cheapest and most basic first."""
    laws = {
        "input": lambda: input_error(operator, fields=fields, seed=seed),
        "batch": lambda: batch_error(operator, fields=fields, seed=seed),
    }
    differentiable = bool(getattr(operator, "is_differentiable", True))
    if not declares_linear(operator):
        if differentiable:
            laws["gradient"] = lambda: gradient_error(operator, fields=fields, seed=seed)
        return laws
    linear = as_linear(operator)
    laws["linearity"] = lambda: linearity_error(linear, seed=seed)
    laws["adjoint"] = lambda: adjoint_error(linear, seed=seed)
    if differentiable:
        laws["vjp"] = lambda: vjp_error(linear, seed=seed)
    if hasattr(operator, "gram"):
        laws["gram"] = lambda: gram_error(linear, seed=seed)
    if linear.gram_spectrum is not None and linear.domain.size <= _MAX_SPECTRUM:
        laws["spectrum"] = lambda: spectrum_error(linear)
    # Conjugate gradients need no check of their own: adjoint and gram make them right.
    if isinstance(operator, Linear) and (
        operator.is_circulant or type(operator).solve is not Linear.solve
    ):
        laws["solve"] = lambda: solve_error(operator, 0.7, 0.5, seed=seed)
    return laws


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


def input_error(operator: Operator, *, fields: Tensor | None = None, seed: int = 0) -> float:
    """Relative change of the fields, and of the data of an adjoint, by applying the operator.

    Args:
        operator: any operator.
        fields: ``(batch, *domain.shape)``; standard normal by default.
        seed: of the random fields and data.
    """
    x = _random(operator.domain, seed) if fields is None else fields
    calls: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [(operator, x)]
    if declares_linear(operator):
        calls.append((as_linear(operator).adjoint, _random(operator.range, seed, stream=1)))
    changes = []
    for call, given in calls:
        passed = given.clone()
        call(passed)
        changes.append(_relative(passed, given))
    return max(changes)


def batch_error(operator: Operator, *, fields: Tensor | None = None, seed: int = 0) -> float:
    """Largest relative change of a member's data when it is alone in its batch.

    Args:
        operator: any operator.
        fields: ``(batch, *domain.shape)``; three standard normal members by default. A single
            one is joined by a shifted copy of itself.
        seed: of the random fields.
    """
    x = _random(operator.domain, seed, n=3) if fields is None else fields
    if len(x) == 1:
        x = torch.cat([x, x.roll(1, -1)])
    together = operator(x)
    return max(_relative(operator(x[i : i + 1]), together[i : i + 1]) for i in range(len(x)))


def linearity_error(operator: Operator, *, seed: int = 0) -> float:
    """``|A (a x + z) - a A x - A z|``, relative; ``a`` is complex on a complex domain."""
    x, z = _random(operator.domain, seed), _random(operator.domain, seed, stream=1)
    a: complex = 1.5 - 0.5j if operator.domain.is_complex else 1.5
    return _relative(operator(a * x + z), a * operator(x) + operator(z))


def adjoint_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """``|<A x, y> - <x, A^H y>| / (|A x| |y|)``, worst of the members and of two ``y``.

    One ``y`` is random; the other is ``A x``, which shows a wrong sign or scale at any size.
    """
    linear = as_linear(operator)
    x = _random(linear.domain, seed)
    forward = linear(x)
    tiny, errors = torch.finfo(linear.domain.dtype).tiny, []
    for y in (_random(linear.range, seed, stream=1), forward):
        difference = (_inner(forward, y) - _inner(x, linear.adjoint(y))).abs()
        scale = (_inner(forward, forward).abs() * _inner(y, y).abs()).sqrt()
        errors.append(float((difference / scale.clamp_min(tiny)).max()))
    return max(errors)


def vjp_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """``|vjp(y) - A^H y|``, relative: torch's gradient of a linear map is its adjoint."""
    x = _random(operator.domain, seed).requires_grad_()
    y = _random(operator.range, seed, stream=1)
    (vjp,) = torch.autograd.grad(operator(x), x, y)
    return _relative(vjp, as_linear(operator).adjoint(y))


def gram_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """``|gram(x) - A^H A x|``, relative."""
    linear = as_linear(operator)
    x = _random(linear.domain, seed)
    return _relative(linear.gram(x), linear.adjoint(linear(x)))


def spectrum_error(operator: LinearOperator) -> float:
    """Error of ``gram_spectrum`` against the explicit matrix ``F A^H A F^H``, relative.

    Against its diagonal, or against all of it where ``is_circulant``. For small domains: the
    matrix has ``domain.size ** 2`` entries.

    Raises:
        UnsupportedError: an operator without ``gram_spectrum``.
        ShapeError: a spectrum of another shape than the domain, or a complex one.
    """
    linear = as_linear(operator)
    spectrum, shape = linear.gram_spectrum, linear.domain.shape
    if spectrum is None:
        raise UnsupportedError(f"{operator!r} has no gram_spectrum")
    if tuple(spectrum.shape) != shape or spectrum.is_complex():
        raise ShapeError(
            "gram_spectrum does not fit",
            got=describe(spectrum),
            expected=f"real values of shape {shape}",
        )
    n, axes = linear.domain.size, tuple(range(1, len(shape) + 1))
    basis = torch.eye(n, dtype=linear.domain.dtype).reshape(n, *shape)
    # Columns of A^H A in the grid first: a real operator takes no complex waves.
    columns = torch.fft.fftn(linear.gram(basis), dim=axes, norm="ortho").reshape(n, n).T
    rows = torch.fft.ifftn(columns.reshape(n, *shape), dim=axes, norm="ortho").reshape(n, n)
    if linear.is_circulant:
        return _relative(rows, torch.diag(spectrum.flatten()).to(rows))
    return _relative(rows.diagonal(), spectrum.flatten().to(rows))


def solve_error(operator: Linear, rho: float, noise_std: float, *, seed: int = 0) -> float:
    """Relative residual of ``operator.solve``, ``|(A^H A / s^2 + rho) x - b| / |b|``.

    Args:
        operator: a linear operator.
        rho: prior precision, positive.
        noise_std: standard deviation ``s`` of the data, positive.
        seed: of the right-hand sides ``b``.
    """
    b = _random(operator.domain, seed)
    x = operator.solve(b, rho, noise_std)
    return _relative(operator.gram(x) / noise_std**2 + rho * x, b)


def gradient_error(operator: Operator, *, fields: Tensor | None = None, seed: int = 0) -> float:
    """Relative error of the vjp ``g = J^H w`` against central differences.

    ``|<w, F(x + h d) - F(x - h d)> / 2 h - <g, d>| / (|g| |d| + h |w| |F(x)|)`` with ``h`` the cube
    root of the dtype's rounding, which balances the two errors of the differences, and ``d`` along
    ``g`` and a random direction alike. The second term of the scale is the rounding of the
    differences, where the data hardly depend on the fields.

    Args:
        operator: any differentiable operator.
        fields: ``x``, ``(batch, *domain.shape)``; standard normal by default.
        seed: of the random fields, direction and cotangent ``w``.
    """
    x = _random(operator.domain, seed) if fields is None else fields
    leaf = x.detach().clone().requires_grad_()
    y = operator(leaf)
    w = _random(operator.range, seed, n=len(x), stream=1)
    (gradient,) = torch.autograd.grad(y, leaf, w)
    random = _random(operator.domain, seed, n=len(x), stream=2)
    tiny = torch.finfo(operator.domain.dtype).tiny
    with torch.no_grad():
        h = torch.finfo(operator.domain.dtype).eps ** (1 / 3)
        units = [v / v.norm().clamp_min(tiny) for v in (gradient, random)]
        d = (units[0] + units[1]) * x.norm()
        difference = _inner(w, operator(x + h * d) - operator(x - h * d)).real.sum() / (2 * h)
        slope = _inner(gradient, d).real.sum()
        scale = gradient.norm() * d.norm() + h * w.norm() * y.norm()
    return float((difference - slope).abs() / scale.clamp_min(tiny))


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


def check_kind(
    operator: Operator, *, fields: Tensor | None = None, device: torch.device | str = "cpu"
) -> None:
    """Raise unless results keep their grids' shape and dtype, and the input's batch and device.

    Args:
        operator: any operator; of a linear one the adjoint and gram are checked too.
        fields: ``(batch, *domain.shape)``; standard normal by default.
        device: where the operator lives.

    Raises:
        DTypeError: a result that is not a tensor, or of another dtype than its grid.
        ShapeError: a result of another shape or batch, or on another device.
    """
    x = (_random(operator.domain, 0) if fields is None else fields).to(device)
    parts: list[tuple[str, Callable[[Tensor], Tensor], Tensor, Grid]]
    parts = [("forward", operator, x, operator.range)]
    if declares_linear(operator):
        linear, y = as_linear(operator), _random(operator.range, 0).to(device)
        z = _random(operator.domain, 0).to(device)
        parts += [
            ("adjoint", linear.adjoint, y, linear.domain),
            ("gram", linear.gram, z, linear.domain),
        ]
    for name, part, given, grid in parts:
        result = part(given.clone())
        if not isinstance(result, Tensor):
            raise DTypeError(f"{name} is not a tensor", got=describe(result), expected=grid.dtype)
        grid.check(result, name=name)
        if len(result) != len(given):
            raise ShapeError(f"{name} changes the batch", got=len(result), expected=len(given))
        if result.dtype != grid.dtype:
            raise DTypeError(f"{name} changes dtype", got=result.dtype, expected=grid.dtype)
        if result.device.type != torch.device(device).type:
            raise ShapeError(f"{name} changes device", got=result.device, expected=device)
