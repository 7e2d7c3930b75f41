"""Coils whose samples cannot be used: zero, without a sensitivity, or copies of others."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import torch
from torch import Tensor

from invdiff.errors import DataWarning, InputError

__all__ = ["dependent_coils", "describe_combination", "select_coils", "zero_coils"]

# A coil's own noise is far above this part of its samples, the rounding of a copy far below.
_TOLERANCE = 1e-5
_MAX_ZEROS = 0.05  # of the samples of a coil; quantised receivers give a few exact zeros
_MAX_MAP_ERROR = 0.1
_MAX_SAMPLES = 2**16  # enough to find a dependence, few enough for large volumes


def select_coils(kspace: Tensor, mask: Tensor, sensitivity: Tensor | None) -> tuple[list[int], str]:
    """Coils to build a problem from, and what was wrong with the others.

    Every subset of the coils obeys the SENSE model, so that leaving out a coil never makes a
    problem wrong; it costs the information of that coil. Left out are

    - coils that are exactly zero at all, or at more than 5 %, of the measured samples: samples of
      ``y_c = M F S_c x + n_c`` have noise, so that zeros are not measurements;
    - coils whose given map is zero everywhere: the model says that they see nothing, so their
      samples could only raise the misfit;
    - coils that are linear combinations of those before them, such as (scaled) copies or a
      sum channel: they add no information, and the noise covariance would be singular.

    Args:
        kspace: complex ``(n_coils, *image)``, zero outside the mask.
        mask: measured samples, boolean ``(*image)``.
        sensitivity: ``(n_coils, *image)``, if known.

    Returns:
        The indices of the coils to use, and a text such as ``"3: zero at all measured samples"``,
        empty where all coils are used.

    Raises:
        InputError: no coil can be used, or copied coils have maps that differ.

    Warns:
        DataWarning: coils that were left out, and why.
    """
    n_coils = len(kspace)
    samples = kspace[:, mask]
    reasons = zero_coils(samples)
    for coil in range(n_coils):
        if coil not in reasons and sensitivity is not None and not sensitivity[coil].any():
            reasons[coil] = "its sensitivity is zero everywhere"
    used = [coil for coil in range(n_coils) if coil not in reasons]
    for place, weights in dependent_coils(samples[used]).items():
        coil, others = used[place], {used[other]: w for other, w in weights.items()}
        reasons[coil] = describe_combination(others)
        if sensitivity is not None:
            _check_maps(coil, others, sensitivity)
    used = [coil for coil in used if coil not in reasons]
    summary = "; ".join(f"{coil}: {reasons[coil]}" for coil in sorted(reasons))
    if not used:
        raise InputError(
            "no coil can be used",
            got=summary,
            expected="at least one coil with samples and a sensitivity",
            hint="Check the order of the axes, the maps, and that True in the mask means measured.",
        )
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {n_coils} coils are left out (counted from 0): {summary}.",
            DataWarning,
            stacklevel=3,
        )
    return used, summary


def zero_coils(samples: Tensor) -> dict[int, str]:
    """Coils that are exactly zero at more than 5 % of the samples, and what to say of each.

    Args:
        samples: ``(n_coils, n)``.
    """
    n = samples.shape[1]
    counts = dict(enumerate((samples == 0).sum(1).tolist()))
    return {
        coil: "zero at all measured samples"
        if count == n
        else f"zero at {count} of {n} measured samples"
        for coil, count in counts.items()
        if count > _MAX_ZEROS * n
    }


def dependent_coils(samples: Tensor) -> dict[int, dict[int, complex]]:
    """Coils that are linear combinations of those before them: the numerical rank of the coils.

    Coil ``j`` is dependent if less than 1e-5 of its samples remains after regression on the
    coils before it: ``|R_jj| < 1e-5 |R_j|`` in ``Y^H = Q R``. Coils are first scaled to equal
    power and samples to equal power over the coils, so that neither gains nor the strong centre of
    k-space hide a coil's own noise. Costs ``2 n n_coils^2`` operations for ``n <= 65536`` samples.

    Args:
        samples: complex ``(n_coils, n)``, no coil all zero.

    Returns:
        For each dependent coil the weights of the coils that it is made of. Empty also where there
        are fewer than four samples per coil, which say nothing about a dependence.
    """
    n_coils, n = samples.shape
    if n < 4 * n_coils or n_coils < 2:
        return {}
    y = samples[:, :: -(-n // _MAX_SAMPLES)].to(torch.complex128)
    gains = y.abs().amax(1, keepdim=True)
    gains = gains * (y / gains).norm(dim=1, keepdim=True)  # no square of tiny numbers
    y = y / gains
    power = y.norm(dim=0)
    y = y[:, power > 0] / power[power > 0]
    factor = torch.linalg.qr(y.mH, mode="r").R
    rest = factor.diagonal().abs() / factor.norm(dim=0)
    found: dict[int, dict[int, complex]] = {}
    for coil in torch.nonzero(rest < _TOLERANCE).flatten().tolist():
        before = [other for other in range(coil) if other not in found]
        known, wanted = factor[: coil + 1, before], factor[: coil + 1, coil : coil + 1]
        # Columns of Y^H are conjugate coils.
        weights = torch.linalg.lstsq(known, wanted).solution[:, 0].conj()
        relevant = weights.abs() > 1e-3 * weights.abs().max()
        weights = weights * gains[coil, 0] / gains[before, 0]
        found[coil] = {
            other: complex(weights[i]) for i, other in enumerate(before) if bool(relevant[i])
        }
    return found


def describe_combination(coils: Collection[int]) -> str:
    """What a dependent coil is, in words: "a multiple of coil 1", "a combination of coils 0, 1"."""
    others = ", ".join(map(str, coils))
    return f"a multiple of coil {others}" if len(coils) == 1 else f"a combination of coils {others}"


def _check_maps(coil: int, weights: dict[int, complex], sensitivity: Tensor) -> None:
    """Raise unless a coil's map is the same combination as its samples."""
    expected = torch.zeros_like(sensitivity[coil])
    for other, weight in weights.items():
        expected = expected + weight * sensitivity[other]
    error = float((sensitivity[coil] - expected).norm() / expected.norm().clamp_min(1e-30))
    if error > _MAX_MAP_ERROR:
        raise InputError(
            f"coil {coil} holds {describe_combination(weights)}, but its sensitivity does not",
            got=f"maps that differ by {error:.0%}",
            expected="maps that are combined as the samples are",
            hint="Samples or maps were copied to the wrong coil. Leave out the wrong coils, or "
            "leave out all maps to have them estimated.",
        )
