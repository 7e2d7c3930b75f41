"""What `invert` is given, checked and brought into one form: traces, weights and starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff import traces as arrays
from invdiff.errors import DTypeError, InputError, ShapeError, UnsupportedError
from invdiff.fwi.traces import live_traces
from invdiff.grid import Grid, check_coordinates, check_dataarray, check_finite
from invdiff.inputs import check_call, check_problem
from invdiff.noise_levels import GivenNoise, noise_model
from invdiff.protocols import Prior, Problem, WaveOperator

__all__ = ["Traces", "given_data", "given_starts", "given_traces"]


def given_traces(
    y: xr.DataArray | Problem,
    operator: WaveOperator | None,
    prior: Prior | None,
    *,
    weights: xr.DataArray | None,
) -> Problem:
    """The problem that `invert` was called with; dead traces and NaN at ends get weight zero.

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
        check_problem(y, operator, prior, verb="invert")
        return _given_waves(y, weights)
    operator = _wave_operator(check_call(y, operator, prior, verb="invert"))
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


def _given_waves(problem: Problem, weights: xr.DataArray | None) -> Problem:
    """A problem for `invert`, checked; further weights multiply its own."""
    operator = _wave_operator(problem.operator)
    if problem.scale != 1:
        raise InputError(
            "invert takes no scale",
            got=f"a Problem with scale={problem.scale!r}",
            expected="models in m/s, and data in the units of the operator's predictions",
        )
    if weights is not None:
        further = _trace_weights(weights, operator.range)
        own = 1.0 if problem.weights is None else problem.weights
        problem = replace(problem, weights=own * further)
    given = None if problem.weights is None else problem.weights.cpu().numpy()
    if given is not None:
        try:
            np.broadcast_shapes(given.shape, tuple(problem.data.shape))
        except ValueError:
            raise ShapeError(
                "weights do not fit the traces",
                got=given.shape,
                expected=f"a shape that broadcasts to {tuple(problem.data.shape)}",
            ) from None
    live = arrays.live_traces(problem.data.to(operator.range.dtype).cpu().numpy(), given)
    return replace(
        problem,
        data=torch.from_numpy(np.array(live.values)),
        weights=None if live.weights is None else torch.from_numpy(np.array(live.weights)),
        notes={**problem.notes, **live.notes},
    )


def _wave_operator(operator: object) -> WaveOperator:
    asked = ("misfit_and_gradient", "shots", "bounds")
    missing = [name for name in asked if not hasattr(operator, name)]
    if missing:
        raise UnsupportedError(
            "the operator has no shots to invert",
            got=repr(operator),
            expected=f"also {missing}, as invdiff.operators.seismic.Acoustic has",
            hint="For other operators use invdiff.reconstruct.",
        )
    return cast(WaveOperator, operator)


def _trace_weights(weights: xr.DataArray, grid: Grid) -> Tensor:
    """Weights as a tensor that broadcasts to the traces."""
    label = f"xarray.DataArray(values, dims={grid.dims[1:2]!r}), over any dims of {grid.dims}"
    check_dataarray(weights, "the array of weights", label=label)
    sizes = dict(zip(grid.dims, grid.shape, strict=True))
    if any(weights.sizes[dim] != sizes.get(str(dim)) for dim in weights.dims):
        raise ShapeError(
            "weights do not fit the traces", got=dict(weights.sizes), expected=f"some of {sizes}"
        )
    check_coordinates(weights, grid, "the weights")
    if weights.dtype.kind not in "biuf":
        raise DTypeError("weights are not real numbers", got=weights.dtype, expected="floats >= 0")
    absent = {dim: 1 for dim in grid.dims if dim not in weights.dims}
    ordered = weights.expand_dims(absent).transpose(*grid.dims)
    full = torch.from_numpy(np.array(ordered.values, dtype=np.float64)).to(grid.dtype)
    check_finite(full, "weights")
    if (full < 0).any():
        raise InputError(
            "weights are negative", got=f"values from {float(full.min()):g}", expected=">= 0"
        )
    return full


class Traces(NamedTuple):
    """What is inverted: traces without NaN, the noise of those of weight one, and weights."""

    data: Tensor
    noise_std: float
    weights: Tensor | None
    notes: dict[str, str | int | float]


def given_data(
    y: xr.DataArray | Problem,
    given: Problem,
    noise_std: GivenNoise | None,
    *,
    device: torch.device,
) -> Traces:
    """The traces of a problem, and their noise level as one number, on a device.

    Args:
        y: What the verb was given.
        given: The problem that :func:`given_traces` made of it.
        noise_std: Noise level that the verb was given, or None.
        device: Device of the tensors.

    Raises:
        NoiseLevelError: No noise level, or one that is not positive.
        UnsupportedError: Noise that is not independent.
    """
    grid = given.operator.range
    noise = noise_model(noise_std, y, grid)
    if not isinstance(noise, float | Tensor):
        raise UnsupportedError(
            "invert takes independent noise",
            got=type(noise).__name__,
            expected="a standard deviation for all samples, or one for each",
        )
    values, weights = given.data, given.weights
    if isinstance(noise, Tensor):  # samples with more noise weigh less than the best ones
        level = float(noise.min())
        weights = level / noise * (1 if weights is None else weights)
        noise = level
    return Traces(
        values.to(device),
        noise,
        None if weights is None else weights.to(device, grid.dtype),
        dict(given.notes),
    )


def given_starts(
    start: xr.DataArray | Tensor | None, operator: WaveOperator, members: Sequence[int]
) -> Tensor:
    """Starting models ``(batch, nz, nx)`` in m/s, one for each member.

    Raises:
        InputError: No start, or one out of bounds.
        NonFiniteError, ShapeError: A start that holds NaN or Inf, or lies on another grid.
    """
    if start is None:
        raise InputError(
            "the starting model is missing",
            got="None",
            expected="start=..., a DataArray (z, x) in m/s",
            hint="Smooth what is known of the velocity, or fit a gradient to the first arrivals.",
        )
    domain = operator.domain
    if isinstance(start, Tensor):
        domain.check(start[None], name="start")
        check_finite(start, "start")
        x = start.to(domain.dtype).expand(len(members), *start.shape).clone()
    else:
        label = 'operator.domain.to_dataarray(torch.as_tensor(values), "velocity")'
        check_dataarray(start, "the starting model", label=label)
        x = _labelled_starts(start, domain, len(members))
    low, high = float(x.min()), float(x.max())
    if low < operator.bounds[0] or high > operator.bounds[1]:
        raise InputError(
            "the starting model is out of bounds",
            got=f"{low:g} to {high:g}",
            expected=f"{operator.bounds[0]:g} to {operator.bounds[1]:g} m/s",
            hint="It looks like km/s: multiply it by 1000."
            if high < 20
            else "Widen the bounds, or clip the start.",
        )
    return x


def _labelled_starts(start: xr.DataArray, domain: Grid, n_members: int) -> Tensor:
    if "realization" not in start.dims:
        one = domain.to_tensor(start, name="start")
        return one.expand(n_members, *one.shape).clone()
    if start.sizes["realization"] != n_members:
        raise ShapeError(
            "starts and members differ in number",
            got=start.sizes["realization"],
            expected=n_members,
        )
    ordered = start.transpose("realization", ...)
    return torch.stack([domain.to_tensor(one, name="start") for one in ordered])
