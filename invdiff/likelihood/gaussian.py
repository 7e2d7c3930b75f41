"""Gaussian noise, white, with a level for each sample, or correlated."""

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
    """Noise that is correlated along one axis of the data, such as between receiver coils.

    With the covariance ``matrix = E[n n^H] = L L^H`` the data are whitened by ``L^-1`` along the
    axis. Assumptions: the same covariance at all points of the other axes. Cost: one product with
    an ``(n, n)`` matrix per whitening.

    Args:
        matrix: Covariance ``E[n n^H]``, ``(n, n)``, Hermitian positive definite, in squared units
            of the data.
        dim: Name of the axis in the operator's range.

    Example:
        Two channels whose noise is nearly the same are worth little more than one:

        >>> import torch
        >>> from invdiff import AxisCovariance, Gaussian, Grid
        >>> from invdiff.operators import Identity
        >>> grid = Grid(("coil", "x"), (2, 3))
        >>> noise = AxisCovariance(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        >>> data = Gaussian(torch.ones(2, 3), Identity(grid), noise)
        >>> white = Gaussian(torch.ones(2, 3), Identity(grid), 1.0)
        >>> zero = torch.zeros(1, 2, 3)
        >>> data.misfit(zero), white.misfit(zero)
        (tensor([0.5263]), tensor([1.]))
    """

    matrix: Tensor = field(repr=False)
    dim: str = "coil"


NoiseModel = float | Tensor | AxisCovariance | Callable[[Tensor], Tensor]
"""Noise standard deviation (a number, or a tensor that broadcasts to the data), a covariance along
one axis, or a callable that applies the Hermitian ``W = Sigma^(-1/2)`` to ``(batch, *data)``."""


class Gaussian(Likelihood):
    """Gaussian noise: ``y = A(x) + n`` with ``n ~ N(0, Sigma)``.

    With the whitening ``W = Sigma^(-1/2)``, which turns data and operator into those of unit
    noise::

        log p(y | x) = -|W (y - A(x))|^2 / 2 + const

    For complex data the noise is circular, ``Sigma = E[n n^H]``, so that a standard deviation ``s``
    means ``E|n|^2 = s^2``, and the factor 1/2 is left out.

    Assumptions: noise that is independent of the field. Linear operators allow closed-form updates
    (`MomentMatching`), others are linearised (`Laplace`). Cost: one operator call per evaluation
    and one adjoint per gradient.

    Args:
        y: Data, ``(*operator.range.shape)``.
        operator: Forward operator, linear or differentiable.
        noise: Standard deviation in the units of ``y``, a number or a tensor that broadcasts to
            ``y``; an `AxisCovariance`; or a function that applies the Hermitian ``W`` to
            ``(batch, *data)``.

    Raises:
        ShapeError: The data do not lie on the operator's range.
        NonFiniteError: The data hold NaN or Inf.
        NoiseLevelError: The noise level is not finite and positive.

    Example:
        >>> import torch
        >>> from invdiff import Gaussian, Grid
        >>> from invdiff.operators import Identity
        >>> data = Gaussian(torch.tensor([1.0, 3.0]), Identity(Grid(("x",), (2,))), 0.5)
        >>> data.misfit(torch.tensor([[1.0, 2.0]]))  # residuals 0 and 2, squared, per datum
        tensor([2.])
    """

    def __init__(self, y: Tensor, operator: Operator, noise: NoiseModel) -> None:
        super().__init__(y, operator)
        self.noise = float(noise) if isinstance(noise, int) else noise
        self._whiten, self._whiten_adjoint = _whitening(noise, operator, like=y)

    def __repr__(self) -> str:
        noise = self.noise if isinstance(self.noise, float | AxisCovariance) else "..."
        return f"Gaussian(y, {self.operator!r}, noise={noise!r})"

    def log_density(self, z: Tensor) -> Tensor:
        """``-|W (y - z)|^2 / 2``, ``(batch,)``; without the factor 1/2 for complex data."""
        return -squared_norm(self._whiten(self.y - z)) * (1.0 if self.y.is_complex() else 0.5)

    @property
    def log_normalisation(self) -> float:
        """The constant that makes :meth:`log_density` a density over the measured data.

        Raises:
            UnsupportedError: The noise is not given by one number.
        """
        if not isinstance(self.noise, float):
            raise UnsupportedError(
                "the normalisation of this noise model is not known",
                got=self,
                expected="noise given as one number",
            )
        variance = math.pi * self.noise**2 * (1.0 if self.y.is_complex() else 2.0)
        return -self.operator.n_data * math.log(variance) * (1.0 if self.y.is_complex() else 0.5)

    def information(self, z: Tensor) -> Tensor:
        """Diagonal of ``W^H W``: the Fisher information where the noise is independent."""
        ones = torch.ones_like(self.y)[None]
        return self._whiten_adjoint(self._whiten(ones)).abs().expand(z.shape)

    def local(self, z: Tensor) -> Local:
        """The likelihood itself, which is quadratic: residual ``W (y - z)`` and whitening ``W``."""
        return Local(self._whiten(self.y - z), self._whiten, self._whiten_adjoint)

    def misfit(self, x: Tensor) -> Tensor:
        """``|W (y - A x)|^2 / n_data`` of measured data, ``(batch,)``: 1 is expected."""
        return squared_norm(self.measured(self.residual(x))) / self.operator.n_data

    def residual(self, x: Tensor) -> Tensor:
        """Whitened residual ``W (y - A x)``, ``(batch, *data)``."""
        return self._whiten(self.y - self.operator(x))

    def forward(self, x: Tensor) -> Tensor:
        """Whitened prediction ``W A x``, ``(batch, *data)``."""
        return self._whiten(self.operator(x))

    def pullback(self, r: Tensor) -> Tensor:
        """Field ``A^H W^H r``, ``(batch, *domain)``, of whitened data ``r``, if ``A`` is linear."""
        return self._linear.adjoint(self._whiten_adjoint(r))

    def precision(self, x: Tensor) -> Tensor:
        """Product ``A^H Sigma^(-1) A x``, ``(batch, *domain)``, if ``A`` is linear."""
        if isinstance(self.noise, float):
            return self._linear.gram(x) * self.noise**-2
        return self.pullback(self.forward(x))

    @property
    def precision_spectrum(self) -> Tensor | None:
        """Diagonal of the precision in the DFT: exact for scalar noise, else approximate."""
        spectrum = self._linear.gram_spectrum
        if spectrum is None:
            return None
        if isinstance(self.noise, float):
            return spectrum / self.noise**2
        unit = self._whiten(torch.ones_like(self.y)[None])
        return spectrum * float(unit.abs().square().mean())

    @property
    def is_circulant(self) -> bool:
        """Whether the precision is diagonal in the DFT: ``precision_spectrum`` is all of it."""
        return isinstance(self.noise, float) and self._linear.is_circulant

    @property
    def data_grid(self) -> Grid:
        """Grid of the data: the operator's range."""
        return self.operator.range

    @property
    def n_data(self) -> int:
        """Number of measured values, as the operator counts them."""
        return self.operator.n_data

    @cached_property
    def _matrix(self) -> Tensor:
        domain = self.operator.domain
        eye = torch.eye(domain.size, dtype=domain.dtype, device=self.y.device)
        return self.measured(self.forward(eye.reshape(-1, *domain.shape))).mT.contiguous()

    @cached_property
    def informative(self) -> Tensor | None:
        """The measured data, unless the whitening mixes them with others; None for all."""
        mask = super().informative
        if mask is None or isinstance(self.noise, float | Tensor):
            return mask
        if isinstance(self.noise, AxisCovariance):
            axis = self.data_grid.dims.index(self.noise.dim)
            return mask if bool((mask == mask.narrow(axis, 0, 1)).all()) else None
        return None

    def matrix(self) -> Tensor:
        """``W A`` as a matrix ``(m, n)``, without rows of unmeasured data; computed once."""
        return self._matrix

    def measured(self, r: Tensor) -> Tensor:
        """The measured values of ``(batch, *data)``, ``(batch, m)``."""
        return measured_values(r, self.operator)

    def take(self, members: Tensor) -> Gaussian:
        """The likelihood itself: all members have the same data."""
        return self

    @property
    def _linear(self) -> CompleteOperator:
        if not self.is_linear:
            raise UnsupportedError(
                "this method needs a linear operator",
                got=self.operator,
                expected="one with an adjoint, or that declares is_linear = True",
            )
        return self.operator


