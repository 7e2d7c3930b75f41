"""Linear operators on grids: the base class, what is linear by declaration, and the algebra."""

from __future__ import annotations

import copy
import math
import numbers
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from invdiff.completion import completed
from invdiff.errors import DTypeError, InputError, NoiseLevelError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.linalg import conjugate_gradient
from invdiff.operators.inputs import check_grid, describe
from invdiff.protocols import CompleteOperator, Operator

__all__ = [
    "Adjoint",
    "Composed",
    "HandWritten",
    "Linear",
    "Scaled",
    "as_linear",
]


class Linear(ABC):
    """A linear operator ``A`` from fields on ``domain`` to data on ``range``; write your own.

    A subclass writes ``_forward``, ``A x``, and ``_adjoint``, ``A^H y``, under the inner product
    ``<a, b> = sum conj(a) b``. Both take and return a batch on axis 0 whose members are
    independent. In return it gets the algebra (``A @ B`` composes, ``2.0 * A`` scales, ``A.H`` is
    the adjoint, `Stacked` joins), checked inputs, and ``solve``. Where the forward is not made of
    torch functions derive from `HandWritten` instead.

    Optional properties make solves cheaper: ``gram_spectrum``, ``is_circulant``; ``measured`` says
    which values of the range are data. `invdiff.operators.check_operator` tries all laws.

    Args:
        domain: grid of the fields.
        range: grid of the data.

    Raises:
        InputError: anything but a `Grid`.

    Examples:
        A periodic first difference, ``(D x)_i = x_(i+1) - x_i``, with the adjoint written out:

        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Linear, check_operator
        >>> class Difference(Linear):
        ...     def __init__(self, domain):
        ...         super().__init__(domain, domain)
        ...     def _forward(self, x):
        ...         return x.roll(-1, dims=-1) - x
        ...     def _adjoint(self, y):
        ...         return y.roll(1, dims=-1) - y
        >>> difference = Difference(Grid(("x",), (5,)))
        >>> difference(torch.tensor([[0.0, 1.0, 4.0, 9.0, 16.0]]))
        tensor([[  1.,   3.,   5.,   7., -16.]])
        >>> list(check_operator(difference))
        ['input', 'batch', 'linearity', 'adjoint', 'vjp', 'gram']
        >>> difference.H @ difference
        Difference(5 -> 5).H @ Difference(5 -> 5)
    """

    is_linear = True
    is_differentiable = True
    __array_ufunc__ = None  # a NumPy number on the left leaves the product to __rmul__

    def __init__(self, domain: Grid, range: Grid) -> None:
        check_grid(domain, type(self))
        check_grid(range, type(self), name="range")
        self.domain = domain
        self.range = range

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``: fields ``(batch, *domain.shape)`` to data ``(batch, *range.shape)``."""
        self.domain.check(x, name="field")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: data ``(batch, *range.shape)`` to fields ``(batch, *domain.shape)``."""
        self.range.check(y, name="data")
        return self._adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x``: fields to fields, both ``(batch, *domain.shape)``."""
        return self.adjoint(self(x))

    @property
    def measured(self) -> Tensor | None:
        """Booleans ``(*range.shape)``: which values of the range are data; None for all."""
        return None

    @property
    def n_data(self) -> int:
        """Number of measured values in the range, as a chi-square counts them."""
        return self.range.size if self.measured is None else int(self.measured.sum())

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Diagonal of ``F A^H A F^H``: real ``(*domain.shape)``, ``torch.fft`` order, if known."""
        return None

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is diagonal in the DFT, so that ``gram_spectrum`` is all of it."""
        return False

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Whether ``A`` itself, not only ``A^H A``, is diagonal in the DFT: a periodic filter."""
        return False

    def solve(
        self,
        b: Tensor,
        rho: float,
        noise_std: float,
        *,
        rtol: float = 1e-5,
        max_iterations: int = 100,
    ) -> Tensor:
        """``x`` of ``(A^H A / noise_std^2 + rho I) x = b``.

        By one pair of FFTs where ``A^H A`` is circulant, else by conjugate gradients, one product
        with ``A^H A`` per iteration, preconditioned with ``gram_spectrum`` where it is known.

        Args:
            b: right-hand sides ``(batch, *domain.shape)``.
            rho: prior precision, positive.
            noise_std: standard deviation of the data, positive.
            rtol: relative residual at which the iteration stops.
            max_iterations: bound on the iterations.

        Returns:
            Fields ``(batch, *domain.shape)``.

        Raises:
            NoiseLevelError: ``rho`` or ``noise_std`` not positive.
        """
        self._check_solve(b, rho, noise_std)
        spectrum, axes = self.gram_spectrum, tuple(range(1, b.ndim))
        precision = rho + (0.0 if spectrum is None else spectrum / noise_std**2)

        def by_fft(r: Tensor) -> Tensor:
            x: Tensor = torch.fft.ifftn(torch.fft.fftn(r, dim=axes) / precision, dim=axes)
            return x if self.domain.is_complex else x.real

        if self.is_circulant and spectrum is not None:
            return by_fft(b)
        return conjugate_gradient(
            lambda x: self.gram(x) / noise_std**2 + rho * x,
            b,
            precondition=None if spectrum is None else by_fft,
            rtol=rtol,
            max_iterations=max_iterations,
        ).x

    def _check_solve(self, b: Tensor, rho: float, noise_std: float) -> None:
        self.domain.check(b, name="right-hand side")
        if not (noise_std > 0 and rho > 0):
            raise NoiseLevelError(
                "solve needs a positive precision and noise level",
                got=f"rho={rho}, noise_std={noise_std}",
                expected="both > 0",
            )

    @property
    def H(self) -> Linear:
        """``A^H`` as an operator from ``range`` to ``domain``."""
        return Adjoint(self)

    def __matmul__(self, other: Operator) -> Linear:
        return Composed(self, other)

    def __rmul__(self, factor: complex) -> Linear:
        return Scaled(self, factor)

    def to(self, device: torch.device | str) -> Linear:
        """A copy of the operator whose tensors are on another device."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            setattr(moved, name, _to(value, device))
        return moved

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_size(self.domain)} -> {_size(self.range)})"


def _to(value: object, device: torch.device | str) -> object:
    if isinstance(value, Tensor | Operator):
        move = getattr(value, "to", None)
        return value if move is None else move(device)
    if isinstance(value, tuple):
        return tuple(_to(v, device) for v in value)
    return value


def _size(grid: Grid) -> str:
    return "x".join(map(str, grid.shape))


class _WithAdjoint(torch.autograd.Function):
    """``A x`` whose vjp is ``A^H``: torch's gradient of a linear map is its adjoint."""

    @staticmethod
    def forward(x: Tensor, operator: Linear) -> Tensor:
        return operator._forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Linear], output: Tensor) -> None:
        ctx.operator = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _WithAdjoint.apply(grads[0], Adjoint(ctx.operator)), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        y: Tensor = _WithAdjoint.apply(tangents[0], ctx.operator)
        return y


