"""Noise of k-space, estimated from k-space itself, and its whitening."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.errors import InputError, ShapeError
from invdiff.grid import check_finite
from invdiff.operators.inputs import as_mask, as_tensor
from invdiff.operators.mri.coils import dependent_coils, describe_combination, zero_coils

__all__ = ["estimate_coil_covariance", "estimate_noise_std", "prewhiten"]

_TYLER_ITERATIONS = 100
_TYLER_RTOL = 1e-6


def estimate_noise_std(kspace: Tensor, mask: Tensor, *, fraction: float = 0.1) -> Tensor:
    """Noise level of each coil, ``s`` in ``E|n|^2 = s^2``, from the median modulus.

    ``s = median(|y|) / sqrt(ln 2)`` over the outer samples: for circular complex noise ``|n|^2`` is
    exponential. The outermost samples hold the least signal. What signal is left there adds to the
    noise: the estimate is biased upwards, and never downwards by more than its sampling error,
    about ``0.6 / sqrt(n)`` of the level for ``n`` samples. Half of the samples may hold signal
    before it breaks down. Costs one sort of the outer samples.

    Args:
        kspace: ``(n_coils, *image)``, or ``(*image)`` for a single coil; centred.
        mask: acquired samples ``(*image)``.
        fraction: of the acquired samples, the outermost, to look at.

    Returns:
        Levels ``(n_coils,)`` in the units of k-space, or a scalar tensor for a single coil.

    Raises:
        ShapeError: mask and k-space that do not fit.
        InputError: a fraction that leaves fewer than 16 samples, or samples that are mostly zero.
        NonFiniteError: NaN or Inf in k-space.

    Examples:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.noise import NoiseField
        >>> from invdiff.operators.mri import estimate_noise_std
        >>> noise = NoiseField(0)(Grid(("ky", "kx"), (64, 64), torch.complex64), [0], 0)[0]
        >>> level = estimate_noise_std(0.3 * noise, torch.ones(64, 64, dtype=torch.bool))
        >>> print(f"{level:.2f}")
        0.31
    """
    kspace, mask = as_tensor(kspace, "kspace"), as_tensor(mask, "mask")
    samples = _outer_samples(kspace, mask, fraction)
    level = samples.abs().median(dim=1).values / math.sqrt(math.log(2))
    return level if kspace.ndim > mask.ndim else level[0]


def estimate_coil_covariance(kspace: Tensor, mask: Tensor, *, fraction: float = 0.1) -> Tensor:
    """Noise covariance between coils, ``E[n n^H]``, robust against samples that hold signal.

    Shape by Tyler's fixed point ``C = (n / N) sum_i y_i y_i^H / (y_i^H C^-1 y_i)``, which gives
    every sample the same weight however large it is; scale by the median of ``y^H C^-1 y``, which
    is gamma distributed with shape ``n_coils``. As with `estimate_noise_std`, signal in the
    outermost samples biases it upwards. Costs at most 100 iterations of ``n n_coils^2`` operations.

    Args:
        kspace: ``(n_coils, *image)``, centred.
        mask: acquired samples ``(*image)``.
        fraction: of the acquired samples, the outermost, to look at.

    Returns:
        ``(n_coils, n_coils)`` complex128, Hermitian and positive definite.

    Raises:
        ShapeError: mask and k-space that do not fit, or no coil dim.
        InputError: fewer outer samples than four per coil, or a covariance without full rank: coils
            that are zero there, or linear combinations of others. The message names them.
        NonFiniteError: NaN or Inf in k-space.

    References:
        Tyler (1987), A distribution-free M-estimator of multivariate scatter,
        doi:10.1214/aos/1176350263

    Examples:
        >>> import torch
        >>> from invdiff.grid import Grid
        >>> from invdiff.noise import NoiseField
        >>> from invdiff.operators.mri import estimate_coil_covariance
        >>> grid = Grid(("coil", "ky", "kx"), (3, 64, 64), torch.complex64)
        >>> noise = NoiseField(0)(grid, [0], 0)[0] * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        >>> mask = torch.ones(64, 64, dtype=torch.bool)
        >>> covariance = estimate_coil_covariance(noise, mask, fraction=1.0)
        >>> covariance.diagonal().real.sqrt().round(decimals=1)
        tensor([1., 2., 3.], dtype=torch.float64)
    """
    kspace, mask = as_tensor(kspace, "kspace"), as_tensor(mask, "mask")
    if kspace.ndim != mask.ndim + 1:
        raise ShapeError(
            "k-space has no coil dim",
            got=tuple(kspace.shape),
            expected="(n_coils, *mask.shape)",
            hint="Give a single coil an axis of length 1.",
        )
    samples = _outer_samples(kspace, mask, fraction).to(torch.complex128)
    n_coils, n_samples = samples.shape
    if n_samples < 4 * n_coils:
        raise InputError(
            "too few samples for a covariance",
            got=f"{n_samples} samples of {n_coils} coils",
            expected=f"at least {4 * n_coils}",
            hint="Raise the fraction, or give the noise level.",
        )
    _check_rank(samples)
    gains = samples.abs().mean(1, keepdim=True)  # coils of very different gain converge alike
    samples = samples / gains
    covariance = torch.eye(n_coils, dtype=samples.dtype, device=samples.device)
    for _ in range(_TYLER_ITERATIONS):
        weights = n_coils / _mahalanobis(samples, covariance)
        update = (samples * weights) @ samples.mH / n_samples
        update = update * (n_coils / update.diagonal().real.sum())
        change = float((update - covariance).norm() / covariance.norm())
        covariance = update
        if change < _TYLER_RTOL:
            break
    from scipy.special import gammaincinv

    scale = _mahalanobis(samples, covariance).median() / float(gammaincinv(n_coils, 0.5))
    return scale * gains * (covariance + covariance.mH) / 2 * gains.mT


def _check_rank(samples: Tensor) -> None:
    """Raise unless the coils are linearly independent in these samples."""
    faults = zero_coils(samples)
    live = [coil for coil in range(len(samples)) if coil not in faults]
    for coil, weights in dependent_coils(samples[live]).items():
        faults[live[coil]] = describe_combination([live[other] for other in weights])
    if faults:
        raise InputError(
            "the noise covariance between the coils is singular",
            got="; ".join(f"coil {coil}: {faults[coil]}" for coil in sorted(faults)),
            expected="independent coils, each with some noise in the outermost samples",
            hint="Leave these coils out (invdiff.operators.mri.cartesian_problem does), or give "
            "the noise level.",
        )


def prewhiten(values: Tensor, covariance: Tensor) -> Tensor:
    """``L^-1 y`` with ``covariance = L L^H``: coils become uncorrelated, of unit noise.

    K-space and sensitivities must be whitened alike: then ``y = M F (S x) + n`` still holds.
    Computed in double precision, ``n_coils^2`` operations per sample.

    Args:
        values: k-space, sensitivities or coil images ``(n_coils, ...)``.
        covariance: ``(n_coils, n_coils)`` Hermitian positive definite.

    Returns:
        Values of the same shape and dtype; as k-space, in units of the noise.

    Raises:
        ShapeError: a covariance of another number of coils.
        InputError: a covariance that is not positive definite.

    References:
        Pruessmann et al. (2001), Advances in sensitivity encoding with arbitrary k-space
        trajectories, doi:10.1002/mrm.1241

    Examples:
        >>> import torch
        >>> from invdiff.operators.mri import prewhiten
        >>> prewhiten(torch.tensor([[4.0 + 0j], [6.0 + 0j]]), torch.diag(torch.tensor([4.0, 9.0])))
        tensor([[2.+0.j],
                [2.+0.j]])
    """
    values, covariance = as_tensor(values, "values"), as_tensor(covariance, "covariance")
    n_coils = values.shape[0] if values.ndim else 0
    if tuple(covariance.shape) != (n_coils, n_coils):
        raise ShapeError(
            "covariance does not fit the coils",
            got=tuple(covariance.shape),
            expected=(n_coils, n_coils),
            hint="Estimate it from k-space of these coils.",
        )
    factor, failed = torch.linalg.cholesky_ex(covariance.to(torch.complex128))
    if int(failed):
        raise InputError(
            "covariance is not positive definite",
            got=f"minor {int(failed)} <= 0",
            expected="independent coils, each with some noise",
            hint="Leave out coils that are empty or copies, or estimate it from more samples.",
        )
    flat = values.reshape(n_coils, -1).to(torch.complex128)
    white = torch.linalg.solve_triangular(factor, flat, upper=False)
    result: Tensor = white.reshape(values.shape).to(values.dtype)
    return result


def _outer_samples(kspace: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """The outermost acquired samples, ``(n_coils, n)``."""
    if tuple(kspace.shape[-mask.ndim :]) != tuple(mask.shape) or kspace.ndim > mask.ndim + 1:
        raise ShapeError(
            "mask does not fit k-space",
            got=f"mask {tuple(mask.shape)}, kspace {tuple(kspace.shape)}",
            expected="kspace (n_coils, *mask.shape) or mask.shape",
            hint="Crop, pad or transpose the mask as k-space was.",
        )
    check_finite(kspace, "kspace")
    keep = as_mask(mask, tuple(mask.shape))
    radius = torch.zeros(mask.shape, device=mask.device)
    for axis, n in enumerate(mask.shape):
        k = (torch.arange(n, device=mask.device) - n // 2) / (n / 2)
        radius = radius + k.square().reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
    n_outer = round(fraction * int(keep.sum()))
    if not (0 < fraction <= 1 and n_outer >= 16):
        raise InputError(
            "too few outer samples to estimate the noise",
            got=f"fraction={fraction}, {n_outer} samples",
            expected="at least 16",
            hint="Give the noise level.",
        )
    order = radius[keep].argsort(descending=True)[:n_outer]
    samples = kspace.reshape(-1, *mask.shape)[:, keep][:, order]
    n_zero = int((samples == 0).all(0).sum())
    if 2 * n_zero >= n_outer:
        raise InputError(
            "the outer samples are zero, so that the noise cannot be estimated from them",
            got=f"{n_zero} of {n_outer} samples zero in all coils",
            expected="measured values",
            hint="Leave zero padding out of the mask, or give the noise level.",
        )
    return samples[:, (samples != 0).any(0)]


def _mahalanobis(samples: Tensor, covariance: Tensor) -> Tensor:
    """``y_i^H C^-1 y_i`` of each sample."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        raise InputError(
            "the noise covariance between the coils cannot be estimated",
            got="outer samples that lie mostly in a subspace of the coils",
            expected="independent coils, each with some noise in most of the outermost samples",
            hint="Check for coils that are zero in part of k-space, or give the noise level.",
        )
    white = torch.linalg.solve_triangular(factor, samples, upper=False)
    squares: Tensor = white.abs().square().sum(0)
    return squares
