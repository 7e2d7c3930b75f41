"""Krylov methods batched over the first axis, for Hermitian operators on real or complex fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Solution",
    "conjugate_gradient",
    "inner",
    "lanczos",
    "per_member",
    "squared_norm",
]

Apply = Callable[[Tensor], Tensor]
_SPAN = 4  # least number of iterations over which the fall of an error's energy is measured
_SAFETY = 2.0**2  # factor on the energy that is extrapolated from it


class Solution(NamedTuple):
    """Result of a solve.

    Attributes:
        x: Solution, ``(batch, *)``.
        iterations: Number of iterations done.
        residual: Final relative residual ``|r|_M / |b|_M`` of each member, ``(batch,)``.
    """

    x: Tensor
    iterations: int
    residual: Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of each member, ``(batch,)``."""
    products: Tensor = (a.conj() * b).real.flatten(1).sum(1)
    return products


def squared_norm(a: Tensor) -> Tensor:
    """``|a|^2`` of each member, ``(batch,)``."""
    return a.abs().square().flatten(1).sum(1)


def per_member(values: Tensor, like: Tensor) -> Tensor:
    """``(batch,)`` values shaped to broadcast over the fields of ``like``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of each member, shaped to broadcast over its field."""
    products: Tensor = torch.linalg.vecdot(_as_real(a).flatten(1), _as_real(b).flatten(1))
    return products.reshape(-1, *(1,) * (a.ndim - 1))


def _as_real(a: Tensor) -> Tensor:
    return torch.view_as_real(a) if a.is_complex() else a


def _spread(factor: Tensor, a: Tensor) -> Tensor:
    """A factor of each member, shaped to broadcast over the real view of ``a``."""
    return factor[..., None] if a.is_complex() else factor


def conjugate_gradient(
    apply: Apply,
    b: Tensor,
    *,
    precondition: Apply | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    max_iterations: int = 100,
) -> Solution:
    """Solve ``K x = b`` for a Hermitian positive-definite ``K`` (Hestenes & Stiefel 1952).

    Members are solved next to each other and independently: one that has converged is frozen, so
    that its result does not depend on the others. Inner products are ``Re <a, b>``, which also
    covers operators on complex fields that are only real-linear, such as Jacobians of networks.

    The error ``e`` has the energy ``<e, K e> = <r, K^-1 r>``, the square of its energy norm. It is
    estimated by ``|r|^2``, an upper bound where ``K >= I``; by ``|r|_M^2 = <r, M r>`` with the
    preconditioner ``M``, which is too low where ``M`` is a poor approximation of ``K^-1``; and by
    its recent decrease, which the coefficients of the iteration give exactly (Strakos & Tichy 2002,
    Electron. Trans. Numer. Anal. 13, 56-80).

    Cost: one application of ``K`` and one of the preconditioner per iteration.

    Args:
        apply: Applies ``K`` to fields ``(batch, *)``.
        b: Right-hand sides, ``(batch, *)``.
        precondition: Applies an approximation of ``K^-1``, Hermitian positive definite; None for
            the identity.
        rtol: A member stops when ``|r|_M <= rtol |b|_M``.
        atol: A member also stops when the energy norm of its error is at most this: when
            ``|r| <= atol``, or when both other estimates are.
        max_iterations: Number of iterations after which all members stop.
    """
    # Updates are made in place on real views of copies, at half the cost of complex ones.
    x, r = torch.zeros_like(b), b.clone()
    z = precondition(r) if precondition else r
    p = z.clone()
    rho = start = _dot(r, z)
    active = torch.ones_like(rho, dtype=torch.bool)
    falls: list[Tensor] = []  # of the energy, by iteration
    iterations = 0
    while iterations < max_iterations:
        active = active & (rho > rtol**2 * start)
        if atol > 0:
            energy = torch.minimum(_dot(r, r), torch.maximum(rho, _energy_left(falls, like=rho)))
            active = active & (energy > atol**2)
        if not bool(active.any()):
            break
        q = apply(p)
        step = torch.where(active, rho / torch.where(active, _dot(p, q), 1), 0)
        falls.append(step * rho)
        _as_real(x).addcmul_(_as_real(p), _spread(step, x))
        _as_real(r).addcmul_(_as_real(q), _spread(-step, r))
        z = precondition(r) if precondition else r
        rho_next = _dot(r, z)
        turn = torch.where(active, rho_next / torch.where(active, rho, 1), 0)
        _as_real(p).mul_(_spread(turn, p)).add_(_as_real(z))
        rho = rho_next
        iterations += 1
    residual = (rho / start.clamp_min(torch.finfo(rho.dtype).tiny)).sqrt().flatten()
    return Solution(x, iterations, residual)


