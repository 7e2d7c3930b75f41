"""BFGS estimates of the curvature of a misfit, batched over members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from invdiff.covariance import Covariance

__all__ = ["Curvature"]

_LEAST = 0.1  # smallest share of s^T B s that s^T y has after damping


@dataclass(frozen=True, eq=False)
class Curvature:
    """The curvature ``B`` of each member's misfit, estimated from its gradients by BFGS.

    From changes ``s`` of the model and ``y`` of the gradient, ``B`` is updated to satisfy
    ``B s = y``::

        B_+ = B - (B s)(B s)^T / (s^T B s) + y y^T / (s^T y)

    with Powell's damping where the misfit is not convex along ``s``, so that ``B`` stays positive
    (Nocedal & Wright 2006, doi 10.1007/978-0-387-40065-5, chapters 6 and 18). Only products ``B v``
    and draws ``N(0, B)`` are offered, in double precision.

    Assumptions: a misfit that is close to quadratic between the steps. Cost: no wave solve;
    a product takes two inner products per pair.

    Args:
        base: Initial curvature ``B_0``, positive, shared by the members or one for each.
        s: Changes of the model, oldest first, ``(batch, k, nz, nx)``, m/s.
        y: Damped changes of the gradient, ``(batch, k, nz, nx)``.
    """

    base: Covariance
    s: Tensor
    y: Tensor

    @classmethod
    def start(cls, base: Covariance, x: Tensor) -> Curvature:
        """The curvature ``B_0`` without updates, for models like ``x``, ``(batch, nz, nx)``."""
        none = x.double()[:, None][:, :0]
        return cls(base, none, none)

    def updated(self, s: Tensor, y: Tensor, *, memory: int) -> Curvature:
        """The curvature with one more pair ``(batch, nz, nx)``; the latest ``memory`` are kept.

        The pair of a member that did not move changes nothing.
        """
        s, y = s.double(), y.double()
        bs = self.product(s)
        sbs, sy = _dot(s, bs), _dot(s, y)
        mix = torch.where(sy < _LEAST * sbs, (1 - _LEAST) * sbs / (sbs - sy), 1.0)
        pairs = s, mix * y + (1 - mix) * bs
        kept = []
        for old, new in zip((self.s, self.y), pairs, strict=True):
            moved = torch.where(sbs > 0, new, 0.0)
            kept.append(torch.cat([old, moved[:, None]], dim=1)[:, -memory:])
        return Curvature(self.base, *kept)

    def expand(self, batch: int) -> Curvature:
        """The curvature of one member, repeated for a batch."""
        if len(self.s) == batch:
            return self
        return Curvature(
            self.base.take(torch.zeros(batch, dtype=torch.long, device=self.s.device)),
            *(a.expand(batch, -1, -1, -1) for a in (self.s, self.y)),
        )

    def product(self, v: Tensor) -> Tensor:
        """Product ``B v`` of ``v``, ``(batch, nz, nx)``, in double precision."""
        v = v.double()
        minus, plus = self._factors
        return self.base(v) - _project(minus, v) + _project(plus, v)

    def draw(self, e: Tensor) -> Tensor:
        """Draws from ``N(0, B)`` of standard normal ``e``, ``(batch, nz, nx)``.

        With ``B_+ = A B A^T``, ``A = I + (b - a) s^T / c``, where ``a`` and ``b`` are the factors
        of an update and ``c^2 = s^T B s``.
        """
        w = self.base.draw(e.double())
        minus, plus = self._factors
        for k in range(self.s.shape[1]):
            s = self.s[:, k]
            c = _dot(minus[:, k], s)  # (B s)^T s / c
            along = torch.where(c > 0, _dot(s, w) / c.clamp_min(1e-300), 0.0)
            w = w + (plus[:, k] - minus[:, k]) * along
        return w

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Factors ``B s / sqrt(s^T B s)`` and ``y / sqrt(s^T y)`` of each update, like ``s``."""
        minus, plus = torch.zeros_like(self.s), torch.zeros_like(self.y)
        for k in range(self.s.shape[1]):
            s, y = self.s[:, k], self.y[:, k]
            bs = self.base(s) - _project(minus[:, :k], s) + _project(plus[:, :k], s)
            minus[:, k] = _over_root(bs, _dot(s, bs))
            plus[:, k] = _over_root(y, _dot(s, y))
        return minus, plus


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of each member, ``(batch, 1, 1)``."""
    return (a * b).sum((-2, -1), keepdim=True)


def _project(factors: Tensor, v: Tensor) -> Tensor:
    """Sum ``sum_k a_k (a_k . v)`` over the factors of each member."""
    flat = factors.flatten(2)
    weights = torch.einsum("bkn,bn->bk", flat, v.flatten(1))
    return torch.einsum("bkn,bk->bn", flat, weights).reshape(v.shape)


def _over_root(v: Tensor, square: Tensor) -> Tensor:
    """``v / sqrt(square)``; zero where ``square`` is not positive."""
    return torch.where(square > 0, v / square.clamp_min(1e-300).sqrt(), 0.0)
