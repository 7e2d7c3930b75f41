"""Times of labelled data as steps of a model."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from invdiff.errors import InputError
from invdiff.protocols import StepModel

__all__ = ["in_model_units", "steps_between"]

_TOLERANCE = 1e-3  # of a step


def in_model_units(times: xr.DataArray, reference: object) -> NDArray[np.float64]:
    """Times since a reference: numbers as they are, dates in seconds.

    Args:
        times: Numbers, dates of numpy or cftime, or differences of dates.
        reference: Time of the same kind from which they count.

    Raises:
        InputError: Times and reference are of different kinds.
    """
    values = np.asarray(times.values)
    try:
        since = values - np.asarray(reference)
    except TypeError as error:
        raise InputError(
            "the times of data and initial states are of different kinds",
            got=f"{values.dtype} and {np.asarray(reference).dtype}",
            expected="numbers in the model's units for both, or dates of one calendar for both",
        ) from error
    if since.dtype.kind == "m":
        return np.asarray(since / np.timedelta64(1, "s"), np.float64)
    if since.dtype == object:  # cftime
        return np.array([gap.total_seconds() for gap in since.ravel()], np.float64)
    return np.asarray(since, np.float64)


def steps_between(times: NDArray[np.float64], model: StepModel) -> list[int]:
    """Steps of the model from time zero to the first time, and from each time to the next.

    Args:
        times: Times in the model's units, rising.
        model: Step model.

    Raises:
        InputError: Times that do not rise, lie before zero, or are not multiples of the time step.
    """
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any() or times[0] < 0:
        raise InputError(
            "the times do not rise from the time of the initial states on",
            got=f"{times[:5].tolist()}{' ...' if len(times) > 5 else ''} after it",
            expected="times >= 0, each later than the one before",
            hint="Sort the data by time, drop repeated ones, and give the initial states a scalar"
            " coordinate `time`.",
        )
    numbers = times / model.dt
    steps = np.rint(numbers)
    is_off = np.abs(numbers - steps) > _TOLERANCE
    if is_off.any():
        first = float(times[is_off][0])
        raise InputError(
            "a time is not a multiple of the time step",
            got=f"{first:g} after the initial states, dt={model.dt:g}",
            expected=f"such as {float(steps[is_off][0]) * model.dt:g}",
            hint="Choose a dt that divides the times, or interpolate the data in time.",
        )
    return [int(n) for n in np.diff(steps, prepend=0)]