def _energy_left(falls: list[Tensor], *, like: Tensor) -> Tensor:
    """Energy of the error, extrapolated geometrically from two spans of iterations."""
    span = max(_SPAN, len(falls) // 4)
    if len(falls) < 2 * span:
        return torch.full_like(like, torch.inf)
    before, last = (torch.stack(f).sum(0) for f in (falls[-2 * span : -span], falls[-span:]))
    left = torch.where(last < before, _SAFETY * last**2 / (before - last), torch.inf)
    return torch.maximum(left, torch.stack(falls[-_SPAN:]).sum(0))


def lanczos(
    apply: Apply, v: Tensor, function: Callable[[Tensor], Tensor], *, iterations: int
) -> Tensor:
    """``f(K) v`` for a Hermitian ``K`` by Lanczos with full reorthogonalisation.

    ``f(K) v ~ |v| V f(T) e_1`` with ``T = V^H K V`` tridiagonal (Druskin & Knizhnerman 1989). Cost:
    one application of ``K`` per iteration, and memory for ``iterations`` vectors.

    Args:
        apply: Applies ``K`` to fields ``(batch, *)``.
        v: Vectors, ``(batch, *)``.
        function: Function ``f`` of the eigenvalues of ``T``, ``(batch, k)``.
        iterations: Dimension of the Krylov space.
    """
    norm = _dot(v, v).sqrt()
    tiny = torch.finfo(norm.dtype).tiny
    basis = [v / norm.clamp_min(tiny)]
    diagonal: list[Tensor] = []
    off: list[Tensor] = []
    scale, exhausted = torch.zeros_like(norm), norm == 0
    for k in range(iterations):
        w = apply(basis[-1])
        # Null vectors get an eigenvalue in the range of K, so that the function is defined there.
        quotient = _dot(basis[-1], w)
        filler = diagonal[0] if diagonal else torch.ones_like(quotient)
        diagonal.append(torch.where(exhausted, filler, quotient))
        for _ in range(2):  # twice is enough
            for q in basis:
                w = w - _dot(q, w) * q
        beta = _dot(w, w).sqrt()
        if k + 1 == iterations:
            break
        # A member whose Krylov space is exhausted continues with a null vector: beta is 0 there.
        scale = torch.maximum(scale, diagonal[-1].abs())
        exhausted = exhausted | (beta <= 1e3 * torch.finfo(beta.dtype).eps * scale)
        off.append(torch.where(exhausted, 0, beta))
        scale = torch.maximum(scale, off[-1])
        basis.append(torch.where(exhausted, 0, w / beta.clamp_min(tiny)))
    tridiagonal = torch.diag_embed(torch.stack([d.flatten() for d in diagonal], -1))
    if off:
        side = torch.stack([o.flatten() for o in off], -1)
        tridiagonal = tridiagonal + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    weights = (vectors * function(values)[:, None, :]) @ vectors[:, 0, :, None]
    shape = norm.shape
    return norm * sum(
        (weights[:, k].reshape(shape) * q for k, q in enumerate(basis)), torch.zeros_like(v)
    )
