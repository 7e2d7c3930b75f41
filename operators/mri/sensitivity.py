"""Coil sensitivities: simulated, or calibrated from the centre of k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_integers
from invdiff.errors import InputError, ShapeError
from invdiff.grid import check_finite
from invdiff.operators.inputs import as_tensor

__all__ = ["birdcage", "calibration_shape", "espirit"]


def birdcage(shape: tuple[int, ...], n_coils: int, *, radius: float = 1.5) -> Tensor:
    """Smooth simulated maps of coils on a ring around the object, ``sum_c |S_c|^2 = 1``.

    The magnitude of a coil falls with the distance from it, its phase is the angle under which it
    is seen: the model of sigpy's ``birdcage_maps``, not a solution of Maxwell's equations.

    Args:
        shape: image shape, ``(y, x)`` or ``(z, y, x)``.
        n_coils: number of coils, at least 1; in 3-D they lie on rings of eight.
        radius: of the ring, in half widths of the image; more than 1.

    Returns:
        Maps ``(n_coils, *shape)`` complex64.

    Raises:
        InputError: fewer than one coil, or a ring inside the image.
        ShapeError: a shape of other than two or three axes.

    Examples:
        >>> from invdiff.operators.mri import birdcage
        >>> maps = birdcage((32, 24), 8)
        >>> maps.shape
        torch.Size([8, 32, 24])
    """
    n_coils = as_integer("n_coils", n_coils)
    shape = tuple(as_integers("shape", tuple(shape)))
    if n_coils < 1 or not radius > 1:
        raise InputError(
            "the coil array is not possible",
            got=f"n_coils={n_coils}, radius={radius}",
            expected="n_coils >= 1 and radius > 1",
            hint="The coils lie around the image.",
        )
    if len(shape) not in (2, 3):
        raise ShapeError("shape is not that of an image", got=shape, expected="(y, x) or (z, y, x)")
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

    Patches of ``kernel`` samples of all coils lie in a space that the maps determine. Projecting
    onto it (its basis: right singular vectors of the calibration matrix above ``threshold``) is in
    image space a small matrix ``G(r)`` for each pixel, and ``S(r)`` is its eigenvector with
    eigenvalue 1. The maps satisfy ``sum_c |S_c|^2 = 1`` inside the object and are zero outside; the
    first coil is real, so that the phase of the image is that of the first coil's image.

    Assumptions: smooth maps, an object inside the field of view (one set cannot describe aliasing
    within it). Signal outside the support of the maps is outside the model. Cost: one SVD of
    ``(calibration - kernel)^d`` patches, then 100 products with ``n_coils x n_coils`` per pixel;
    about a second for eight coils of 230 x 180, and as much again for compilation on the first
    call.

    Args:
        kspace: ``(n_coils, *image)`` complex, centred; samples outside the block are not used.
        calibration: edge of the fully sampled central block; see `calibration_shape`.
        kernel: edge of the calibration kernel, in samples.
        threshold: singular values kept, relative to the largest.
        crop: pixels with an eigenvalue below it are outside the object; 0 keeps all.

    Returns:
        Maps ``(n_coils, *image)`` complex64, on the CPU.

    Raises:
        ShapeError: k-space that is not ``(n_coils, y, x)`` or ``(n_coils, z, y, x)``.
        InputError: a calibration block smaller than the kernel or larger than the image.
        NonFiniteError: NaN or Inf in k-space or in the maps.

    References:
        Uecker et al. (2014), ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI,
        doi:10.1002/mrm.24751

    Examples:
        >>> import torch
        >>> from invdiff.operators.mri import CartesianMRI, birdcage, espirit
        >>> image = torch.zeros(1, 24, 24, dtype=torch.complex64)
        >>> image[:, 6:18, 6:18] = 1.0
        >>> maps = birdcage((24, 24), 4)
        >>> kspace = CartesianMRI(torch.ones(24, 24, dtype=torch.bool), maps)(image)[0]
        >>> found = espirit(kspace, calibration=16, crop=0.0)
        >>> agreement = (found.conj() * maps).sum(0).abs()[6:18, 6:18]  # 1 up to a common phase
        >>> bool(agreement.min() > 0.98)
        True
    """
    kspace = as_tensor(kspace, "kspace")
    if kspace.ndim not in (3, 4) or not kspace.is_complex():
        raise ShapeError(
            "kspace is not multi-coil k-space",
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
        One edge per axis, in samples; zeros if the zero frequency is not sampled.

    Examples:
        >>> from invdiff.operators.mri import calibration_shape, random_lines
        >>> calibration_shape(random_lines((64, 48), 4, calibration=8, seed=0))
        (64, 8)
    """
    mask = as_tensor(mask, "mask")
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
