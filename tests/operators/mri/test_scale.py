"""The scale of k-space, and all estimates together."""

import numpy as np
import pytest
import torch

from invdiff.errors import InputError
from invdiff.noise import NoiseField
from invdiff.operators.mri import (
    CartesianMRI,
    birdcage,
    calibration_shape,
    espirit,
    estimate_coil_covariance,
    estimate_noise_std,
    foreground_percentile,
    image_scale,
    poisson_disc,
    prewhiten,
    random_lines,
)
from tests.support.scans import phantom, simulated


@pytest.mark.parametrize("n_coils", [0, 8])
@pytest.mark.parametrize("acceleration", [4, 8])
@pytest.mark.parametrize("mask", ["poisson", "lines"])
def test_image_scale(n_coils, acceleration, mask):
    shape, units = (128, 112), 37.0
    maps = birdcage(shape, n_coils) if n_coils else None
    if mask == "poisson":
        keep = poisson_disc(shape, acceleration, calibration=16, seed=0)
    else:
        keep = random_lines(shape, acceleration, calibration=64 // acceleration, seed=0)
    operator = CartesianMRI(keep, maps)
    image = phantom(*shape)[None]
    kspace = operator(image) + 0.03 * NoiseField(0)(operator.range, [0], 0) * keep
    truth = units * foreground_percentile(image)
    assert image_scale(units * kspace[0], keep, maps) == pytest.approx(truth, rel=0.05)


def test_foreground_ignores_how_much_background_there_is():
    image = phantom(64, 64)
    padded = torch.nn.functional.pad(image, (20, 20, 20, 20))
    assert foreground_percentile(image) == pytest.approx(foreground_percentile(padded), rel=0.02)
    with pytest.raises(InputError, match="no foreground"):
        foreground_percentile(torch.zeros(4, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sigpy and numba, on import
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_of_numpy_give_the_same(order):
    kspace, mask, covariance = simulated(4, (48, 48), 0.05)
    y, keep, c = (
        v.numpy().astype(v.numpy().dtype.newbyteorder(order))
        for v in (kspace, mask.float(), covariance)
    )
    maps = espirit(kspace, calibration=16)
    for a, b in (
        (estimate_noise_std(y, keep), estimate_noise_std(kspace, mask)),
        (estimate_coil_covariance(y, keep), estimate_coil_covariance(kspace, mask)),
        (prewhiten(y, c), prewhiten(kspace, covariance)),
        (espirit(y, calibration=16), maps),
        (
            CartesianMRI(keep, maps.numpy()).adjoint(kspace[None]),
            CartesianMRI(mask, maps).adjoint(kspace[None]),
        ),
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    scale = image_scale(kspace, mask, maps)
    assert image_scale(y, keep, maps.numpy()) == pytest.approx(scale, rel=1e-5)
    assert calibration_shape(keep) == calibration_shape(mask)


def test_real_scan(shared_data):
    """Real 8-coil k-space: calibration, noise, whitening, maps and scale fit together."""
    with np.load(shared_data / "mri" / "brain_8coil_kspace.npz") as file:
        kspace, mask = torch.from_numpy(file["ksp"]), torch.from_numpy(file["mask"])
    assert calibration_shape(mask) == (24, 24)
    std = estimate_noise_std(kspace, mask)
    assert std.mean() == pytest.approx(0.017, rel=0.1)
    covariance = estimate_coil_covariance(kspace, mask)
    assert (covariance.diagonal().real.sqrt() / std - 1).abs().max() < 0.1
    maps = espirit(kspace)
    white, white_maps = prewhiten(kspace, covariance), prewhiten(maps, covariance)
    assert (estimate_noise_std(white, mask) - 1).abs().max() < 0.1
    assert image_scale(kspace, mask, maps) == pytest.approx(
        image_scale(white, mask, white_maps), rel=0.1
    )
    # The maps explain the data: SENSE fits about as many unknowns as there are data, so that less
    # than the noise is left of what is 250 times as strong.
    operator = CartesianMRI(mask, white_maps)
    image = operator.solve(operator.adjoint(white[None]), 1e-2, 1.0, max_iterations=30)
    chi2 = (operator(image) - white).abs().square().sum() / operator.n_data
    assert 0.3 < chi2 < 1
    assert white.abs().square().sum() / operator.n_data > 100
