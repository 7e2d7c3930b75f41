"""Coil sensitivities that carry the slowly varying phase of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError
from invdiff.grid import check_finite
from invdiff.operators.inputs import as_tensor
from invdiff.operators.mri.cartesian import CartesianMRI

__all__ = ["phase_corrected"]


def phase_corrected(sensitivity: Tensor, kspace: Tensor, *, calibration: int = 24) -> Tensor:
    r"""Maps with the phase of the image at low resolution, so that the image is nearly real.

    Coils determine the product of map and image only: the phase of the image may stand in either.

    .. math:: S'_c = S_c \hat x / |\hat x|, \qquad x' = x \overline{\hat x} / |\hat x|, \qquad
              \hat x = \sum_c \overline{S_c} F^H H y_c

    with the product ``H`` of Hann windows over the sampled centre of k-space. ``S' x' = S x``,
    so that the data are explained as before and the magnitude of the image is the same. Use it for
    a prior of real images, or where the phase itself is of no interest; phase that varies within
    a few pixels, as between fat and water, stays in the image.

    Assumptions: the phase is smooth on the scale of ``n / calibration`` pixels. Cost: one FFT per
    coil.

    Args:
        sensitivity: complex maps ``(n_coils, *image)``, such as those of `espirit`.
        kspace: ``(n_coils, *image)``, centred; samples outside the block are not used.
        calibration: edge of the fully sampled central block; see `calibration_shape`.

    Returns:
        Maps ``(n_coils, *image)`` in the dtype of ``sensitivity``; where there is no signal, as
        given.

    Raises:
        ShapeError: maps and k-space that do not fit together.
        DTypeError: maps or k-space that are real.
        InputError: a block larger than the image.
        NonFiniteError: NaN or Inf in maps or k-space.

    References:
        Uecker & Lustig (2017), Estimating absolute-phase maps using ESPIRiT and virtual conjugate
        coils, doi:10.1002/mrm.26191, who find the same phase from the symmetry of k-space.

    Examples:
        >>> import torch
        >>> from invdiff.operators.mri import CartesianMRI, birdcage, espirit, phase_corrected
        >>> phase = torch.linspace(-2, 2, 32).expand(32, 32)
        >>> image = torch.polar(torch.ones(32, 32), phase)[None]
        >>> full = torch.ones(32, 32, dtype=torch.bool)
        >>> kspace = CartesianMRI(full, birdcage((32, 32), 4))(image)[0]
        >>> maps = phase_corrected(espirit(kspace, crop=0.0), kspace)
        >>> found = CartesianMRI(full, maps).adjoint(kspace[None])[0]  # maps of unit norm
        >>> bool(found.real[8:24, 8:24].min() > 0.95)
        True
    """
    sensitivity, kspace = as_tensor(sensitivity, "sensitivity"), as_tensor(kspace, "kspace")
    calibration = as_integer("calibration", calibration, least=1)
    if calibration > min(kspace.shape[1:], default=0):
        raise InputError(
            "calibration block does not fit",
            got=calibration,
            expected=f"at most the edges of the image, {tuple(kspace.shape[1:])}",
            hint="Give the edge that calibration_shape finds.",
        )
    check_finite(kspace, "kspace")
    window = torch.ones((), dtype=sensitivity.real.dtype, device=sensitivity.device)
    for n in kspace.shape[1:]:
        k = torch.arange(n, device=window.device) - n // 2
        hann = torch.cos(torch.pi * k / calibration).square() * (2 * k.abs() < calibration)
        window = window[..., None] * hann
    operator = CartesianMRI(window > 0, sensitivity)
    operator.range.check(kspace[None], name="kspace")
    image = operator.adjoint((window * kspace)[None].to(operator.range.dtype))[0]
    return sensitivity * torch.where(image == 0, 1, image.sgn())
