r"""Gaussian noise: ``y = A(x) + n`` with ``n ~ N(0, Sigma)``.

Everything downstream sees it whitened:
``W = Sigma^(-1/2)`` turns data and operator into ones with unit noise. For complex data the noise
is circular and ``Sigma = E[n n^H]``, so that a standard deviation ``s`` means ``E|n|^2 = s^2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from invdiff.errors import NoiseLevelError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.likelihood.base import Likelihood, Local, measured_values
from invdiff.linalg import squared_norm
from invdiff.protocols import CompleteOperator, Operator

__all__ = ["AxisCovariance", "Gaussian", "NoiseModel"]


@dataclass(frozen=True, eq=False)
class AxisCovariance:
    """Noise that is correlated along one axis of the data, such as between coils.

    Args:
        matrix: ``(n, n)`` Hermitian positive-definite ``E[n n^H]``.
        dim: name of the axis in the operator's range.
    """

    matrix: Tensor = field(repr=False)
    dim: str = "coil"


NoiseModel = float | Tensor | AxisCovariance | Callable[[Tensor], Tensor]
"""Noise standard deviation (a number, or a tensor that broadcasts to the data), a covariance along
one axis, or a callable that applies the Hermitian ``W = Sigma^(-1/2)`` to ``(batch, *data)``."""


class Gaussian(Likelihood):
    r"""``log p(y | x) = -|W (y - A x)|^2 / 2`` (without the 1/2 for complex data) + const.

    Args:
        y: data ``(*operator.range.shape)``.
        operator: linear, or any differentiable one.
        noise: see :data:`NoiseModel`; in the units of ``y``.

    Raises:
        ShapeError: data that do not lie on the operator's range.
        NonFiniteError: NaN or Inf in the data.
        NoiseLevelError: a noise level that is not finite and positive.
    """

    def __init__(self, y: Tensor, operator: Operator, noise: NoiseModel) -> None:
        super().__init__(y, operator)
        self.noise = float(noise) if isinstance(noise, int) else noise
        self._whiten, self._whiten_adjoint = _whitening(noise, operator, like=y)

    def __repr__(self) -> str:
        """Operator and noise."""
        noise = self.noise if isinstance(self.noise, float | AxisCovariance) else "..."
        return f"Gaussian(y, {self.operator!r}, noise={noise!r})"

    def log_density(self, z: Tensor) -> Tensor:
        """``-|W (y - z)|^2 / 2`` (without the 1/2 for complex data), ``(batch,)``."""
        return -squared_norm(self._whiten(self.y - z)) * (1.0 if self.y.is_complex() else 0.5)

    @property
    def log_normalisation(self) -> float:
        """What makes :meth:`log_density` a density over the measured data.

        Raises:
            UnsupportedError: noise that is not one number.
        """
        if not isinstance(self.noise, float):
            raise UnsupportedError(
                "the normalisation of this noise model is not known", got=self, expected="a number"
            )
        variance = math.pi * self.noise**2 * (1.0 if self.y.is_complex() else 2.0)
        return -self.operator.n_data * math.log(variance) * (1.0 if self.y.is_complex() else 0.5)

    def information(self, z: Tensor) -> Tensor:
        """``diag(W^H W)``: the Fisher information where the noise is independent."""
        ones = torch.ones_like(self.y)[None]
        return self._whiten_adjoint(self._whiten(ones)).abs().expand(z.shape)

    def local(self, z: Tensor) -> Local:
        """The likelihood itself."""
        return Local(self._whiten(self.y - z), self._whiten, self._whiten_adjoint)

    def misfit(self, x: Tensor) -> Tensor:
        """``|W (y - A x)|^2 / n_data``, ``(batch,)``: 1 in expectation over posterior and data."""
        return squared_norm(self.residual(x)) / self.operator.n_data

    def residual(self, x: Tensor) -> Tensor:
        """``W (y - A x)``."""
        return self._whiten(self.y - self.operator(x))

    def forward(self, x: Tensor) -> Tensor:
        """``W A x``."""
        return self._whiten(self.operator(x))

    def pullback(self, r: Tensor) -> Tensor:
        """``A^H W^H r``, for linear operators."""
        return self._linear.adjoint(self._whiten_adjoint(r))

    def precision(self, x: Tensor) -> Tensor:
        """``A^H Sigma^(-1) A x``, for linear operators."""
        if isinstance(self.noise, float):
            return self._linear.gram(x) * self.noise**-2
        return self.pullback(self.forward(x))

    @property
    def precision_spectrum(self) -> Tensor | None:
        """Diagonal of the precision in the domain's DFT: exact for scalar noise, else a guide."""
        spectrum = self._linear.gram_spectrum
        if spectrum is None:
            return None
        if isinstance(self.noise, float):
            return spectrum / self.noise**2
        unit = self._whiten(torch.ones_like(self.y)[None])
        return spectrum * float(unit.abs().square().mean())

    @property
    def is_circulant(self) -> bool:
        """Whether the precision is ``precision_spectrum`` in the DFT and nothing else."""
        return isinstance(self.noise, float) and self._linear.is_circulant

    @property
    def data_grid(self) -> Grid:
        """The operator's range."""
        return self.operator.range

    @property
    def n_data(self) -> int:
        """Number of measured values."""
        return self.operator.n_data

    @cached_property
    def _matrix(self) -> Tensor:
        domain = self.operator.domain
        eye = torch.eye(domain.size, dtype=domain.dtype, device=self.y.device)
        return self.measured(self.forward(eye.reshape(-1, *domain.shape))).mT.contiguous()

    @cached_property
    def informative(self) -> Tensor | None:
        """Those measured, unless the whitening mixes them with others; None for all."""
        mask = super().informative
        if mask is None or isinstance(self.noise, float | Tensor):
            return mask
        if isinstance(self.noise, AxisCovariance):
            axis = self.data_grid.dims.index(self.noise.dim)
            return mask if bool((mask == mask.narrow(axis, 0, 1)).all()) else None
        return None

    def matrix(self) -> Tensor:
        """``W A`` as a matrix, rows of unmeasured data left out; computed once."""
        return self._matrix

    def measured(self, r: Tensor) -> Tensor:
        """The measured ones of ``(batch, *data)``, ``(batch, m)``."""
        return measured_values(r, self.operator)

    def take(self, members: Tensor) -> Gaussian:
        """Itself: all members have the same data."""
        return self

    @property
    def _linear(self) -> CompleteOperator:
        if not self.is_linear:
            raise UnsupportedError(
                "this needs a linear operator",
                got=self.operator,
                expected="one with an adjoint, or that declares is_linear = True",
            )
        return self.operator


