"""Weights of labelled traces: by offset, and by modelling error."""

from __future__ import annotations

import numpy as np
import xarray as xr

from invdiff import traces as arrays

__all__ = ["amplitude_weights", "live_traces", "near_offset_mute"]

_DIMS = ("shot", "receiver", "time")


def near_offset_mute(survey: xr.Dataset, offset: float) -> xr.DataArray:
    """Weights of traces ``(shot, receiver)``: 0 closer to the source than ``offset``, else 1.

    A grid does not resolve a point source, nor the waves within a few cells of it.

    Args:
        survey: Positions ``source_z``, ``source_x``, ``receiver_z`` and ``receiver_x`` in m, as
            labelled by `invdiff.io.survey_dataset`.
        offset: Distance from the source, m.
    """
    dz, dx = (survey[f"source_{dim}"] - survey[f"receiver_{dim}"] for dim in "zx")
    is_far: xr.DataArray = dz**2 + dx**2 >= offset**2
    weights = is_far.astype(np.float32).transpose("shot", "receiver")
    return weights.reset_coords(drop=True).drop_vars(weights.indexes).rename("weights")


def amplitude_weights(
    y: xr.DataArray, noise_std: float, *, relative: float = 0.05, window: float = 0.1
) -> xr.DataArray:
    r"""Weights ``(shot, receiver, time)`` for modelling errors that grow with the amplitude.

    A sample has the error :math:`\sqrt{\sigma^2 + (r e)^2}`, with the noise :math:`\sigma`, the
    relative error :math:`r` and the amplitude :math:`e`, the root mean square over the window of
    the envelope. Its weight is :math:`\sigma` over that: 1 where the traces are quiet, small at
    direct waves, which would otherwise outweigh reflections by orders of magnitude. Dead traces and
    NaN at the ends of traces have weight 0.

    Args:
        y: Traces ``(shot, receiver, time)``, time in s.
        noise_std: Standard deviation ``sigma`` of the noise, in the units of the traces.
        relative: Relative error ``r`` of the modelling; 0 weights all samples alike.
        window: Length of the window of the amplitude, s.

    Raises:
        InputError: An error or the window is not positive, or all traces are dead.
        NonFiniteError: There is Inf, or NaN that is followed by numbers.

    Warns:
        DataWarning: Dead traces were left out; the message gives their number.

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
        y: Traces ``(shot, receiver, time)``, in any order of the dims.
        weights: Weights over any of the dims of ``y``; 0 leaves samples out.

    Returns:
        The traces, with zeros where nothing was recorded; the weights, None if all samples count
        alike; and notes such as ``{"dead_traces": 3, "padded_samples": 120}``.

    Raises:
        NonFiniteError: There is Inf, or NaN that is followed by numbers.
        InputError: All traces are dead.

    Warns:
        DataWarning: Traces or samples were left out; the message gives their number.
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