class HandWritten(Linear):
    """A linear operator that torch cannot differentiate: its gradient is its ``_adjoint``.

    For a forward in NumPy, a solver or another library. Reverse mode applies ``A^H``, forward
    mode ``A``, any number of times, so the cost of a gradient is that of one adjoint.

    Args:
        domain: grid of the fields.
        range: grid of the data.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import HandWritten
        >>> class Integral(HandWritten):
        ...     def _forward(self, x):
        ...         return torch.from_numpy(np.cumsum(x.numpy(), -1))
        ...     def _adjoint(self, y):
        ...         return torch.from_numpy(np.cumsum(y.numpy()[..., ::-1], -1)[..., ::-1].copy())
        >>> grid = Grid(("x",), (3,))
        >>> integral = Integral(grid, grid)
        >>> x = torch.ones(1, 3, requires_grad=True)
        >>> integral(x)[0, -1].backward()
        >>> x.grad
        tensor([[1., 1., 1.]])
    """

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``: fields ``(batch, *domain.shape)`` to data, differentiable by the adjoint."""
        self.domain.check(x, name="field")
        y: Tensor = _WithAdjoint.apply(x, self)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: data ``(batch, *range.shape)`` to fields, differentiable by the forward."""
        self.range.check(y, name="data")
        x: Tensor = _WithAdjoint.apply(y, Adjoint(self))
        return x