_Map = Callable[[Tensor], Tensor]


def _whitening(noise: NoiseModel, operator: Operator, *, like: Tensor) -> tuple[_Map, _Map]:
    """``W`` and ``W^H``."""
    if isinstance(noise, AxisCovariance):
        return _axis_whitening(noise, operator, like=like)
    if callable(noise):
        return noise, noise
    std = torch.as_tensor(noise, dtype=like.dtype.to_real(), device=like.device)
    if not (torch.isfinite(std) & (std > 0)).all():
        raise NoiseLevelError(
            "noise level is not positive",
            got=noise if std.ndim == 0 else f"minimum {float(std.min())}",
            expected="a finite standard deviation > 0, in the units of the data",
            hint="Estimate it, for k-space with invdiff.operators.mri.estimate_noise_std.",
        )
    try:
        std.broadcast_to(like.shape)
    except RuntimeError as error:
        raise ShapeError(
            "noise levels do not broadcast to the data",
            got=tuple(std.shape),
            expected=tuple(like.shape),
        ) from error

    def divide(r: Tensor) -> Tensor:
        return r / std

    return divide, divide


def _axis_whitening(
    noise: AxisCovariance, operator: Operator, *, like: Tensor
) -> tuple[_Map, _Map]:
    grid = operator.range
    if noise.dim not in grid.dims:
        raise ShapeError("no such axis in the data", got=noise.dim, expected=grid.dims)
    axis = grid.dims.index(noise.dim) + 1
    n = grid.shape[axis - 1]
    if tuple(noise.matrix.shape) != (n, n):
        raise ShapeError(
            f"noise covariance of {noise.dim!r}", got=tuple(noise.matrix.shape), expected=(n, n)
        )
    factor, info = torch.linalg.cholesky_ex(noise.matrix.to(like.device, like.dtype))
    if int(info) != 0 or not torch.isfinite(factor).all():
        raise NoiseLevelError(
            "noise covariance is not positive definite",
            got=f"eigenvalues {torch.linalg.eigvalsh(noise.matrix).tolist()}",
            expected="all > 0",
        )
    inverse = torch.linalg.inv(factor)

    def along(matrix: Tensor) -> _Map:
        def apply(r: Tensor) -> Tensor:
            return torch.einsum("ij,j...->i...", matrix, r.movedim(axis, 0)).movedim(0, axis)

        return apply

    return along(inverse), along(inverse.mH)
