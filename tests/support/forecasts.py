"""Ensembles of known calibration: Gaussian fields, one posterior a case."""

import numpy as np
import xarray as xr

KINDS = {
    "calibrated": (1.0, 0.0),
    "too narrow": (0.7, 0.0),
    "too wide": (1.4, 0.0),
    "biased": (1.0, 0.5),
}


def forecasts(
    kind: str = "calibrated",
    *,
    n: int = 16,
    n_cases: int = 100,
    size: int = 6,
    correlation: float = 0.0,
    is_complex: bool = False,
    seed: int = 0,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Members ``(realization, case, y, x)`` and truths ``(case, y, x)``.

    Args:
        kind: a key of ``KINDS``: spread, and bias downwards, in standard deviations.
        n: members.
        n_cases: independent cases.
        size: edge of the fields.
        correlation: share of the variance that all pixels of a field have in common.
        is_complex: real and imaginary parts of the same law.
        seed: of everything.
    """
    spread, bias = KINDS[kind]
    rng = np.random.default_rng((seed, n))

    def real(*shape: int) -> np.ndarray:
        alone = rng.standard_normal((*shape, size, size))
        common = rng.standard_normal((*shape, 1, 1))
        return (1 - correlation) ** 0.5 * alone + correlation**0.5 * common

    def normal(*shape: int) -> np.ndarray:
        return real(*shape) + 1j * real(*shape) if is_complex else real(*shape)

    centre, sigma = 5 * normal(n_cases), rng.uniform(0.5, 2, (n_cases, 1, 1))
    offset = bias * (1 + 1j) if is_complex else bias
    members = centre + sigma * (spread * normal(n, n_cases) - offset)
    truth = centre + sigma * normal(n_cases)
    return (
        xr.DataArray(members, dims=("realization", "case", "y", "x")),
        xr.DataArray(truth, dims=("case", "y", "x")),
    )
