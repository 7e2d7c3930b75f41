"""Arrays and grids as operators take them: converted without loss, or refused by name."""

from __future__ import annotations

import inspect
import reprlib

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid, check_finite

__all__ = ["as_mask", "as_tensor", "as_values", "check_grid", "describe"]

_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def describe(value: object) -> str:
    """A value in the words of an error: arrays by shape and dtype, all else by a short repr."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    if type(value).__repr__ is object.__repr__:
        return f"an instance of {type(value).__name__}"
    return reprlib.repr(value)


def check_grid(grid: object, owner: type, *, name: str = "domain") -> None:
    """Refuse what is not a `Grid`, and give the call that was meant.

    Args:
        grid: argument to be checked.
        owner: class whose constructor got it.
        name: of the argument.

    Raises:
        InputError: anything but a `Grid`.
    """
    if not isinstance(grid, Grid):
        call = ", ".join(inspect.signature(owner).parameters)
        raise InputError(
            f"{name} of {owner.__name__} is not a Grid",
            got=describe(grid),
            expected="an invdiff.Grid",
            hint=f"The call is {owner.__name__}({call}).",
        )


def as_tensor(values: object, name: str) -> Tensor:
    """An array of any kind as a tensor that holds the same values.

    Args:
        values: a tensor, which is returned as it is but made dense, or anything that NumPy reads
            as an array of numbers or booleans, of either byte order; that is copied.
        name: of the values, for the message.

    Raises:
        DTypeError: text, objects, dates, ragged lists, or a dtype that torch does not have.
        InputError: an array with masked values.
    """
    if isinstance(values, Tensor):
        return values if values.layout == torch.strided else values.to_dense()
    if np.ma.is_masked(values):
        raise InputError(
            f"{name} has masked values",
            got=describe(values),
            expected="all values",
            hint="Fill them with a value of your choice: values.filled(0).",
        )
    try:
        array = np.asarray(values)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            # Torch holds wide unsigned integers but hardly computes with them.
            array = array.astype(np.int64 if (array < 2**63).all() else np.longdouble)
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:
        raise DTypeError(
            f"{name} is not an array of numbers",
            got=describe(values),
            expected="booleans, integers, floats or complex numbers of at most 64 bits a part",
        ) from error


def as_values(values: object, grid: Grid, name: str) -> Tensor:
    """An array in the dtype of a grid: integers exactly, floats in the grid's precision.

    Args:
        values: array of any shape, real or complex as the grid.
        grid: gives the dtype.
        name: of the values, for the message.

    Raises:
        DTypeError: real values for a complex grid, the reverse, or no numbers at all.
        NonFiniteError: NaN or Inf.
        InputError: integers that the dtype cannot hold exactly, or floats beyond its range.
    """
    given = as_tensor(values, name)
    if given.is_complex() != grid.is_complex:
        kinds = ("real", "complex")
        raise DTypeError(
            f"{name} is {kinds[given.is_complex()]} but the domain is {kinds[grid.is_complex]}",
            got=given.dtype,
            expected=grid.dtype,
            hint=f"Convert it explicitly, such as {name}.to({grid.dtype}), or take its real part.",
        )
    check_finite(given, name)
    converted = given.to(grid.dtype)
    inexact = given.dtype in _INTEGERS and not torch.equal(converted.to(given.dtype), given)
    if inexact or not torch.isfinite(converted).all():
        raise InputError(
            f"{name} holds values that {grid.dtype} cannot hold",
            got=f"{given.dtype} values of magnitude up to {given.abs().max()}",
            expected=f"exact integers, or floats up to {torch.finfo(grid.dtype).max:.3g}",
            hint="Build the grid in double precision: grid.with_dtype(torch.float64).",
        )
    return converted


def as_mask(mask: object, shape: tuple[int, ...], *, name: str = "mask") -> Tensor:
    """A mask of booleans, or of zeros and ones, broadcast to ``shape`` as booleans.

    Args:
        mask: array of any dtype and byte order, broadcastable to ``shape``.
        shape: of the field that it selects from.
        name: of the mask, for the message.

    Raises:
        ShapeError: it does not broadcast to ``shape``.
        DTypeError: it is not an array of numbers or booleans.
        InputError: values other than 0 and 1, or nothing kept.
    """
    mask = as_tensor(mask, name)
    keep = mask != 0
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        others = mask[(mask != 0) & (mask != 1)]
        raise InputError(
            f"{name} is neither boolean nor of zeros and ones",
            got=f"{others.numel()} other {mask.dtype} values, the first {others[0].item()}",
            expected="True or 1 where a sample is kept, False or 0 elsewhere",
            hint="Compare it, such as weights > 0.",
        )
    try:
        keep = keep.broadcast_to(shape)
    except RuntimeError as error:
        raise ShapeError(
            f"{name} does not fit",
            got=tuple(mask.shape),
            expected=f"broadcastable to {shape}",
            hint="Crop, pad or transpose it as the data were.",
        ) from error
    if not keep.any():
        raise InputError(
            f"{name} is empty",
            got="no sample kept",
            expected="at least one",
            hint="Check that True means kept.",
        )
    return keep.contiguous()
