"""Time integration that the step models share, and the limits of its stability."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from invdiff.errors import InputError

__all__ = ["OSCILLATION_LIMIT", "check_dt", "rk4"]

OSCILLATION_LIMIT = 2 * math.sqrt(2)
"""Largest ``omega dt`` of an oscillation that the scheme of order four does not amplify."""


def rk4(
    tendency: Callable[[Tensor], Tensor],
    x: Tensor,
    dt: float,
    *,
    half_decay: Tensor | float = 1.0,
) -> Tensor:
    """One step of ``dx/dt = L x + N(x)`` by the Runge-Kutta scheme of order four, ``L`` exactly.

    Lawson's form: the classical scheme for ``exp(-L t) x``, so that a stiff diagonal ``L``, such as
    diffusion in spectral space, does not limit ``dt``. Without ``L`` it is the classical scheme.

    Args:
        tendency: ``N``, of ``x`` and of the same shape.
        x: state.
        dt: time step.
        half_decay: ``exp(L dt / 2)``, broadcastable to ``x``; 1 for no ``L``.

    References:
        Lawson (1967), SIAM J. Numer. Anal. 4, 372, doi 10.1137/0704033.

    Examples:
        >>> import math
        >>> import torch
        >>> from invdiff.operators.atmosphere.integrators import rk4
        >>> x = rk4(lambda x: -x, torch.ones(1, dtype=torch.float64), 0.1)
        >>> abs(float(x) - math.exp(-0.1)) < 1e-7
        True
    """
    e = half_decay
    decayed = e * x
    k1 = tendency(x)
    k2 = tendency(decayed + 0.5 * dt * e * k1)
    k3 = tendency(decayed + 0.5 * dt * k2)
    k4 = tendency(e * decayed + dt * e * k3)
    return e * (decayed + dt / 6 * (e * k1 + 2 * (k2 + k3))) + dt / 6 * k4


def check_dt(dt: float, limit: float, *, because: str) -> None:
    """Refuse a time step beyond the limit of stability.

    Args:
        dt: time step.
        limit: largest stable one, in the same units.
        because: what sets the limit, for the message.

    Raises:
        InputError: ``dt`` larger than ``limit``; the hint gives one that is stable.
    """
    if dt > limit:
        n = math.ceil(dt / limit)
        raise InputError(
            f"the time step is unstable: {because}",
            got=f"dt={dt:g}",
            expected=f"at most {limit:.4g}",
            hint=f"Use dt={dt / n:.6g} and {n} times the steps.",
        )
