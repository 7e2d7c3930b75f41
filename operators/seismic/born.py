"""Born: the acoustic operator linearised about a background, for least-squares migration."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invdiff.errors import UnsupportedError
from invdiff.operators.base import HandWritten
from invdiff.operators.seismic.acoustic import Acoustic
from invdiff.operators.seismic.propagator import DevitoPropagator

__all__ = ["Born"]


class Born(HandWritten):
    r"""Singly scattered pressure ``dp = F'(v) dv`` of changes ``dv`` of the velocity, m/s.

    The Born approximation about a background ``v``, for least-squares migration. With ``m = 1/v^2``
    and the background field ``u``::

        m dp_tt - lap dp = -dm u_tt,    dm = -2 dv / v^3

    The adjoint is reverse-time migration (Baysal, Kosloff & Sherwood 1983, Geophysics 48(11)).
    Assumptions: those of `Acoustic` with constant density, and changes so weak that waves scattered
    twice are negligible. Cost: two wave fields per shot forwards, two solves per shot backwards.
    Both are adjoints of each other, to 1e-6 where not every wave field is stored (`Devito`).

    Args:
        operator: `Acoustic` of constant density with the engine Devito.
        background: ``v``, ``(nz, nx)``, m/s.

    Raises:
        UnsupportedError: another equation or engine.
    """

    def __init__(self, operator: Acoustic, background: Tensor) -> None:
        propagator = operator.propagator
        if operator.density is not None or not isinstance(propagator, DevitoPropagator):
            raise UnsupportedError(
                "Born needs constant density and Devito",
                got=operator,
                expected="Acoustic(..., density=None, engine=Devito())",
                hint="The derivative of any other is torch's own: torch.func.vjp(operator, v).",
            )
        operator.check(background[None])
        super().__init__(operator.domain, operator.range)
        self.operator, self.background, self.propagator = operator, background, propagator

    def _forward(self, x: Tensor) -> Tensor:
        v = self.propagator.setting.boundary.pad(self.background[None], self.propagator.n_ghost)
        change = -2 * self.propagator.setting.boundary.pad(x, self.propagator.n_ghost) / v**3
        return self.propagator.scatter(self._medium(self.background[None]), change[:, None])

    def _adjoint(self, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = self.background.expand(len(y), -1, -1).detach().clone().requires_grad_()
            medium = self._medium(leaf)
            image = self.propagator.pull_back(medium.detach(), y)
            (gradient,) = torch.autograd.grad(medium, leaf, image)
        return gradient

    def _medium(self, velocity: Tensor) -> Tensor:
        return self.propagator.medium(velocity, None)

    @property
    def settings(self) -> Mapping[str, object]:
        """What identifies it: all but the compiled solver, which follows from these."""
        names = ("operator", "background")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        return f"Born({self.operator!r})"
