"""Linear operators on grids: the base class and the algebra."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NoiseLevelError, ShapeError
from invdiff.grid import Grid
from invdiff.linalg import conjugate_gradient

__all__ = ["Adjoint", "Composed", "HandWritten", "Linear", "Scaled", "Stacked"]


class Linear(ABC):
    """A linear operator ``A`` from fields on ``domain`` to data on ``range``.

    A concrete operator writes ``_forward`` and ``_adjoint``, both batched over dim 0 and in plain
    torch; where torch cannot differentiate its forward it derives from `HandWritten` instead.
    ``A @ B`` composes, ``A.H`` is the adjoint, ``2.0 * A`` scales.

    Args:
        domain: grid of the fields.
        range: grid of the data.
    """

    is_linear = True
    is_differentiable = True

    def __init__(self, domain: Grid, range: Grid) -> None:
        self.domain = domain
        self.range = range

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``: ``(batch, *domain.shape)`` to ``(batch, *range.shape)``."""
        self.domain.check(x, name="field")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: ``(batch, *range.shape)`` to ``(batch, *domain.shape)``."""
        self.range.check(y, name="data")
        return self._adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x``, ``(batch, *domain.shape)``."""
        return self.adjoint(self(x))

    @property
    def measured(self) -> Tensor | None:
        """Booleans over the range: which values are measured; None for all."""
        return None

    @property
    def n_data(self) -> int:
        """Number of measured values in the range."""
        return self.range.size if self.measured is None else int(self.measured.sum())

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Diagonal of ``F A^H A F^H``, real, ``domain.shape``, ``torch.fft`` order; if known."""
        return None

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is diagonal in the DFT, so that ``gram_spectrum`` is all of it."""
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

        By FFT where ``A^H A`` is circulant, else by conjugate gradients preconditioned with
        ``gram_spectrum``.

        Args:
            b: right-hand sides ``(batch, *domain.shape)``.
            rho: prior precision, positive.
            noise_std: standard deviation of the data, positive.
            rtol: relative residual at which the iteration stops.
            max_iterations: bound on the iterations.

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
    def is_diagonal_in_dft(self) -> bool:
        """Whether ``A`` itself, not only ``A^H A``, is diagonal in the DFT: a periodic filter."""
        return False

    @property
    def H(self) -> Linear:
        """The adjoint as an operator."""
        return Adjoint(self)

    def __matmul__(self, other: Linear) -> Linear:
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
    if isinstance(value, Tensor | Linear):
        return value.to(device)
    if isinstance(value, tuple) and any(isinstance(v, Tensor | Linear) for v in value):
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
    """A linear operator that torch cannot differentiate: its vjp is its ``_adjoint``.

    For forwards that leave torch (numpy, a solver). Differentiable any number of times.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``, differentiable through the adjoint."""
        self.domain.check(x, name="field")
        y: Tensor = _WithAdjoint.apply(x, self)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``, differentiable through the forward."""
        self.range.check(y, name="data")
        x: Tensor = _WithAdjoint.apply(y, Adjoint(self))
        return x


class Adjoint(Linear):
    """``A^H`` as an operator from the range of ``A`` to its domain."""

    def __init__(self, operator: Linear) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    def __call__(self, x: Tensor) -> Tensor:
        """``A^H x``."""
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A y``."""
        return self.operator(y)

    @property
    def is_diagonal_in_dft(self) -> bool:
        """As ``A``."""
        return self.operator.is_diagonal_in_dft

    @property
    def is_circulant(self) -> bool:
        """As ``A``, where ``A`` is a filter."""
        return self.operator.is_diagonal_in_dft

    @property
    def gram_spectrum(self) -> Tensor | None:
        """That of ``A``, where ``A`` is a filter."""
        return self.operator.gram_spectrum if self.operator.is_diagonal_in_dft else None

    @property
    def H(self) -> Linear:
        """The operator itself."""
        return self.operator

    def __repr__(self) -> str:
        return f"{self.operator!r}.H"


