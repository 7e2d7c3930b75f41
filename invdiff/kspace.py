"""Checks of k-space, mask, coil maps and noise levels, shared by file readers and operators."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from invdiff.errors import (
    DataWarning,
    DTypeError,
    InputError,
    NoiseLevelError,
    NonFiniteError,
    ShapeError,
)

__all__ = ["Acquisition", "check_acquisition", "native"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Cartesian k-space of one slice or volume, checked, in the byte order of the machine.

    Args:
        kspace: complex ``(coil, *image)``, zero outside the mask.
        mask: boolean ``(*image)``; every sample in it is nonzero in at least one coil.
        sensitivity: complex ``(coil, *image)``, or None where it is not known.
        noise_std: float64, one level ``()`` or one per coil ``(coil,)``, in the units of kspace;
            None where it is not known. Positive, except for coils that are zero everywhere.
        n_zero_in_mask: how many samples of the given mask were zero in all coils; they are not in
            ``mask``.
    """

    kspace: Array
    mask: Array
    sensitivity: Array | None
    noise_std: Array | None
    n_zero_in_mask: int


def check_acquisition(
    kspace: Array,
    *,
    mask: Array | None = None,
    sensitivity: Array | None = None,
    noise_std: object = None,
) -> Acquisition:
    """Check that the arrays of a scan fit together, and find out which samples were measured.

    Measured noise is never exactly zero in all coils. Samples of the given mask that are, such as
    the zero-filled columns of padded fastMRI files, were not measured: taken as data they would say
    that the image has no power there. They are taken out of the mask, counted, and reported.

    Args:
        kspace: ``(coil, *image)`` with two or three image axes, complex64 or complex128.
        mask: acquired samples, boolean or zeros and ones, broadcastable to ``(*image)``; without
            one, the samples that are nonzero in any coil.
        sensitivity: maps of the shape of kspace, complex64 or complex128.
        noise_std: one number or one per coil.

    Raises:
        InputError: a mask with values other than 0 and 1, k-space that is nonzero outside the mask,
            or no measured sample.
        ShapeError: arrays that do not fit together.
        DTypeError: k-space or maps that are not complex, or a mask that is not numeric.
        NonFiniteError: NaN or Inf; the message gives the first index.
        NoiseLevelError: noise levels that are not positive, or not one per coil.

    Warns:
        DataWarning: samples that were taken out of the mask.
    """
    kspace = _complex("kspace", kspace)
    if kspace.ndim not in (3, 4):
        raise ShapeError(
            "kspace has the wrong number of axes",
            got=f"shape {kspace.shape}",
            expected="(coil, ky, kx) or (coil, kz, ky, kx)",
            hint="Give a single coil an axis of length 1.",
        )
    if kspace.size == 0:
        raise ShapeError(
            "kspace is empty",
            got=f"shape {kspace.shape}",
            expected="lengths >= 1",
            hint="Check that the scan was written completely.",
        )
    if sensitivity is not None:
        sensitivity = _complex("sensitivity", sensitivity)
        if sensitivity.shape != kspace.shape:
            raise ShapeError(
                "sensitivity does not fit kspace",
                got=f"shape {sensitivity.shape}",
                expected=f"{kspace.shape}, the shape of kspace",
                hint="Give one map per coil, of the size of the image, or leave the maps out.",
            )
    nonzero = np.asarray((kspace != 0).any(axis=0))
    given = nonzero if mask is None else _mask(kspace, mask)
    measured = given & nonzero
    n_measured = int(measured.sum())
    if n_measured == 0:
        raise InputError(
            "no sample was acquired",
            got="an empty mask" if not given.any() else "zeros in all coils at all samples",
            expected="at least one sample that is not zero",
            hint="Check that the scan holds what was measured, and that True in the mask means "
            "measured.",
        )
    n_zero = int(given.sum()) - n_measured
    if n_zero:
        warnings.warn(
            f"{n_zero} of {n_zero + n_measured} samples in the mask are exactly zero in all coils "
            "(zero padding, for example). They were not measured and are taken out of the mask.",
            DataWarning,
            stacklevel=3,
        )
    levels = None if noise_std is None else _noise_levels(noise_std, kspace)
    return Acquisition(kspace, measured, sensitivity, levels, n_zero)


