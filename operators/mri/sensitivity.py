"""Coil sensitivities: simulated, or calibrated from the centre of k-space."""

from __future__ import annotations

import math

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
    n_sets: int = 1,
) -> Tensor:
    r"""ESPIRiT maps from the fully sampled centre of k-space, in one set or more.

    Patches of ``kernel`` samples of all coils lie in a space that the maps determine. Projecting
    onto it (its basis: right singular vectors ``v_k`` of the calibration matrix above
    ``threshold``) is in image space a small Hermitian matrix for each pixel,

    .. math:: G(r) = K^{-d} \sum_k \hat v_k(r) \hat v_k(r)^H, \qquad
              \hat v_k(r) = \sum_q v_k(q) e^{2 \pi i q r / N}

    with a kernel of edge ``K`` in ``d`` dims, and ``S(r)`` is its eigenvector with eigenvalue 1.
    The maps satisfy ``sum_c |S_c|^2 = 1`` inside the object and are zero outside; the first coil is
    real, so that the phase of the image is that of the first coil's image.

    Where one set cannot describe the data, as in an object that is larger than the field of view,
    the second eigenvalue is near 1 too, and its eigenvector is a second set of maps, for
    `invdiff.operators.mri.SoftSenseMRI`.

    Assumptions: smooth maps. Signal outside the support of the maps is outside the model. Cost: one
    SVD of ``(calibration - kernel)^d`` patches, ``n_coils^2`` FFTs of the image and an eigenvalue
    problem of that size for each pixel; about a second for eight coils of 230 x 180.

    Args:
        kspace: ``(n_coils, *image)`` complex, centred; samples outside the block are not used.
        calibration: edge of the fully sampled central block; see `calibration_shape`.
        kernel: edge of the calibration kernel, in samples.
        threshold: singular values kept, relative to the largest.
        crop: pixels with an eigenvalue below it are zero in the maps of their set; 0 keeps all.
        n_sets: sets of maps, those of the largest eigenvalues first; at most one for each coil.

    Returns:
        Maps ``(n_coils, *image)`` in the dtype of k-space, ``(n_sets, n_coils, *image)`` of more
        than one set.

    Raises:
        ShapeError: k-space that is not ``(n_coils, y, x)`` or ``(n_coils, z, y, x)``.
        InputError: a calibration block that is smaller than the kernel, larger than the image or
            zero, or more sets than coils.
        NonFiniteError: NaN or Inf in k-space.

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
    n_sets = as_integer("n_sets", n_sets, least=1)
    if n_sets > len(kspace):
        raise InputError("more sets of maps than coils", got=n_sets, expected=f"1 to {len(kspace)}")
    check_finite(kspace, "kspace")
    kernels = _kernels(kspace, calibration, kernel, threshold)
    values, vectors = torch.linalg.eigh(_gram(kernels, tuple(kspace.shape[1:])))
    largest = values[..., -n_sets:].flip(-1).movedim(-1, 0)
    maps = vectors[..., -n_sets:].flip(-1).movedim((-1, -2), (0, 1))
    first = maps[:, :1]
    sets: Tensor = maps * torch.where(first == 0, 1, first.sgn().conj())
    sets = sets * (largest > crop)[:, None]
    return sets if n_sets > 1 else sets[0]


def _kernels(kspace: Tensor, calibration: int, edge: int, threshold: float) -> Tensor:
    """Basis of the patches of the calibration block, ``(n, n_coils, *edges)``."""
    n_coils, axes = len(kspace), range(1, kspace.ndim)
    patches = kspace
    for axis in axes:
        start = kspace.shape[axis] // 2 - calibration // 2
        patches = patches.narrow(axis, start, calibration).unfold(axis, edge, 1)
    rows = patches.movedim(0, kspace.ndim - 1).reshape(-1, n_coils * edge ** len(axes))
    _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
    if singular[0] == 0:
        raise InputError(
            "the calibration block holds no signal",
            got="zeros",
            expected="the fully sampled centre of k-space",
            hint="Check that k-space is centred: zero frequency at n // 2.",
        )
    kept: Tensor = vectors[singular > threshold * singular[0]]
    return kept.reshape(-1, n_coils, *[edge] * len(axes))


def _gram(kernels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``G(r)``, ``(*image, n_coils, n_coils)``, by the correlation of kernels over their lags."""
    axes = tuple(range(-len(shape), 0))
    small = [min(2 * edge, n) for edge, n in zip(kernels.shape[2:], shape, strict=True)]
    spectra = torch.fft.fftn(kernels, s=small, dim=axes)
    power = torch.einsum("kc...,kd...->cd...", spectra, spectra.conj())
    lags = torch.fft.fftshift(torch.fft.ifftn(power, dim=axes), dim=axes)
    wide = lags.new_zeros(*lags.shape[:2], *shape)
    centre = (
        slice(n // 2 - s // 2, n // 2 - s // 2 + s) for n, s in zip(shape, small, strict=True)
    )
    wide[(..., *centre)] = lags
    gram: Tensor = torch.fft.ifftn(torch.fft.ifftshift(wide, dim=axes), dim=axes, norm="forward")
    gram = torch.fft.fftshift(gram, dim=axes) / math.prod(kernels.shape[2:])
    return gram.movedim((0, 1), (-2, -1))


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
