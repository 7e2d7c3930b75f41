"""From the arrays of a scan to a problem that any prior can be put on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.kspace import check_acquisition
from invdiff.operators.mri.arrays import attributes, coordinates, n_zero_before, scan_arrays
from invdiff.operators.mri.cartesian import CartesianMRI
from invdiff.operators.mri.coils import select_coils
from invdiff.operators.mri.noise import estimate_coil_covariance, estimate_noise_std, prewhiten
from invdiff.operators.mri.phase import phase_corrected
from invdiff.operators.mri.scale import image_scale
from invdiff.operators.mri.sensitivity import calibration_shape, espirit
from invdiff.protocols import Problem

__all__ = ["cartesian_problem"]

Array = np.ndarray[Any, np.dtype[Any]]


def cartesian_problem(
    arrays: Mapping[str, Any],
    *,
    noise_std: float | Sequence[float] | Array | None = None,
    dtype: torch.dtype = torch.complex64,
) -> Problem:
    """Problem of a Cartesian scan: what is not given is estimated, and the coils are whitened.

    With ``C = L L^H`` the noise covariance between coils, data and maps become ``L^-1 y`` and
    ``L^-1 S``: the noise is then white with unit level. Estimated maps are normalised after
    whitening, so that the image is in units of the noise, and take the slowly varying phase of the
    image, which coils do not determine (see `phase_corrected`); with given maps the image keeps the
    units and the phase of the data. A single coil without a map is not whitened: its sensitivity is
    part of the image.

    Samples that are zero in all coils, and coils that cannot be used, are left out and reported
    by a warning and in ``notes`` (see `invdiff.operators.mri.coils.select_coils` for which).

    Args:
        arrays: the Dataset of `invdiff.read_kspace`, or any mapping of tensors, NumPy arrays or
            DataArrays. ``kspace`` is complex ``(coil, [kz,] ky, kx)``, centred; ``mask``
            ``([kz,] ky, kx)``, or lines ``(kx)``, is True or 1 where a sample was acquired;
            ``sensitivity`` ``(coil, [z,] y, x)``, if known, is complex, otherwise ESPIRiT maps are
            made from the fully sampled centre. ``noise_std`` may be among them. Other names are not
            used.
        noise_std: standard deviation ``s`` of the noise of all coils or of each, ``E|n|^2 = s^2``,
            in the units of kspace; by default the attribute ``noise_std`` of ``kspace``, then
            ``arrays["noise_std"]``, then the covariance of the outermost samples.
        dtype: of data, maps and image. Learned priors are in single precision, which rounds by
            6e-8 and so is exact compared with noise.

    Returns:
        A Problem with a `CartesianMRI` on dims ``[z,] y, x`` that carry the coordinates of the same
        names, if ``arrays`` has them (coordinates of k-space are not turned into positions, since
        their origin and sign convention are not known); and ``notes``: ``noise_source`` ("given" or
        "estimated"), ``sensitivity_source`` ("given", "ESPIRiT" or "none"), and where it applies
        ``n_zero_in_mask`` and ``coils_left_out``.

    Raises:
        InputError: arrays missing, nothing acquired, no coil that can be used, copied coils whose
            maps differ, or no fully sampled centre to make maps from.
        DTypeError: real k-space or maps.
        ShapeError: arrays, dims or noise levels that do not fit together.
        NonFiniteError: NaN or Inf; the message gives the first index.
        NoiseLevelError: a noise level that is not positive.

    Warns:
        DataWarning: samples or coils that were left out.

    Examples:
        >>> import torch
        >>> from invdiff.operators.mri import CartesianMRI, birdcage, cartesian_problem
        >>> from invdiff.operators.mri import equispaced_lines
        >>> mask = equispaced_lines((32, 32), 2, calibration=12)
        >>> maps = birdcage((32, 32), 4)
        >>> image = torch.zeros(1, 32, 32, dtype=torch.complex64)
        >>> image[:, 8:24, 10:22] = 5.0
        >>> kspace = CartesianMRI(mask, maps)(image)[0]
        >>> problem = cartesian_problem(
        ...     {"kspace": kspace, "mask": mask, "sensitivity": maps}, noise_std=0.1
        ... )
        >>> problem.operator, problem.noise_std
        (CartesianMRI(4 coils, 32x32, R=2.00), 1.0)
        >>> problem.notes
        {'noise_source': 'given', 'sensitivity_source': 'given'}
        >>> float(problem.data.abs().max() / kspace.abs().max())  # in units of the noise
        10.0
    """
    kspace, mask, maps, levels = scan_arrays(arrays, noise_std)
    scan = check_acquisition(kspace, mask=mask, sensitivity=maps, noise_std=levels)
    y, measured = torch.from_numpy(scan.kspace), torch.from_numpy(scan.mask)
    sensitivity = None if scan.sensitivity is None else torch.from_numpy(scan.sensitivity)
    used, left_out = select_coils(y, measured, sensitivity)
    if left_out:
        y, sensitivity = y[used], None if sensitivity is None else sensitivity[used]
    covariance = _covariance(y, measured, scan.noise_std, used)
    units, source, level = str(attributes(arrays["kspace"]).get("units", "1")), "given", 1.0
    if sensitivity is not None:
        y, sensitivity = prewhiten(y, covariance), prewhiten(sensitivity, covariance)
    elif len(y) == 1:
        y, level, source = y[0], float(covariance[0, 0].real.sqrt()), "none"
    else:
        y = prewhiten(y, covariance)
        edge = min(calibration_shape(measured))
        # Not cropped: where maps are zero the data say nothing, and the prior would fill in.
        sensitivity = phase_corrected(espirit(y, calibration=edge, crop=0.0), y, calibration=edge)
        units, source = "1", "ESPIRiT"
    dims = ("z", "y", "x")[-measured.ndim :]
    domain = Grid(dims, scan.mask.shape, dtype, coordinates(arrays, dims, scan.mask.shape), units)
    notes: dict[str, str | int | float] = {
        "noise_source": "estimated" if levels is None else "given",
        "sensitivity_source": source,
    }
    if n_zero := scan.n_zero_in_mask + n_zero_before(arrays):
        notes["n_zero_in_mask"] = n_zero
    if left_out:
        notes["coils_left_out"] = left_out
    return Problem(
        CartesianMRI(measured, sensitivity, domain=domain),
        _converted(y, dtype),
        level,
        image_scale(y, measured, sensitivity),
        notes=notes,
    )


def _converted(kspace: Tensor, dtype: torch.dtype) -> Tensor:
    """K-space in another precision, whose range it must not leave."""
    converted = kspace.to(dtype)
    if not (torch.isfinite(converted).all() and converted.any()):
        raise InputError(
            f"kspace is out of the range of {dtype}",
            got=f"magnitudes up to {float(kspace.abs().max())}",
            expected=f"from {torch.finfo(dtype).tiny:.1g} to {torch.finfo(dtype).max:.1g}",
            hint="Store it in other units.",
        )
    return converted


def _covariance(kspace: Tensor, mask: Tensor, levels: Array | None, used: Sequence[int]) -> Tensor:
    """Noise covariance between the used coils, complex128, given or estimated."""
    if levels is not None:
        each = np.broadcast_to(levels[used] if levels.ndim else levels, len(used))
        return torch.diag(torch.from_numpy(each.copy()).square()).to(torch.complex128)
    if len(kspace) == 1:
        return estimate_noise_std(kspace.to(torch.complex128), mask).square()[:, None] + 0j
    return estimate_coil_covariance(kspace, mask)
