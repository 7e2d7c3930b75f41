"""What `reconstruct` is given, checked and brought into one form: a `Problem` and a prior."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
import xarray as xr

from invdiff.completion import completed
from invdiff.errors import DataWarning, InputError, ShapeError
from invdiff.inputs import check_call, check_problem
from invdiff.protocols import Operator, Prior, Problem

__all__ = ["given_problem"]


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
        check_problem(y, operator, prior, verb="reconstruct")
        problem = y
    else:
        operator = check_call(y, operator, prior, verb="reconstruct")
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
