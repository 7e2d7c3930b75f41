"""Weights of traces: by where they were recorded, and by how well they can be modelled."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import uniform_filter1d

from invdiff.errors import InputError
from invdiff.fwi.misfit.envelope import squared_envelope

__all__ = ["amplitude_weights", "near_offset_mute"]


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


def amplitude_weights(
    y: xr.DataArray, noise_std: float, *, relative: float = 0.05, window: float = 0.1
) -> xr.DataArray:
    r"""Weights ``(shot, receiver, time)`` for errors of modelling that grow with the amplitude.

    A sample has the error :math:`\sqrt{\sigma^2 + (r e)^2}`, with the noise :math:`\sigma`, the
    relative error :math:`r` and the amplitude :math:`e`, the root mean square over the window of
    the envelope. Its weight is :math:`\sigma` over that: 1 where the traces are quiet, small at
    direct waves, which would else outweigh reflections by orders of magnitude.

    Args:
        y: traces ``(shot, receiver, time)``, time in s.
        noise_std: ``sigma``, in the units of the traces.
        relative: ``r``; 0 weights all samples alike.
        window: s.

    Raises:
        InputError: an error or a window that is not positive.
    """
    if not (noise_std > 0 <= relative and window > 0):
        raise InputError(
            "no weights by amplitude",
            got={"noise_std": noise_std, "relative": relative, "window": window},
            expected="noise_std > 0, relative >= 0, window > 0",
        )
    traces = y.transpose("shot", "receiver", "time")
    time = traces["time"].values.astype(np.float64)
    n = max(1, round(window * (len(time) - 1) / (time[-1] - time[0])))
    squares = squared_envelope(torch.from_numpy(traces.values.astype(np.float64))).numpy()
    power = uniform_filter1d(squares, n, axis=-1, mode="nearest")
    weights = 1 / np.sqrt(1 + power * (relative / noise_std) ** 2)
    return xr.DataArray(weights.astype(np.float32), dims=traces.dims, name="weights")