class Composed(Linear):
    """``A B``: first ``B``, then ``A``.

    Raises:
        ShapeError: the range of ``B`` has another shape than the domain of ``A``.
        DTypeError: one is real, the other complex.
    """

    def __init__(self, outer: Linear, inner: Linear) -> None:
        if outer.domain.shape != inner.range.shape:
            raise ShapeError(
                "operators do not compose",
                got=f"{outer!r} @ {inner!r}",
                expected="the range of the second to be the domain of the first",
            )
        if outer.domain.is_complex != inner.range.is_complex:
            raise DTypeError(
                f"operators do not compose: {outer!r} @ {inner!r}",
                got=inner.range.dtype,
                expected=outer.domain.dtype,
            )
        super().__init__(inner.domain, outer.range)
        self.outer, self.inner = outer, inner

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def gram(self, x: Tensor) -> Tensor:
        """``B^H (A^H A) B x``."""
        return self.inner.adjoint(self.outer.gram(self.inner(x)))

    @property
    def n_data(self) -> int:
        """Number of values that ``A`` measures."""
        return self.outer.n_data

    @property
    def measured(self) -> Tensor | None:
        """As ``A``."""
        return self.outer.measured

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Product of the two spectra, where ``B`` is a filter."""
        inner, outer = self.inner.gram_spectrum, self.outer.gram_spectrum
        if inner is None or outer is None or not self.inner.is_diagonal_in_dft:
            return None
        return inner * outer

    @property
    def is_circulant(self) -> bool:
        """Whether ``A^H A`` is circulant and ``B`` a filter."""
        return self.inner.is_diagonal_in_dft and self.outer.is_circulant

    @property
    def is_diagonal_in_dft(self) -> bool:
        """Whether both are filters."""
        return self.inner.is_diagonal_in_dft and self.outer.is_diagonal_in_dft

    def __repr__(self) -> str:
        return f"{self.outer!r} @ {self.inner!r}"


class Scaled(Linear):
    """``c A`` for a number ``c``, real where the range is real.

    Raises:
        DTypeError: a complex factor for an operator with real data.
    """

    def __init__(self, operator: Linear, factor: complex) -> None:
        if isinstance(factor, complex) and not operator.range.is_complex:
            raise DTypeError("complex factor of a real operator", got=factor, expected="a float")
        super().__init__(operator.domain, operator.range)
        self.operator, self.factor = operator, factor

    def _forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor.conjugate() * self.operator.adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        """``|c|^2 A^H A x``."""
        return abs(self.factor) ** 2 * self.operator.gram(x)

    @property
    def n_data(self) -> int:
        """As ``A``."""
        return self.operator.n_data

    @property
    def measured(self) -> Tensor | None:
        """As ``A``."""
        return self.operator.measured

    @property
    def gram_spectrum(self) -> Tensor | None:
        """``|c|^2`` times that of ``A``."""
        spectrum = self.operator.gram_spectrum
        return None if spectrum is None else abs(self.factor) ** 2 * spectrum

    @property
    def is_circulant(self) -> bool:
        """As ``A``."""
        return self.operator.is_circulant

    @property
    def is_diagonal_in_dft(self) -> bool:
        """As ``A``."""
        return self.operator.is_diagonal_in_dft

    def __repr__(self) -> str:
        return f"{self.factor} * {self.operator!r}"


class Stacked(Linear):
    """Several operators on one domain: ``x -> (A_1 x, A_2 x, ...)``, flattened and joined.

    Raises:
        InputError: no operators.
        ShapeError: domains of different shape.
        DTypeError: domains or ranges of different dtype.
    """

    def __init__(self, *operators: Linear) -> None:
        if not operators:
            raise InputError("nothing to stack", got="no operators", expected="one or more")
        first = operators[0]
        for operator in operators[1:]:
            if operator.domain.shape != first.domain.shape:
                raise ShapeError(
                    "stacked operators have different domains",
                    got=operator.domain.shape,
                    expected=first.domain.shape,
                )
            dtypes = operator.domain.dtype, operator.range.dtype
            if dtypes != (first.domain.dtype, first.range.dtype):
                raise DTypeError(
                    "stacked operators have different dtypes",
                    got=dtypes,
                    expected=(first.domain.dtype, first.range.dtype),
                )
        n_values = sum(operator.range.size for operator in operators)
        super().__init__(first.domain, Grid(("data",), (n_values,), first.range.dtype))
        self.operators = operators

    def split(self, y: Tensor) -> list[Tensor]:
        """Data ``(batch, n)`` cut into those of each operator, in the shape of its range."""
        parts = y.split([operator.range.size for operator in self.operators], dim=1)
        return [p.reshape(-1, *o.range.shape) for p, o in zip(parts, self.operators, strict=True)]

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([operator(x).flatten(1) for operator in self.operators], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = zip(self.operators, self.split(y), strict=True)
        return torch.stack([operator.adjoint(part) for operator, part in parts]).sum(0)

    def gram(self, x: Tensor) -> Tensor:
        """``sum_i A_i^H A_i x``."""
        return torch.stack([operator.gram(x) for operator in self.operators]).sum(0)

    @property
    def n_data(self) -> int:
        """Sum over the operators."""
        return sum(operator.n_data for operator in self.operators)

    @property
    def measured(self) -> Tensor | None:
        """Those of the operators, joined."""
        masks = [operator.measured for operator in self.operators]
        if all(mask is None for mask in masks):
            return None
        ranges = [operator.range for operator in self.operators]
        full = [torch.ones(grid.shape, dtype=torch.bool) for grid in ranges]
        pairs = zip(masks, full, strict=True)
        return torch.cat([(all_ if mask is None else mask).flatten() for mask, all_ in pairs])

    @property
    def gram_spectrum(self) -> Tensor | None:
        """Sum over the operators, where all know theirs."""
        spectra = [operator.gram_spectrum for operator in self.operators]
        known = [spectrum for spectrum in spectra if spectrum is not None]
        return torch.stack(known).sum(0) if len(known) == len(spectra) else None

    @property
    def is_circulant(self) -> bool:
        """Whether all are."""
        return all(operator.is_circulant for operator in self.operators)

    def __repr__(self) -> str:
        return f"Stacked({', '.join(map(repr, self.operators))})"