def native(values: Array) -> Array:
    """The same values in a layout that torch takes: native byte order, contiguous, writable."""
    return np.require(values, values.dtype.newbyteorder("="), ["C", "W"])


def _complex(name: str, values: Array) -> Array:
    if values.dtype.kind != "c" or values.dtype.itemsize not in (8, 16):
        if values.dtype.names is not None:
            hint = f"Store {name}['real'] + 1j * {name}['imag'] under the names of its two fields."
        else:
            hint = f"Join real and imaginary parts: {name}[..., 0] + 1j * {name}[..., 1]."
        raise DTypeError(
            f"{name} is not complex",
            got=f"{values.dtype} of shape {values.shape}",
            expected="complex64 or complex128",
            hint=hint,
        )
    _check_finite(name, values)
    return native(values)


def _check_finite(name: str, values: Array) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
        raise NonFiniteError(
            f"{name} holds NaN or Inf",
            got=f"{int(bad.sum())} of {values.size} values, the first at index {first}",
            expected="finite values",
            hint="Repair them, or set them to zero in all coils and leave them out of the mask.",
        )


def _mask(kspace: Array, mask: Array) -> Array:
    """The given mask as booleans of the shape of the image."""
    shape = kspace.shape[1:]
    if mask.dtype.kind not in "biuf":
        raise DTypeError(
            "the mask is not boolean",
            got=mask.dtype,
            expected="bool, or 0 and 1",
            hint="Give True where a sample was acquired.",
        )
    _check_finite("mask", mask)
    is_one = mask == 1
    if not (is_one | (mask == 0)).all():
        raise InputError(
            "the mask holds other values than 0 and 1",
            got=f"values from {mask.min()} to {mask.max()}",
            expected="0 and 1, or booleans",
            hint="Say which samples were acquired, such as weights > 0.",
        )
    try:
        acquired = np.broadcast_to(is_one, shape)
    except ValueError:
        raise ShapeError(
            "the mask does not fit kspace",
            got=f"mask {mask.shape}, kspace {kspace.shape}",
            expected=f"{shape}, or lines ({shape[-1]},)",
            hint="Crop, pad or transpose it as k-space was, or leave it out; a single coil has an "
            "axis of length 1.",
        ) from None
    n_outside = int(np.count_nonzero(kspace[:, ~acquired]))
    if n_outside:
        raise InputError(
            "kspace is not zero outside the mask",
            got=f"{n_outside} nonzero samples there, over all coils",
            expected="0",
            hint="Multiply kspace by the mask to hold them out, or correct the mask.",
        )
    return acquired


def _noise_levels(given: object, kspace: Array) -> Array:
    """Noise levels, ``()`` or ``(coil,)``."""
    n_coils = len(kspace)
    values = np.asarray(given)
    expected = f"one positive number, or one for each of {n_coils} coils"
    hint = "Leave it out to have it estimated from the outermost samples."
    if values.dtype.kind not in "iuf":
        raise NoiseLevelError(
            "noise_std is not a number", got=repr(given), expected=expected, hint=hint
        )
    if values.shape not in {(), (1,), (n_coils,)}:
        if values.shape in {kspace.shape, kspace.shape[1:]}:
            hint = (
                "Noise levels that differ between samples are a noise model of "
                "invdiff.reconstruct: pass it data, operator and noise_std of the data's shape."
            )
        raise ShapeError(
            "noise_std does not fit the coils",
            got=f"shape {values.shape}",
            expected=expected,
            hint=hint,
        )
    levels = np.squeeze(values.astype(np.float64)) if values.size == 1 else values.astype(float)
    is_live = kspace.any(axis=tuple(range(1, kspace.ndim)))
    is_needed = is_live if levels.ndim else np.True_
    if not (np.isfinite(levels) & (levels >= 0) & ((levels > 0) | ~is_needed)).all():
        raise NoiseLevelError(
            "noise_std is not positive",
            got=repr(given),
            expected=f"{expected}, finite and in the units of kspace",
            hint=hint,
        )
    return levels
