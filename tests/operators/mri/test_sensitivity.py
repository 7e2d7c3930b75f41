"""Coil sensitivities, simulated and calibrated."""

import pytest
import torch

from invdiff.errors import InputError, NonFiniteError, ShapeError
from invdiff.operators.mri import (
    CartesianMRI,
    birdcage,
    calibration_shape,
    espirit,
    poisson_disc,
    random_lines,
)
from tests.support.scans import COMPLEX, noise, phantom


@pytest.mark.parametrize("shape", [(32, 33), (4, 33, 32)])
def test_birdcage(shape):
    maps = birdcage(shape, 6)
    assert maps.shape == (6, *shape)
    assert maps.dtype == COMPLEX
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(shape))
    # Smooth: neighbours differ by little, and the coils see different sides.
    assert (maps.diff(dim=-1).abs().max()) < 0.5
    assert len({int(m.abs().argmax()) for m in maps}) > 1


def test_bad_sensitivities_are_refused():
    with pytest.raises(InputError, match="coil array"):
        birdcage((8, 8), 0)
    with pytest.raises(ShapeError, match="not that of an image"):
        birdcage((8,), 4)
    with pytest.raises(InputError, match="calibration"):
        espirit(noise(2, 16, 16)[0], calibration=20)
    with pytest.raises(ShapeError, match="multi-coil"):
        espirit(noise(16, 16)[0])
    with pytest.raises(NonFiniteError):
        espirit(noise(2, 32, 32)[0] * torch.nan)


def test_espirit_finds_the_maps():
    shape = (48, 40)
    maps, image = birdcage(shape, 4), phantom(*shape)
    mask = poisson_disc(shape, 3, calibration=20, seed=0)
    kspace = CartesianMRI(mask, maps)(image[None])
    found = espirit(kspace[0], calibration=20)
    inside = (image.abs() > 0.1) & (found.abs().square().sum(0) > 0)
    assert inside.float().sum() > 0.8 * (image.abs() > 0.1).sum()
    # Maps are known up to a phase that all coils share: their inner product tells.
    overlap = (found.conj() * maps).sum(0).abs()[inside]
    assert overlap.median() > 0.99


def test_calibration_shape():
    square = torch.zeros(20, 21, dtype=torch.bool)
    square[7:13, 7:13] = True
    assert calibration_shape(square) == (6, 6)
    assert calibration_shape(random_lines((20, 21), 4, calibration=3, seed=0))[0] == 20
    assert calibration_shape(torch.ones(4, 5, 6, dtype=torch.bool)) == (4, 5, 6)
    assert calibration_shape(torch.zeros(4, 5, dtype=torch.bool)) == (0, 0)
