"""What the verbs are given, checked and brought into one form: a `Problem` on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff.completion import completed
from invdiff.errors import InputError, NoiseLevelError, ShapeError, UnsupportedError
from invdiff.fwi.traces import live_traces
from invdiff.grid import Grid, check_dataarray, check_finite
from invdiff.likelihood import AxisCovariance, NoiseModel
from invdiff.posterior import check_prior
from invdiff.protocols import Operator, Prior, Problem, WaveOperator

__all__ = ["GivenNoise", "given_problem", "given_traces", "moved", "noise_model", "noise_samples"]

GivenNoise = NoiseModel | np.ndarray | xr.DataArray | list[float]
"""What a verb accepts as noise level: a number, or one for each coil, sample or element."""

T = TypeVar("T")


def given_problem(
    y: xr.DataArray | Problem, operator: Operator | None, prior: Prior | None
) -> tuple[Problem, Prior]:
    """The problem and the prior that `reconstruct` was called with.

    Args:
        y: labelled data, or a problem.
        operator: goes with labelled data; a problem has its own.
        prior: must be given.

    Returns:
        The problem, whose ``noise_std`` is NaN where it was made of data: their noise is not known
        yet; and the prior.

    Raises:
        InputError: objects of the wrong kind or in the wrong order, with the call that was meant.
    """
    if isinstance(y, Problem):
        _check_problem(operator, prior, verb="reconstruct")
        problem = y
    else:
        operator = _check_call(y, operator, prior, verb="reconstruct")
        data = operator.range.to_tensor(y, name=f"data {y.name!r}")
        problem = Problem(operator, data, float("nan"))
    if prior is None:
        raise InputError(
            "the prior is missing",
            got="None",
            expected="such as invdiff.load_prior('brain-t1', grid=operator.domain)",
        )
    return problem, prior


def given_traces(
    y: xr.DataArray | Problem,
    operator: WaveOperator | None,
    prior: Prior | None,
    *,
    weights: xr.DataArray | None,
) -> Problem:
    """The same for traces: those that are dead, and NaN at their ends, get weight zero.

    Args:
        y: labelled traces, or a problem.
        operator: goes with labelled traces; a problem has its own.
        prior: checked to be one, if it is given.
        weights: of the traces, over any of their dims; None for those of the problem, or none.

    Raises:
        InputError: objects of the wrong kind or in the wrong order, or all traces dead.
        ShapeError: traces or weights that do not fit the operator.

    Warns:
        DataWarning: traces or samples that were left out.
    """
    if isinstance(y, Problem):
        _check_problem(operator, prior, verb="invert")
        if weights is None:
            return y
        return replace(y, weights=_trace_weights(weights, y.operator.range))
    operator = _check_call(y, operator, prior, verb="invert")
    if weights is not None:
        _trace_weights(weights, operator.range)
    name, grid = f"data {y.name!r}", operator.range
    if set(map(str, y.dims)) != set(grid.dims):
        grid.to_tensor(y, name=name)  # refuses it
    live, live_weights, notes = live_traces(y, weights)
    full = None if live_weights is None else _trace_weights(live_weights, grid)
    return Problem(
        operator, grid.to_tensor(live, name=name), float("nan"), weights=full, notes=notes
    )


def _check_problem(operator: object, prior: Prior | None, *, verb: str) -> None:
    if operator is not None:
        raise InputError(
            "a Problem has its own operator",
            got=repr(operator),
            expected=f"{verb}(problem, prior=prior, ...)",
            hint="Pass the prior by name, and leave the operator out.",
        )
    if prior is not None:
        check_prior(prior)


def _check_call(y: object, operator: Any, prior: Prior | None, *, verb: str) -> Any:
    call = f"{verb}(y, operator, prior, ...)"
    check_dataarray(y, "the data y")
    if operator is None:
        raise InputError("the operator is missing", got="None", expected=call)
    if not hasattr(operator, "range") and hasattr(operator, "moments"):
        raise UnsupportedError(
            "the second argument is a prior, not an operator", got=repr(operator), expected=call
        )
    completed(operator)  # refuses what is not an operator
    if prior is not None:
        check_prior(prior)
    return operator


def _trace_weights(weights: xr.DataArray, grid: Grid) -> Tensor:
    """Weights as a tensor that broadcasts to the traces."""
    check_dataarray(weights, "the weights")
    sizes = dict(zip(grid.dims, grid.shape, strict=True))
    if any(weights.sizes[dim] != sizes.get(str(dim)) for dim in weights.dims):
        raise ShapeError(
            "weights do not fit the traces", got=dict(weights.sizes), expected=f"some of {sizes}"
        )
    absent = {dim: 1 for dim in grid.dims if dim not in weights.dims}
    full = torch.from_numpy(np.array(weights.expand_dims(absent).transpose(*grid.dims).values))
    check_finite(full, "weights")
    return full.to(grid.dtype)


def moved(thing: T, device: str | torch.device) -> T:
    """A prior or an operator on a device, where it can be moved; itself where it cannot."""
    move: Callable[[Any], T] | None = getattr(thing, "to", None)
    return thing if move is None or torch.device(device).type == "cpu" else move(device)


def noise_model(given: GivenNoise | None, y: xr.DataArray | Problem, grid: Grid) -> NoiseModel:
    """The noise of data on ``grid``.

    Args:
        given: by the caller; None for that of the problem or of ``y.attrs["noise_std"]``.
        y: the data.
        grid: the operator's range.

    Raises:
        NoiseLevelError: none is known, or one that is not a positive number.
        ShapeError: levels that do not fit the data.
    """
    if given is None:
        given = y.noise_std if isinstance(y, Problem) else y.attrs.get("noise_std")
    if given is None:
        raise NoiseLevelError(
            "the noise level is missing",
            got="None",
            expected="noise_std=... or y.attrs['noise_std'], in the units of the data",
            hint="Estimate it, for k-space with invdiff.operators.mri.estimate_noise_std; for"
            " traces give the error of the modelling, a few percent of their standard deviation.",
        )
    if isinstance(given, AxisCovariance) or (callable(given) and not hasattr(given, "shape")):
        return given
    levels = noise_samples(given, grid)
    # A single level is not rounded to the dtype of the data.
    return float(np.asarray(given, np.float64).item()) if levels.ndim == 0 else levels


def noise_samples(given: object, grid: Grid) -> Tensor:
    """Standard deviations, float64, that broadcast to data on ``grid``; 0-d for a single one.

    A 1-D sequence as long as the first axis, such as ``coil``, gives one level for each of its
    elements; a DataArray is matched by the names of its dims.

    Raises:
        NoiseLevelError: not numbers, or not positive.
        ShapeError: levels that do not fit the data.
    """
    if isinstance(given, xr.DataArray):
        given = _by_dims(given, grid)
    try:
        if isinstance(given, str | bool):
            raise TypeError
        levels = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise NoiseLevelError(
            "the noise level is not a number",
            got=repr(given),
            expected="a positive number, or an array of them that broadcasts to the data",
        ) from None
    if not (np.isfinite(levels) & (levels > 0)).all():
        raise NoiseLevelError(
            "the noise level is not positive",
            got=float(levels) if levels.ndim == 0 else f"values from {np.nanmin(levels)}",
            expected="a finite standard deviation > 0, in the units of the data",
            hint="For data without noise give the error of the modelling, a few percent of their"
            " standard deviation.",
        )
    if levels.shape == grid.shape[:1] and grid.ndim > 1:
        levels = levels.reshape(-1, *(1,) * (grid.ndim - 1))
    if levels.ndim and levels.size == 1 and grid.size > 1 and grid.shape[0] != 1:
        levels = levels.repeat(2)  # a list of one is not a level for each coil: refused below
    try:
        np.broadcast_shapes(levels.shape, grid.shape)
        fits = levels.ndim <= grid.ndim
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            "noise levels do not fit the data",
            got=f"shape {levels.shape}",
            expected=f"one number, or a shape that broadcasts to {grid.shape}",
        )
    return torch.from_numpy(np.array(levels))


def _by_dims(levels: xr.DataArray, grid: Grid) -> np.ndarray:
    unknown = [str(dim) for dim in levels.dims if dim not in grid.dims]
    if unknown:
        raise ShapeError("noise levels have other dims", got=unknown, expected=grid.dims)
    absent = {dim: 1 for dim in grid.dims if dim not in levels.dims}
    return np.asarray(levels.expand_dims(absent).transpose(*grid.dims).values)
