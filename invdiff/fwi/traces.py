"""Weights of labelled traces: by where they were recorded, and by how well they can be modelled."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff import traces as arrays

__all__ = ["amplitude_weights", "live_traces", "near_offset_mute"]

_DIMS = ("shot", "receiver", "time")


def near_offset_mute(survey: xr.Dataset, offset: float) -> xr.DataArray:
    """Weights of traces ``(shot, receiver)``: 0 nearer to the source than ``offset``, else 1.

    A grid does not resolve a point source, nor the waves within a few cells of it.

    Args:
        survey: with ``source_z``, ``source_x``, ``receiver_z`` and ``receiver_x`` in m, as
            `invdiff.io.survey_dataset` labels them.
        offset: distance from the source, m.
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
    direct waves, which would otherwise outweigh reflections by orders of magnitude. Dead traces and
    NaN at the ends of traces have weight 0.

    Args:
        y: traces ``(shot, receiver, time)``, time in s.
        noise_std: ``sigma``, in the units of the traces.
        relative: ``r``; 0 weights all samples alike.
        window: s.

    Raises:
        InputError: an error or a window that is not positive, or no live trace.
        NonFiniteError: Inf, or NaN that is followed by numbers.

    Warns:
        DataWarning: dead traces, with their number.

    >>> time = np.arange(100) * 1e-3
    >>> wave = np.sin(2 * np.pi * 50 * time)
    >>> y = xr.DataArray([[10 * wave, 0.1 * wave]], {"time": time}, ("shot", "receiver", "time"))
    >>> amplitude_weights(y, 0.1, relative=0.05).mean("time").values.round(3)
    array([[0.196, 0.999]], dtype=float32)
    """
    traces = y.transpose(*_DIMS)
    time = traces["time"].values.astype(np.float64)
    weights = arrays.amplitude_weights(
        arrays.live_traces(traces.values),
        noise_std,
        dt=(time[-1] - time[0]) / (len(time) - 1),
        relative=relative,
        window=window,
    )
    return xr.DataArray(weights, dims=traces.dims, name="weights")


def live_traces(
    y: xr.DataArray, weights: xr.DataArray | None = None
) -> tuple[xr.DataArray, xr.DataArray | None, dict[str, int]]:
    """Traces without NaN, weights that leave out what was not recorded, and how much that is.

    A trace is dead if all of its samples are equal, zero for instance, or NaN. NaN at the end of a
    live trace is padding.

    Args:
        y: traces ``(shot, receiver, time)``, in any order of the dims.
        weights: over any of the dims of ``y``; 0 leaves out.

    Returns:
        The traces, with zeros where nothing was recorded; the weights, None if all samples count
        alike; and notes such as ``{"dead_traces": 3, "padded_samples": 120}``.

    Raises:
        NonFiniteError: Inf, or NaN that is followed by numbers.
        InputError: no live trace.

    Warns:
        DataWarning: traces or samples that were left out, with their number.
    """
    y = y.transpose(*_DIMS)
    given = None
    if weights is not None:
        absent = {dim: 1 for dim in _DIMS if dim not in weights.dims}
        given = weights.expand_dims(absent).transpose(*_DIMS).values
    live = arrays.live_traces(y.values, given)
    if live.values is y.values or live.weights is given:
        return y, weights, live.notes
    return (
        y.copy(data=live.values),
        xr.DataArray(live.weights, dims=_DIMS, name="weights"),
        live.notes,
    )
