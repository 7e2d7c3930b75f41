"""Exact ensembles of six laws, and what can be wrong with them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Law:
    """A law on the line with its mean and standard deviation."""

    draw: Draw
    mean: float
    std: float


def bimodal(share: float, distance: float) -> Law:
    """Two normal modes of standard deviation 1; ``share`` of the mass is in the upper one."""
    return Law(
        lambda rng, shape: distance * (rng.random(shape) < share) + rng.standard_normal(shape),
        share * distance,
        (1 + share * (1 - share) * distance**2) ** 0.5,
    )


LAWS = {
    "normal": Law(lambda rng, shape: rng.standard_normal(shape), 0, 1),
    "exponential": Law(lambda rng, shape: rng.exponential(size=shape), 1, 1),
    "lognormal": Law(
        lambda rng, shape: np.exp(rng.standard_normal(shape)),
        np.exp(0.5),
        float(((np.e - 1) * np.e) ** 0.5),
    ),
    "gamma(4)": Law(lambda rng, shape: rng.gamma(4, size=shape), 4, 2),
    "bimodal 80/20": bimodal(0.2, 5),
    "bimodal 50/50": bimodal(0.5, 6),
}
# Members are moved by a share of the standard deviation, and scaled about the mean.
FAULTS = {
    "exact": (1.0, 0.0),
    "half the spread": (0.5, 0.0),
    "twice the spread": (2.0, 0.0),
    "biased by half a spread": (1.0, 0.5),
}
SIGN_CHANGES = "biased by half a spread, with changing sign"


def draws(
    law: Law, fault: str = "exact", *, n: int = 16, n_cases: int = 200, seed: int = 0
) -> tuple[xr.DataArray, xr.DataArray]:
    """Members ``(realization, case)`` and truths ``(case)``.

    Args:
        law: of the truth, and of the members of an exact ensemble.
        fault: a key of ``FAULTS``, or ``SIGN_CHANGES``: the bias is up in every other case.
        n: members.
        n_cases: independent cases.
        seed: of everything.
    """
    drawn = law.draw(np.random.default_rng((seed, n, n_cases)), (n + 1, n_cases))
    scale, bias = FAULTS.get(fault, (1.0, 0.5))
    sign = np.where(np.arange(n_cases) % 2, -1, 1) if fault == SIGN_CHANGES else 1
    members = law.mean + scale * (drawn[1:] - law.mean) - sign * bias * law.std
    return xr.DataArray(members, dims=("realization", "case")), xr.DataArray(drawn[0], dims="case")
