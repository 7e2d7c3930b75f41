"""From the arrays of a scan to a problem that any prior can be put on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NoiseLevelError, ShapeError
from invdiff.operators.mri.cartesian import CartesianMRI
from invdiff.operators.mri.noise import estimate_coil_covariance, estimate_noise_std, prewhiten
from invdiff.operators.mri.scale import image_scale
from invdiff.operators.mri.sensitivity import calibration_shape, espirit
from invdiff.protocols import Problem

__all__ = ["cartesian_problem"]


def cartesian_problem(
    arrays: Mapping[str, Tensor], *, noise_std: float | Sequence[float] | None = None
) -> Problem:
    """Estimate what is not given: coil maps, noise, scale; and whiten.

    With ``W = C^(-1/2)`` of the noise covariance between coils, data and maps become ``W y`` and
    ``W S``: the noise is then white with unit level. Estimated maps are normalised after whitening,
    so that the image is in units of the noise; with given maps it keeps the units of the data.

    Args:
        arrays: ``kspace`` complex ``(coil, *image)``, ``mask`` ``(*image)``, and, if known,
            ``sensitivity`` ``(coil, *image)``; otherwise ESPIRiT maps are made from the fully
            sampled centre.
        noise_std: of all coils or of each, if known; otherwise the covariance of the outermost
            samples.

    Raises:
        InputError: arrays missing, or no fully sampled centre to make maps from.
        DTypeError: real k-space.
        ShapeError: noise levels or maps of another number of coils.
        NoiseLevelError: a noise level that is not positive.
    """
    _check(arrays)
    kspace, mask = arrays["kspace"], arrays["mask"]
    covariance = _covariance(kspace, mask, noise_std)
    if len(kspace) == 1:  # the sensitivity of a single coil is part of the image
        level = float(covariance[0, 0].real.sqrt())
        return Problem(CartesianMRI(mask), kspace[0], level, image_scale(kspace[0], mask))
    white = prewhiten(kspace, covariance)
    if "sensitivity" in arrays:
        sensitivity = prewhiten(arrays["sensitivity"], covariance)
    else:
        # Not cropped: where maps are zero the data say nothing, and the prior would fill in.
        sensitivity = espirit(white, calibration=min(calibration_shape(mask)), crop=0.0)
    scale = image_scale(white, mask, sensitivity)
    return Problem(CartesianMRI(mask, sensitivity), white, 1.0, scale)


def _check(arrays: Mapping[str, Tensor]) -> None:
    """Raise unless the arrays are there and fit together."""
    missing = [name for name in ("kspace", "mask") if name not in arrays]
    if missing:
        raise InputError(
            "arrays of the scan are missing",
            got=sorted(arrays),
            expected=f"also {missing}",
            hint="Read the file with invdiff.io.read_kspace.",
        )
    kspace, mask = arrays["kspace"], arrays["mask"]
    for name in ("kspace", "sensitivity"):
        if name in arrays and not arrays[name].is_complex():
            raise DTypeError(
                f"{name} is real",
                got=arrays[name].dtype,
                expected="complex values",
                hint="Join its real and imaginary parts, as with torch.complex.",
            )
    if tuple(kspace.shape[1:]) != tuple(mask.shape):
        raise ShapeError(
            "kspace and mask do not fit together",
            got=f"kspace {tuple(kspace.shape)}, mask {tuple(mask.shape)}",
            expected="(coil, *image) and (*image)",
            hint="Give a single coil an axis of length 1; crop or pad both alike.",
        )
    if "sensitivity" in arrays and arrays["sensitivity"].shape != kspace.shape:
        raise ShapeError(
            "sensitivity does not fit kspace",
            got=tuple(arrays["sensitivity"].shape),
            expected=tuple(kspace.shape),
            hint="One map a coil, of the size of the image.",
        )


def _covariance(kspace: Tensor, mask: Tensor, noise_std: float | Sequence[float] | None) -> Tensor:
    """Noise covariance between coils, given or estimated."""
    if noise_std is None:
        if len(kspace) == 1:
            return estimate_noise_std(kspace, mask).square()[:, None]
        return estimate_coil_covariance(kspace, mask)
    levels = torch.as_tensor(noise_std, dtype=kspace.dtype.to_real())
    if levels.ndim and levels.shape != (len(kspace),):
        raise ShapeError(
            "noise levels do not fit the coils",
            got=f"{tuple(levels.shape)} levels",
            expected=f"one number or {len(kspace)}",
            hint="Give one for each coil, in their order.",
        )
    levels = levels.expand(len(kspace))
    if not (torch.isfinite(levels) & (levels > 0)).all():
        raise NoiseLevelError(
            "noise level is not positive",
            got=noise_std,
            expected="finite numbers > 0, in the units of kspace",
            hint="Leave it out to have it estimated from the outermost samples.",
        )
    return torch.diag(levels.square()).to(kspace.dtype)
