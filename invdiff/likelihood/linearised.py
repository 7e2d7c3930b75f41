"""Likelihoods as linear Gaussian ones around given fields."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from invdiff.grid import Grid
from invdiff.likelihood.base import Likelihood, measured_values

__all__ = ["LinearModel", "Linearised"]


class LinearModel(Protocol):
    """Whitened linear data of each member: a Gaussian likelihood, or a linearised one."""

    def residual(self, x: Tensor) -> Tensor:
        """Whitened residual ``W (y - A x)``, ``(batch, *data)``."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """Whitened prediction ``W A x``, ``(batch, *data)``."""
        ...

    def pullback(self, r: Tensor) -> Tensor:
        """Field ``A^H W^H r``, ``(batch, *domain)``, of whitened data ``r``."""
        ...

    def precision(self, x: Tensor) -> Tensor:
        """Product ``A^H Sigma^-1 A x``, ``(batch, *domain)``."""
        ...

    @property
    def precision_spectrum(self) -> Tensor | None:
        """Diagonal of the precision in the DFT, ``(*domain)``; None if it is not known."""
        ...

    @property
    def is_circulant(self) -> bool:
        """Whether the precision is diagonal in the DFT: ``precision_spectrum`` is all of it."""
        ...

    @property
    def data_grid(self) -> Grid:
        """Grid of the data."""
        ...

    @property
    def n_data(self) -> int:
        """Number of measured values."""
        ...

    @property
    def informative(self) -> Tensor | None:
        """Booleans over the data that mark those whose noise reaches the field; None for all."""
        ...

    def matrix(self) -> Tensor:
        """``W A`` of the measured data, ``(m, n)`` for all members or ``(batch, m, n)``."""
        ...

    def measured(self, r: Tensor) -> Tensor:
        """The measured values of ``(batch, *data)``, ``(batch, m)``."""
        ...

    def take(self, members: Tensor) -> LinearModel:
        """The model of the members with these indices."""
        ...


class Linearised:
    """Quadratic approximation of a likelihood around given fields, with which Gauss-Newton works.

    With the working residual ``r`` and root ``w`` of the likelihood (see `Likelihood`) and
    ``J = dA/dx`` at ``x*``::

        log p(y | x) ~ -|r - w J (x - x*)|^2 / 2,    residual(x) = r - w J (x - x*)

    Cost: two reverse passes of the operator per product with ``J``, one per product with ``J^H``.

    Args:
        likelihood: Likelihood with a differentiable operator.
        x_star: Fields around which to linearise, one per member, ``(batch, *domain)``.
    """

    precision_spectrum: Tensor | None = None
    is_circulant: bool = False

    def __init__(self, likelihood: Likelihood, x_star: Tensor) -> None:
        self.likelihood, self.x_star = likelihood, x_star.detach()
        with torch.enable_grad():
            self._leaf = self.x_star.clone().requires_grad_()
            self._z = likelihood.operator(self._leaf)
        self._local = likelihood.local(self._z.detach())

    @property
    def data_grid(self) -> Grid:
        """Grid of the data: the operator's range."""
        return self.likelihood.operator.range

    def residual(self, x: Tensor) -> Tensor:
        """Whitened residual ``r - w J (x - x*)``, ``(batch, *data)``."""
        return self._local.residual - self.forward(x - self.x_star)

    def forward(self, x: Tensor) -> Tensor:
        """Whitened change ``w J x`` of the prediction, ``(batch, *data)``."""
        with torch.enable_grad():
            dual = torch.zeros_like(self._z).requires_grad_()
            pulled = torch.autograd.grad(self._z, self._leaf, dual, create_graph=True)
            (pushed,) = torch.autograd.grad(pulled, dual, x)
        return self._local.whiten(pushed.detach())

    def pullback(self, r: Tensor) -> Tensor:
        """Field ``J^H w^H r``, ``(batch, *domain)``, of whitened data ``r``."""
        (pulled,) = torch.autograd.grad(
            self._z, self._leaf, self._local.whiten_adjoint(r), retain_graph=True
        )
        return pulled

    def precision(self, x: Tensor) -> Tensor:
        """Product ``J^H w^H w J x``, ``(batch, *domain)``."""
        return self.pullback(self.forward(x))

    @property
    def n_data(self) -> int:
        """Number of measured values, as the operator counts them."""
        return self.likelihood.operator.n_data

    @property
    def informative(self) -> Tensor | None:
        """The informative data of the likelihood; None for all."""
        return self.likelihood.informative

    def matrix(self) -> Tensor:
        """``w J``, ``(batch, m, n)``, by one reverse pass per datum for all members at once."""
        rows = []
        n_values = self._z[0].numel()
        for i in self.measured(torch.arange(n_values)[None])[0].tolist():
            unit = torch.zeros_like(self._z).flatten(1)
            unit[:, i] = 1
            rows.append(self.pullback(unit.reshape(self._z.shape)).flatten(1).conj())
        return torch.stack(rows, 1)

    def measured(self, r: Tensor) -> Tensor:
        """The measured values of ``(batch, *data)``, ``(batch, m)``."""
        return measured_values(r, self.likelihood.operator)

    def take(self, members: Tensor) -> Linearised:
        """The linearisation around the fields of the members with these indices."""
        return Linearised(self.likelihood, self.x_star[members])
