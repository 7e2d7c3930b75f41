"""Frequency continuation: low frequencies first, whose half period holds the errors of a start."""

from __future__ import annotations

from collections.abc import Sequence

from invdiff.fwi.objective import Objective

__all__ = ["band_at", "in_band"]


def band_at(bands: Sequence[float], share: float) -> float | None:
    """Frequency of a share of the run, which all bands and the data as they are divide evenly."""
    stage = int(share * (len(bands) + 1))
    return bands[stage] if stage < len(bands) else None


def in_band(objective: Objective, bands: Sequence[float], share: float) -> Objective:
    """The objective of data low-passed at that frequency."""
    frequency = band_at(bands, share)
    return objective if frequency is None else objective.below(frequency)