class Adjoint(Linear):
    """``A^H`` as an operator from the range of ``A`` to its domain; written ``A.H``.

    Args:
        operator: ``A``.
    """

    def __init__(self, operator: Linear) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    def __call__(self, x: Tensor) -> Tensor:
        """``A^H x``: ``(batch, *range.shape)`` of ``A`` to ``(batch, *domain.shape)`` of ``A``."""
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A y``: ``(batch, *domain.shape)`` of ``A`` to ``(batch, *range.shape)`` of ``A``."""
        return self.operator(y)

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Whether ``A`` is a periodic filter: its adjoint is then one too."""
        return self.operator.is_diagonal_in_dft

    @property
    def is_circulant(self) -> bool:
        """Whether ``A`` is a periodic filter: ``A A^H`` is then diagonal in the DFT."""
        return self.operator.is_diagonal_in_dft

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Spectrum of ``A^H A``, which is that of ``A A^H`` where ``A`` is a filter; else None."""
        return self.operator.gram_spectrum if self.operator.is_diagonal_in_dft else None

    @property
    def H(self) -> Linear:
        """``A`` itself, the adjoint of the adjoint."""
        return self.operator

    def __repr__(self) -> str:
        return f"{self.operator!r}.H"


def as_linear(operator: Operator) -> CompleteOperator:
    """An operator of any class that is linear by declaration, completed by what it leaves out.

    Args:
        operator: a `Linear`, which is returned as it is, or any `invdiff.protocols.Operator` that
            has an ``adjoint`` or says ``is_linear = True``.

    Raises:
        UnsupportedError: an operator that does not declare itself linear.
        InputError: not an operator.
    """
    complete = completed(operator)
    if not complete.is_linear:
        raise UnsupportedError(
            "the operator is not linear by declaration",
            got=describe(operator),
            expected="an operator with an adjoint, or that says is_linear = True",
        )
    return complete


def _is_filter(operator: Operator) -> bool:
    return bool(getattr(operator, "is_diagonal_in_dft", False))


class Composed(Linear):
    """``A B``, first ``B``, then ``A``; written ``A @ B``.

    Its cost is the sum of both. ``gram_spectrum`` is known where ``B`` is a periodic filter and
    ``A`` knows its own: the product of the two.

    Args:
        outer: ``A``.
        inner: ``B``, whose range has the shape and dtype kind of the domain of ``A``.

    Raises:
        ShapeError: the range of ``B`` has another shape than the domain of ``A``.
        DTypeError: one is real, the other complex.
        InputError: one of them is not an operator.
        UnsupportedError: one of them is not linear by declaration.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Convolution, Mask
        >>> grid = Grid(("x",), (4,))
        >>> Mask(grid, [1, 0, 0, 1]) @ Convolution(grid, [0.5, 0.5])
        Mask(2 of 4 kept) @ Convolution(4 -> 4)
    """

    def __init__(self, outer: Operator, inner: Operator) -> None:
        self.outer, self.inner = as_linear(outer), as_linear(inner)
        super().__init__(self.inner.domain, self.outer.range)
        middle = self.outer.domain, self.inner.range
        if middle[0].shape != middle[1].shape:
            raise ShapeError(
                "operators do not compose",
                got=f"{outer!r} @ {inner!r}",
                expected="the range of the second to be the domain of the first",
            )
        if middle[0].is_complex != middle[1].is_complex:
            raise DTypeError(
                f"operators do not compose: {outer!r} @ {inner!r}",
                got=middle[1].dtype,
                expected=middle[0].dtype,
            )

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def gram(self, x: Tensor) -> Tensor:
        """``B^H (A^H A) B x``, with the gram of ``A``: ``(batch, *domain.shape)``."""
        return self.inner.adjoint(self.outer.gram(self.inner(x)))

    @property
    def n_data(self) -> int:
        """Number of values that ``A`` measures."""
        return self.outer.n_data

    @property
    def measured(self) -> Tensor | None:
        """Booleans ``(*range.shape)``: the values that ``A`` measures; None for all."""
        return self.outer.measured

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Product of the spectra of ``A^H A`` and ``B^H B`` where ``B`` is a filter, else None."""
        inner, outer = self.inner.gram_spectrum, self.outer.gram_spectrum
        if inner is None or outer is None or not _is_filter(self.inner):
            return None
        return inner * outer

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is circulant and ``B`` a periodic filter."""
        return _is_filter(self.inner) and self.outer.is_circulant

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Whether ``A`` and ``B`` are both periodic filters."""
        return _is_filter(self.inner) and _is_filter(self.outer)

    def __repr__(self) -> str:
        return f"{self.outer!r} @ {self.inner!r}"


