"""Weights of traces by where they were recorded."""

from __future__ import annotations

import numpy as np
import xarray as xr

__all__ = ["near_offset_mute"]


def near_offset_mute(survey: xr.Dataset, offset: float) -> xr.DataArray:
    """Weights of traces ``(shot, receiver)``: 0 nearer to the source than ``offset``, else 1.

    A point source, and what lies within a few cells of it, is not resolved by a grid.

    Args:
        survey: with ``source_z``, ``source_x``, ``receiver_z`` and ``receiver_x`` in m, as
            `invdiff.io.survey_dataset` labels them.
        offset: m.
    """
    dz, dx = (survey[f"source_{dim}"] - survey[f"receiver_{dim}"] for dim in "zx")
    is_far: xr.DataArray = dz**2 + dx**2 >= offset**2
    weights = is_far.astype(np.float32).transpose("shot", "receiver")
    return weights.reset_coords(drop=True).drop_vars(weights.indexes).rename("weights")
