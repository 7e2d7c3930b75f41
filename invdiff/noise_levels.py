"""The noise level that a verb is given, as the noise model of its data."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff.errors import NoiseLevelError, ShapeError
from invdiff.grid import Grid, check_coordinates
from invdiff.likelihood import AxisCovariance, NoiseModel
from invdiff.protocols import Problem

__all__ = ["GivenNoise", "noise_model", "noise_samples"]

GivenNoise = NoiseModel | np.ndarray | xr.DataArray | list[float]
"""What a verb accepts as noise level: a number, or one for each coil, sample or element."""


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
    is_function = callable(given) and not isinstance(given, type) and not hasattr(given, "shape")
    if isinstance(given, AxisCovariance) or is_function:
        return given  # type: ignore[return-value]
    levels = noise_samples(given, grid)
    return float(levels) if levels.ndim == 0 else levels


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
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype == torch.bfloat16 else given
    try:
        levels = np.asarray(given)
        if levels.dtype.kind not in "iuf":
            raise TypeError
        levels = levels.astype(np.float64)
    except (TypeError, ValueError):
        raise NoiseLevelError(
            "the noise level is not a number",
            got=repr(given),
            expected="a positive number, or an array of them that broadcasts to the data",
        ) from None
    # Not only the level, but its square too: the variance.
    if not (np.isfinite(levels) & (np.square(levels) > 0) & (levels > 0)).all():
        raise NoiseLevelError(
            "the noise level is not positive",
            got=float(levels) if levels.ndim == 0 else f"values from {levels.min()}",
            expected="a finite standard deviation > 0, in the units of the data",
            hint="For data without noise give the error of the modelling, a few percent of their"
            " standard deviation.",
        )
    if levels.shape == grid.shape[:1] and grid.ndim > 1:
        levels = levels.reshape(-1, *(1,) * (grid.ndim - 1))
    try:
        fits = np.broadcast_shapes(levels.shape, grid.shape) == grid.shape
    except ValueError:
        fits = False
    if not fits or levels.shape == (1,) != grid.shape[-1:]:  # a list of one is not one per coil
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
    check_coordinates(levels, grid, "the noise level")
    absent = {dim: 1 for dim in grid.dims if dim not in levels.dims}
    return np.asarray(levels.expand_dims(absent).transpose(*grid.dims).values)
