"""Initial members that a verb is given, checked."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from invdiff.errors import InputError
from invdiff.grid import Grid, check_dataarray

__all__ = ["given_members"]


def given_members(initial: xr.DataArray, grid: Grid, *, least: int = 2) -> tuple[Tensor, list[int]]:
    """Members ``(M, *grid.shape)`` on the grid of a model, and their numbers.

    Args:
        initial: Members ``(realization, ...)``; a single state is one member.
        grid: Grid of the model's states.
        least: Smallest number of members.

    Raises:
        InputError: Not a DataArray, or fewer members than ``least``.
        ShapeError: Members on another grid.
        NonFiniteError: NaN or Inf.
    """
    check_dataarray(initial, "the initial states")
    if "realization" not in initial.dims:
        initial = initial.expand_dims("realization")
    n = initial.sizes["realization"]
    if n < least:
        raise InputError(
            "there are too few initial members",
            got=f"{n} along the dim realization",
            expected=f"{least} or more",
            hint="Draw or perturb more: their spread is the uncertainty of the initial state.",
        )
    with_members = Grid(
        ("realization", *grid.dims), (n, *grid.shape), grid.dtype, grid.coords, grid.units
    )
    members = with_members.to_tensor(
        initial.drop_vars("realization", errors="ignore"), name="the initial states"
    )
    has_numbers = "realization" in initial.coords
    return members, [int(i) for i in initial["realization"].values] if has_numbers else [*range(n)]
