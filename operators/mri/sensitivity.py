"""Coil sensitivities: simulated, or calibrated from the centre of k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError
from invdiff.grid import check_finite

__all__ = ["birdcage", "calibration_shape", "espirit"]


def birdcage(shape: tuple[int, ...], n_coils: int, *, radius: float = 1.5) -> Tensor:
    """Smooth simulated maps of coils on a ring around the object, ``sum_c |S_c|^2 = 1``.

    Args:
        shape: image shape, ``(y, x)`` or ``(z, y, x)``.
        n_coils: number of coils; in 3-D they lie on rings of eight.
        radius: of the ring, in half widths of the image; more than 1.

    Returns:
        ``(n_coils, *shape)`` complex64.

    Raises:
        InputError: no coils, or a ring inside the image.
        ShapeError: a shape of other than two or three axes.
    """
    if n_coils < 1 or not radius > 1:
        raise InputError(
            "no such coil array",
            got=f"n_coils={n_coils}, radius={radius}",
            expected="n_coils >= 1 and radius > 1",
        )
    if len(shape) not in (2, 3):
        raise ShapeError("not an image shape", got=shape, expected="(y, x) or (z, y, x)")
    from sigpy.mri import birdcage_maps

    maps = birdcage_maps((n_coils, *shape), r=radius, nzz=8)
    return torch.from_numpy(maps).to(torch.complex64)


def espirit(
    kspace: Tensor,
    *,
    calibration: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> Tensor:
    """ESPIRiT maps from the fully sampled centre of k-space, one set, by sigpy.

    The maps satisfy ``sum_c |S_c|^2 = 1`` inside the object and are zero outside; the first coil is
    real. The signal outside the maps' support is outside the model.

    Args:
        kspace: ``(n_coils, *image)`` complex, centred; samples outside the block are not used.
        calibration: edge of the fully sampled central block; see `calibration_shape`.
        kernel: edge of the calibration kernel.
        threshold: singular values kept, relative to the largest.
        crop: eigenvalues below it are outside the object.

    Returns:
        ``(n_coils, *image)`` complex64.

    Raises:
        ShapeError: k-space that is not ``(n_coils, y, x)`` or ``(n_coils, z, y, x)``.
        InputError: a calibration block smaller than the kernel or larger than the image.
        NonFiniteError: NaN or Inf in k-space or in the maps.

    References:
        Uecker et al. (2014), ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI,
        doi:10.1002/mrm.24751
    """
    if kspace.ndim not in (3, 4) or not kspace.is_complex():
        raise ShapeError(
            "not multi-coil k-space",
            got=f"{tuple(kspace.shape)}, {kspace.dtype}",
            expected="complex (n_coils, y, x) or (n_coils, z, y, x)",
        )
    if not kernel <= calibration <= min(kspace.shape[1:]):
        raise InputError(
            "calibration block does not fit",
            got=calibration,
            expected=f"between the kernel, {kernel}, and the image, {tuple(kspace.shape[1:])}",
            hint="Maps need a fully sampled centre of k-space; without one, give sensitivities.",
        )
    check_finite(kspace, "kspace")
    from sigpy.mri.app import EspiritCalib

    app = EspiritCalib(
        kspace.detach().cpu().to(torch.complex64).numpy(),
        calib_width=calibration,
        thresh=threshold,
        kernel_width=kernel,
        crop=crop,
        show_pbar=False,
    )
    maps = torch.from_numpy(app.run()).to(torch.complex64)
    check_finite(maps, "ESPIRiT map")
    return maps


def calibration_shape(mask: Tensor) -> tuple[int, ...]:
    """Edges of the largest fully sampled central block of a mask.

    The block grows as a cube first and then along each axis in turn, so lines give
    ``(n_y, n_lines)`` and a disc with a square centre gives that square.

    Args:
        mask: boolean, centred layout, ``(*image)``.

    Returns:
        One edge an axis; zeros if the zero frequency is not sampled.
    """
    shape = tuple(mask.shape)

    def is_full(edges: tuple[int, ...]) -> bool:
        starts = (n // 2 - edge // 2 for n, edge in zip(shape, edges, strict=True))
        block = tuple(slice(s, s + edge) for s, edge in zip(starts, edges, strict=True))
        return bool(mask[block].all())

    edges = (0,) * mask.ndim
    growing = set(range(mask.ndim))
    while growing:  # all axes that still can grow take one step together
        growing = {axis for axis in growing if edges[axis] < shape[axis]}
        wider = tuple(e + (axis in growing) for axis, e in enumerate(edges))
        if not growing or not is_full(wider):
            break
        edges = wider
    for axis in range(mask.ndim):
        while edges[axis] < shape[axis]:
            wider = tuple(e + (a == axis) for a, e in enumerate(edges))
            if 0 in wider or not is_full(wider):
                break
            edges = wider
    return edges
