"""Checks that the priors share: of arrays, grids and windows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid, check_finite

__all__ = [
    "as_tensor",
    "check_grid",
    "check_hermitian",
    "check_mirrored",
    "semidefinite_eigen",
    "window_grid",
]


def as_tensor(values: Any, name: str, *, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor or an array of any byte order as a tensor of this shape and dtype.

    Raises:
        ShapeError: another shape.
        DTypeError: complex values where real ones are expected.
        NonFiniteError: NaN or Inf.
    """
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        values = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
    if tuple(values.shape) != shape:
        raise ShapeError(
            f"the shape of {name} does not fit the grid",
            got=tuple(values.shape),
            expected=shape,
            hint="Build it for the shape of the grid.",
        )
    if values.is_complex() and not dtype.is_complex:
        raise DTypeError(
            f"{name} is complex where a real one is expected",
            got=values.dtype,
            expected=dtype,
            hint="Take its real part, or use a complex grid.",
        )
    check_finite(values, name)
    tensor: Tensor = values.to(dtype)
    return tensor


def check_hermitian(matrices: Tensor, name: str) -> None:
    """Refuse square matrices ``(..., n, n)`` that differ from their adjoints beyond rounding.

    Raises:
        InputError: a matrix that is not Hermitian.
    """
    largest = float((matrices - matrices.mH).abs().max())
    if largest > torch.finfo(matrices.dtype).eps ** 0.5 * float(matrices.abs().max()):
        raise InputError(
            f"{name} is not Hermitian",
            got=f"|C - C^H| of up to {largest:.3g}",
            expected="C = C^H",
            hint="Use (C + C^H) / 2 if the difference is an error of rounding.",
        )


def semidefinite_eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(..., n)`` and eigenvectors of covariances; errors of rounding below 0 are 0.

    Raises:
        InputError: an eigenvalue that is negative beyond rounding.
    """
    values, vectors = torch.linalg.eigh(matrices)
    tolerance = torch.finfo(values.dtype).eps ** 0.5 * values.abs().amax(-1, keepdim=True)
    if (values < -tolerance).any():
        raise InputError(
            "the covariance is not positive semi-definite",
            got=f"eigenvalues from {float(values.min()):.3g} to {float(values.max()):.3g}",
            expected="eigenvalues >= 0",
            hint="Build it as A A^H, or from a covariance function that is positive definite.",
        )
    return values.clamp_min(0), vectors


def check_mirrored(spectra: Tensor, ndim: int, name: str) -> None:
    """Refuse spectra ``(..., *shape)`` of real fields of ``ndim`` axes without ``S(-k) = S(k)``.

    Raises:
        ShapeError: a spectrum that no real field has.
    """
    axes = tuple(range(-ndim, 0))
    mirrored = spectra.flip(axes).roll((1,) * ndim, axes)
    # The tolerance is relative: spectra of fields in small units are small everywhere.
    tolerance = 1e-5 * float(spectra.abs().max())
    if not torch.allclose(mirrored, spectra, rtol=0, atol=tolerance):
        raise ShapeError(
            f"{name} of a real field must satisfy S(-k) = S(k)",
            got=f"a difference of {float((mirrored - spectra).abs().max()):.3g}",
            expected="a symmetric spectrum in torch.fft order",
            hint="Order the wavenumbers as torch.fft.fftfreq does, zero first.",
        )


def check_grid(grid: Grid, expected: Grid, name: str) -> None:
    """Refuse a grid whose fields are of another kind than those of a prior.

    Compared are the number of axes, the places of dims that both grids have, real or complex
    values, and units. Dims of other names are accepted, and so are units of ``"1"``: a `Grid`
    without stated units has those.

    Args:
        grid: the grid that the prior shall be put on.
        expected: the grid that the prior was made for.
        name: of the prior, for the message.

    Raises:
        ShapeError: another number of axes, or the same dims in another order.
        DTypeError: a real field where the prior is of complex ones, or the reverse.
        InputError: other units, or something that is not a grid.
    """
    if not isinstance(grid, Grid):
        raise InputError(
            f"{name} can only be put on a Grid",
            got=type(grid).__name__,
            expected="a Grid",
            hint="Give operator.domain, or Grid.from_dataarray(array).",
        )
    if grid.ndim != expected.ndim:
        raise ShapeError(
            f"{name} is a prior of {expected.ndim}-D fields",
            got=f"a {grid.ndim}-D grid of dims {grid.dims} and shape {grid.shape}",
            expected=f"{expected.ndim} dims such as {expected.dims}",
            hint="Work on a volume slice by slice."
            if grid.ndim > expected.ndim
            else "Give the grid of the whole field.",
        )
    if grid.is_complex != expected.is_complex:
        kind, other = ("complex", "real") if expected.is_complex else ("real", "complex")
        raise DTypeError(
            f"{name} is a prior of {kind} fields, the grid is {other}",
            got=grid.dtype,
            expected=f"a {kind} dtype such as {expected.dtype}",
            hint=f"Build the operator for {kind} fields, or load a prior of {other} ones.",
        )
    if any(a != b and a in expected.dims for a, b in zip(grid.dims, expected.dims, strict=True)):
        raise ShapeError(
            f"the dims of the grid stand in another order than those of {name}",
            got=grid.dims,
            expected=expected.dims,
            hint="Transpose the data and the operator to this order.",
        )
    stated = "1" not in (grid.units, expected.units)
    if stated and _base_units(grid.units) != _base_units(expected.units):
        raise InputError(
            f"the fields of {name} have other units than the grid",
            got=repr(grid.units),
            expected=repr(expected.units),
            hint=f"Convert the field to {expected.units!r} and state it in the grid's units.",
        )


def _base_units(units: str) -> list[str]:
    """Factors of a unit, so that ``m/s``, ``m s-1`` and ``m s^-1`` are one."""
    text = re.sub(r"\s*/\s*([A-Za-z]+)", r" \1-1", units)
    text = text.replace("**", "").replace("^", "").replace("⁻¹", "-1")
    return sorted(re.split(r"[\s.·*]+", text.strip()))


def window_grid(grid: Grid, window: tuple[slice, ...]) -> Grid:
    """The grid of a window, with its coordinates.

    Args:
        grid: the whole grid.
        window: one slice per axis, with explicit start and stop and without a step.

    Raises:
        ShapeError: a window that does not lie within the grid.
    """
    inside = [
        w == slice(*w.indices(n)[:2], w.step) and w.step in (None, 1) and w.start < w.stop
        for w, n in zip(window, grid.shape, strict=False)
    ]
    if len(window) != grid.ndim or not all(inside):
        raise ShapeError(
            "the window does not lie within the grid",
            got=window,
            expected=f"one slice(start, stop) per axis within {grid.shape}",
            hint="Cut the window at the edges of the grid.",
        )
    coords = {dim: np.asarray(v)[window[grid.dims.index(dim)]] for dim, v in grid.coords.items()}
    shape = tuple(w.stop - w.start for w in window)
    return Grid(grid.dims, shape, grid.dtype, coords, grid.units)