def _as_factor(value: object) -> float | complex:
    """A finite number of Python or NumPy as Python's own."""
    if isinstance(value, numbers.Complex) and math.isfinite(abs(value)):
        return float(value) if isinstance(value, numbers.Real) else complex(value)
    raise InputError(
        "the factor of an operator is not a finite number",
        got=describe(value),
        expected="a number, such as 2.0 * A",
        hint="To apply an operator A to a field x write A(x).",
    )


class Scaled(Linear):
    """``c A`` for a number ``c``; written ``c * A``.

    Args:
        operator: ``A``.
        factor: ``c``, finite; real where the range of ``A`` is real.

    Raises:
        DTypeError: a complex factor for an operator with real data.
        InputError: a factor that is not a finite number, or no operator.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity
        >>> half = 0.5 * Identity(Grid(("x",), (2,)))
        >>> half
        0.5 * Identity(2 -> 2)
        >>> half.gram(torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
    """

    def __init__(self, operator: Operator, factor: complex) -> None:
        self.operator = as_linear(operator)
        super().__init__(self.operator.domain, self.operator.range)
        self.factor = _as_factor(factor)
        if isinstance(self.factor, complex) and not self.range.is_complex:
            raise DTypeError("complex factor of a real operator", got=factor, expected="a float")

    def _forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor.conjugate() * self.operator.adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        """``|c|^2 A^H A x``, with the gram of ``A``: ``(batch, *domain.shape)``."""
        return abs(self.factor) ** 2 * self.operator.gram(x)

    @property
    def n_data(self) -> int:
        """Number of values that ``A`` measures."""
        return self.operator.n_data

    @property
    def measured(self) -> Tensor | None:
        """Booleans ``(*range.shape)``: the values that ``A`` measures; None for all."""
        return self.operator.measured

    @property
    def gram_spectrum(self) -> Tensor | None:
        """``|c|^2`` times the spectrum of ``A^H A``; None where ``A`` does not know its own."""
        spectrum = self.operator.gram_spectrum
        return None if spectrum is None else abs(self.factor) ** 2 * spectrum

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is diagonal in the DFT: a factor does not change that."""
        return self.operator.is_circulant

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Whether ``A`` is a periodic filter: a factor does not change that."""
        return _is_filter(self.operator)

    def __repr__(self) -> str:
        return f"{self.factor} * {self.operator!r}"
