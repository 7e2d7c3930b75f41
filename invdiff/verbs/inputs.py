"""What the verbs are given, checked and brought into one form: a `Problem` on one device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff import traces as arrays
from invdiff.completion import completed
from invdiff.errors import DataWarning, DTypeError, InputError, ShapeError, UnsupportedError
from invdiff.fwi.traces import live_traces
from invdiff.grid import Grid, check_coordinates, check_dataarray, check_finite
from invdiff.posterior import check_prior
from invdiff.protocols import Operator, Prior, Problem, WaveOperator

__all__ = ["as_device", "given_problem", "given_traces", "moved"]

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
        _check_problem(y, operator, prior, verb="reconstruct")
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
    return _without_unmeasured(problem), prior


def _without_unmeasured(problem: Problem) -> Problem:
    """The problem with a note of the values that its operator does not measure, if any."""
    measured = completed(problem.operator).measured
    if measured is None:
        return problem
    if tuple(measured.shape) != tuple(problem.data.shape):
        raise ShapeError(
            "the measured values of the operator do not fit its range",
            got=f"measured of shape {tuple(measured.shape)}",
            expected=tuple(problem.data.shape),
        )
    left_out = (problem.data != 0) & ~torch.as_tensor(measured).to(problem.data.device, torch.bool)
    n = int(left_out.sum())
    if n == 0 or not measured.any():  # the latter is refused
        return problem
    warnings.warn(
        f"{n} of {int((problem.data != 0).sum())} values that are not zero lie where the operator"
        " does not measure: they are left out. Check that its mask is that of the data.",
        DataWarning,
        stacklevel=4,
    )
    return replace(problem, notes={**problem.notes, "unmeasured_values": n})


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
        _check_problem(y, operator, prior, verb="invert")
        return _given_waves(y, weights)
    operator = _wave_operator(_check_call(y, operator, prior, verb="invert"))
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
    """A problem for `invert`, checked, with other weights if there are any."""
    operator = _wave_operator(problem.operator)
    if problem.scale != 1:
        raise InputError(
            "invert takes no scale",
            got=f"a Problem with scale={problem.scale!r}",
            expected="models in m/s, and data in the units of the operator's predictions",
        )
    if weights is not None:
        problem = replace(problem, weights=_trace_weights(weights, operator.range))
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


def _check_problem(problem: Problem, operator: object, prior: Prior | None, *, verb: str) -> None:
    completed(problem.operator)  # refuses what is not an operator
    if not isinstance(problem.data, Tensor):
        raise InputError(
            "the data of a Problem are not a tensor",
            got=type(problem.data).__name__,
            expected=f"a torch.Tensor of shape {problem.operator.range.shape}",
            hint="Convert an array with torch.from_numpy, a DataArray with"
            " operator.range.to_tensor.",
        )
    problem.operator.range.check(problem.data[None], name="data")
    check_finite(problem.data, "data")
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


def as_device(device: str | torch.device) -> torch.device:
    """A device that this machine has.

    Raises:
        InputError: another name, or a device that is not available.
    """
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen).cpu()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        names = ["cpu"]
        names += ["cuda"] if torch.cuda.is_available() else []
        names += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(
            "the device is not available",
            got=repr(device),
            expected=f"one of {names}",
            hint="Leave device out to compute on the CPU.",
        ) from error
    return chosen


def moved(thing: T, device: torch.device) -> T:
    """A prior or an operator on a device, where it can be moved; itself where it cannot."""
    move: Callable[[Any], T] | None = getattr(thing, "to", None)
    return thing if move is None else move(device)
