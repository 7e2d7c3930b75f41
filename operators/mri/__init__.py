"""MRI: Cartesian operator, sampling masks, coil sensitivities, noise and scale of k-space."""

from invdiff.operators.mri.cartesian import CartesianMRI
from invdiff.operators.mri.masks import (
    equispaced_lines,
    gaussian_lines,
    partial_fourier,
    poisson_disc,
    random_lines,
)
from invdiff.operators.mri.noise import estimate_coil_covariance, estimate_noise_std, prewhiten
from invdiff.operators.mri.phase import phase_corrected
from invdiff.operators.mri.problem import cartesian_problem
from invdiff.operators.mri.scale import foreground_percentile, image_scale
from invdiff.operators.mri.sensitivity import birdcage, calibration_shape, espirit
from invdiff.operators.mri.soft_sense import SoftSenseMRI

__all__ = [
    "CartesianMRI",
    "SoftSenseMRI",
    "birdcage",
    "calibration_shape",
    "cartesian_problem",
    "equispaced_lines",
    "espirit",
    "estimate_coil_covariance",
    "estimate_noise_std",
    "foreground_percentile",
    "gaussian_lines",
    "image_scale",
    "partial_fourier",
    "phase_corrected",
    "poisson_disc",
    "prewhiten",
    "random_lines",
]
