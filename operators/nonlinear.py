"""Nonlinear operators: pointwise functions around a linear operator, and the black box."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from invdiff.arguments import as_number
from invdiff.errors import DTypeError, InputError
from invdiff.grid import Grid
from invdiff.operators.base import as_linear
from invdiff.operators.inputs import check_grid, describe
from invdiff.protocols import CompleteOperator

__all__ = ["BlackBox", "Lognormal", "Magnitude", "Saturating"]


@dataclass(frozen=True)
class _Around:
    """A function of the fields or data of a linear operator, differentiable by torch."""

    linear: CompleteOperator
    is_linear: bool = field(default=False, init=False, repr=False)
    is_differentiable: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "linear", as_linear(self.linear))

    @property
    def domain(self) -> Grid:
        """Grid of the fields: that of the linear operator."""
        return self.linear.domain

    @property
    def range(self) -> Grid:
        """Grid of the data: that of the linear operator."""
        return self.linear.range

    @property
    def n_data(self) -> int:
        """Number of values of the range that the linear operator measures."""
        return self.linear.n_data

    @property
    def measured(self) -> Tensor | None:
        """Booleans ``(*range.shape)``: the values that ``A`` measures; None for all."""
        return self.linear.measured

    def to(self, device: torch.device | str) -> Self:
        """A copy whose linear operator is on another device, if that can be moved."""
        move = getattr(self.linear, "to", None)
        return self if move is None else replace(self, linear=move(device))


def _check_real(operator: _Around) -> None:
    if operator.domain.is_complex or operator.range.is_complex:
        raise DTypeError(
            f"{type(operator).__name__} needs real fields and data",
            got=f"{operator.domain.dtype}, {operator.range.dtype}",
            expected="a linear operator between real grids",
        )


@dataclass(frozen=True)
class Saturating(_Around):
    """``y = level s(A x / level)``: a detector that saturates, by default ``s = tanh``.

    Linear for ``|A x| << level``; beyond a few levels the data say no more than the sign. Other
    curves are ``torch.atan``, and ``torch.nn.functional.softsign``, ``x / (1 + |x|)``, which
    saturate more slowly. The Jacobian is ``diag(s'(A x / level)) A``: a gradient costs one product
    with ``A^H``.

    Args:
        linear: ``A``, real.
        level: where the detector saturates, in units of the data.
        curve: ``s``, pointwise, differentiable by torch, of slope 1 at zero.

    Raises:
        DTypeError: a complex operator.
        InputError: a level that is not positive and finite, a curve that cannot be called, or no
            operator.
        UnsupportedError: an operator that is not linear by declaration.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity, Saturating
        >>> detector = Saturating(Identity(Grid(("x",), (3,))), level=2.0)
        >>> detector(torch.tensor([[0.02, 2.0, 200.0]]))
        tensor([[0.0200, 1.5232, 2.0000]])
        >>> slow = Saturating(detector.linear, 2.0, torch.nn.functional.softsign)
        >>> slow(torch.tensor([[0.02, 2.0, 200.0]]))
        tensor([[0.0198, 1.0000, 1.9802]])
    """

    level: float
    curve: Callable[[Tensor], Tensor] = torch.tanh

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_real(self)
        object.__setattr__(self, "level", as_number("level", self.level))
        if not callable(self.curve):
            raise InputError(
                "the curve of Saturating cannot be called",
                got=describe(self.curve),
                expected="a function such as torch.tanh or torch.atan",
            )

    def __call__(self, x: Tensor) -> Tensor:
        """``level s(A x / level)``: fields to data, ``(batch, *range.shape)``."""
        self.domain.check(x, name="field")
        return self.level * self.curve(self.linear(x) / self.level)

    def __repr__(self) -> str:
        # A function's own repr holds its address.
        curve = "" if self.curve is torch.tanh else f", curve={_name(self.curve)}"
        return f"Saturating(linear={self.linear!r}, level={self.level!r}{curve})"


def _name(function: Callable[[Tensor], Tensor]) -> str:
    return getattr(function, "__name__", None) or repr(function)


@dataclass(frozen=True)
class Lognormal(_Around):
    """``y = A exp(log_mean + log_std x)``: a positive field that is Gaussian in its logarithm.

    For permeability, concentrations, rates of counts. Its Jacobian is
    ``A diag(log_std exp(log_mean + log_std x))``: a gradient costs one product with ``A^H``.

    Args:
        linear: ``A``, real.
        log_mean: mean of the logarithm of the field.
        log_std: standard deviation of that logarithm where ``x`` has unit variance.

    Raises:
        DTypeError: a complex operator.
        InputError: ``log_mean`` not finite, ``log_std`` not positive and finite, or no operator.
        UnsupportedError: an operator that is not linear by declaration.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity, Lognormal
        >>> operator = Lognormal(Identity(Grid(("x",), (3,))), log_std=0.5)
        >>> operator(torch.tensor([[-2.0, 0.0, 2.0]]))
        tensor([[0.3679, 1.0000, 2.7183]])
    """

    log_mean: float = 0.0
    log_std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_real(self)
        object.__setattr__(self, "log_mean", as_number("log_mean", self.log_mean, above=-math.inf))
        object.__setattr__(self, "log_std", as_number("log_std", self.log_std))

    def __call__(self, x: Tensor) -> Tensor:
        """``A exp(log_mean + log_std x)``: fields to data, ``(batch, *range.shape)``."""
        self.domain.check(x, name="field")
        return self.linear(torch.exp(self.log_mean + self.log_std * x))


@dataclass(frozen=True)
class Magnitude(_Around):
    """``y = |A x|``: complex data of which the phase was lost.

    For phase retrieval and for magnitude images, with `Rician` noise. Differentiable but at
    ``A x = 0``, where torch's derivative is zero; a global phase of ``x`` leaves the data as they
    are, so the posterior has as many modes as the prior allows phases.

    Args:
        linear: ``A``, with complex data.

    Raises:
        DTypeError: an operator with real data.
        InputError: no operator.
        UnsupportedError: an operator that is not linear by declaration.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import Identity, Magnitude
        >>> operator = Magnitude(Identity(Grid(("x",), (2,), torch.complex64)))
        >>> operator(torch.tensor([[3.0 + 4.0j, -1.0j]]))
        tensor([[5., 1.]])
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.linear.range.is_complex:
            raise DTypeError(
                "Magnitude needs complex data",
                got=self.linear.range.dtype,
                expected="a linear operator with a complex range",
            )

    @property
    def range(self) -> Grid:
        """Grid of the data: that of the linear operator, for real values."""
        grid = self.linear.range
        return grid.with_dtype(grid.real_dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """``|A x|``: fields to real data, ``(batch, *range.shape)``."""
        self.domain.check(x, name="field")
        return self.linear(x).abs()


@dataclass(frozen=True)
class BlackBox:
    """Any callable as an operator that is evaluated and never differentiated.

    For simulators of other libraries. Only samplers that evaluate the operator alone can use it,
    such as `EnKG` or `EKI`; the others refuse it. A gradient that is asked of its data
    raises torch's error, for they carry no graph.

    Args:
        function: ``(batch, *domain.shape)`` to ``(batch, *range.shape)``, members independent.
        domain: grid of the fields.
        range: grid of the data.

    Raises:
        InputError: a function that cannot be called, or anything but a `Grid`.

    Examples:
        >>> import torch
        >>> from invdiff import Grid
        >>> from invdiff.operators import BlackBox
        >>> grid = Grid(("x",), (3,))
        >>> box = BlackBox(lambda x: x.sort(-1).values, grid, grid)
        >>> box(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([[1., 2., 3.]])
    """

    function: Callable[[Tensor], Tensor]
    domain: Grid
    range: Grid
    is_differentiable: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_grid(self.domain, type(self))
        check_grid(self.range, type(self), name="range")
        if not callable(self.function):
            raise InputError(
                "function of BlackBox cannot be called",
                got=describe(self.function),
                expected="a callable from fields to data",
            )

    @property
    def n_data(self) -> int:
        """Number of data: all values of the range."""
        return self.range.size

    def __call__(self, x: Tensor) -> Tensor:
        """Data of the function: ``(batch, *domain.shape)`` to ``(batch, *range.shape)``.

        Raises:
            ShapeError: a field off the domain, or data off the range.
            DTypeError: one of them real where its grid is complex, or the reverse.
        """
        self.domain.check(x, name="field")
        with torch.no_grad():
            y = self.function(x.detach())
        self.range.check(y, name="data of the black box")
        return y
