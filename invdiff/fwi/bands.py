"""Frequency continuation: low frequencies first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from invdiff.errors import InputError
from invdiff.fwi.objective import Objective
from invdiff.fwi.shots import AllShots

__all__ = ["band_at", "check_bands", "first_band", "in_band", "sees_all"]


def check_bands(bands: Sequence[float]) -> None:
    """Refuse bands that are not rising frequencies.

    Raises:
        InputError: The bands are not positive numbers, or do not rise.
    """
    is_numbers = isinstance(bands, Iterable) and all(
        isinstance(f, int | float | np.number) for f in bands
    )
    if not is_numbers or list(bands) != sorted(bands) or not all(0 < f < math.inf for f in bands):
        raise InputError(
            "bands are not frequencies that rise",
            got=repr(bands),
            expected="positive numbers in Hz, the lowest first, such as (5.0, 8.0)",
        )


def first_band(method: object) -> float | None:
    """Frequency in Hz below which a method inverts the data first; None without bands.

    Args:
        method: Inversion method with ``bands``, or with a ``fit`` that has them and comes first.
    """
    fit = getattr(method, "fit", None)
    if fit is not None:
        return first_band(fit)
    bands = getattr(method, "bands", ())
    if not bands:
        return None
    first = bands[0]  # annealed methods have pairs (noise level, frequency)
    return float(first[1] if isinstance(first, tuple | list) else first)


def band_at(bands: Sequence[float], share: float) -> float | None:
    """Frequency in Hz at a share of the run; bands and, last, all frequencies share it evenly."""
    stage = int(share * (len(bands) + 1))
    return bands[stage] if stage < len(bands) else None


def in_band(objective: Objective, bands: Sequence[float], share: float) -> Objective:
    """The objective of data low-passed at the frequency of :func:`band_at`."""
    frequency = band_at(bands, share)
    return objective if frequency is None else objective.below(frequency)


def sees_all(method: Any, step: int, bands: Sequence[float]) -> bool:
    """Whether a step used all frequencies and shots, so that its misfit is that of the data.

    Args:
        method: Inversion method with ``steps`` and ``shots``.
        step: Number of the step, from zero on.
        bands: Frequencies in Hz below which the first steps work.
    """
    return isinstance(method.shots, AllShots) and band_at(bands, step / method.steps) is None