_Map = Callable[[Tensor], Tensor]


def _whitening(noise: NoiseModel, operator: Operator, *, like: Tensor) -> tuple[_Map, _Map]:
    """The functions that apply ``W`` and ``W^H`` to ``(batch, *data)``."""
    if isinstance(noise, AxisCovariance):
        return _axis_whitening(noise, operator, like=like)
    if callable(noise):
        return noise, noise
    std = torch.as_tensor(noise, dtype=like.dtype.to_real(), device=like.device)
    if not (torch.isfinite(std) & (std > 0)).all():
        raise NoiseLevelError(
            "the noise level is not positive",
            got=noise if std.ndim == 0 else f"minimum {float(std.min())}",
            expected="a finite standard deviation > 0, in the units of the data",
            hint="Estimate it, for k-space with invdiff.operators.mri.estimate_noise_std.",
        )
    try:
        std.broadcast_to(like.shape)
    except RuntimeError as error:
        raise ShapeError(
            "the noise levels do not broadcast to the data",
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
        raise ShapeError(
            f"the data have no axis {noise.dim!r}", got=noise.dim, expected=f"one of {grid.dims}"
        )
    axis = grid.dims.index(noise.dim) + 1
    n = grid.shape[axis - 1]
    if tuple(noise.matrix.shape) != (n, n):
        raise ShapeError(
            f"the noise covariance of axis {noise.dim!r} has the wrong shape",
            got=tuple(noise.matrix.shape),
            expected=(n, n),
        )
    factor, info = torch.linalg.cholesky_ex(noise.matrix.to(like.device, like.dtype))
    if int(info) != 0 or not torch.isfinite(factor).all():
        raise NoiseLevelError(
            "the noise covariance is not positive definite",
            got=f"eigenvalues {torch.linalg.eigvalsh(noise.matrix).tolist()}",
            expected="all > 0",
        )
    inverse = torch.linalg.inv(factor)

    def along(matrix: Tensor) -> _Map:
        def apply(r: Tensor) -> Tensor:
            return torch.einsum("ij,j...->i...", matrix, r.movedim(axis, 0)).movedim(0, axis)

        return apply

    return along(inverse), along(inverse.mH)
