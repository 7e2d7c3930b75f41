"""Two sets of coil maps, and maps that carry the phase of the image."""

from __future__ import annotations

import pytest
import torch

from invdiff.errors import DTypeError, InputError, ShapeError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators import check_operator
from invdiff.operators.mri import (
    CartesianMRI,
    SoftSenseMRI,
    birdcage,
    espirit,
    phase_corrected,
    random_lines,
)

SHAPE = (24, 19)
IMAGE = Grid(("y", "x"), SHAPE, torch.complex64)
MASK = random_lines(SHAPE, 3, calibration=5, seed=0)
MAPS = torch.stack([birdcage(SHAPE, 4), birdcage(SHAPE, 4).roll(7, 1)])


def draw(grid: Grid, seed: int) -> torch.Tensor:
    return NoiseField(seed)(grid, [0, 1], 0)


def test_the_operator_keeps_the_laws() -> None:
    check_operator(SoftSenseMRI(MASK, MAPS))


def test_data_are_the_sum_of_those_of_the_components() -> None:
    operator = SoftSenseMRI(MASK, MAPS)
    x = draw(operator.domain, 0)
    parts = [CartesianMRI(MASK, maps, domain=IMAGE)(x[:, i]) for i, maps in enumerate(MAPS)]
    torch.testing.assert_close(operator(x), parts[0] + parts[1])
    y = draw(operator.range, 1)
    back = [CartesianMRI(MASK, maps, domain=IMAGE).adjoint(y) for maps in MAPS]
    torch.testing.assert_close(operator.adjoint(y), torch.stack(back, 1))
    torch.testing.assert_close(operator.gram(x), operator.adjoint(operator(x)))
    assert operator.n_data == CartesianMRI(MASK, MAPS[0]).n_data


def test_two_sets_describe_an_object_that_folds() -> None:
    """An object larger than the field of view: pixels of two places lie on each other."""
    wide = (24, 40)
    full = torch.ones(wide, dtype=torch.bool)
    image = torch.zeros(wide, dtype=torch.complex64)
    image[4:20, 6:34] = 1  # 28 of 40 columns are used; the field of view holds 20
    kspace = CartesianMRI(full, birdcage(wide, 6))(image[None])[0][..., ::2]
    one, two = (espirit(kspace, calibration=20, crop=0.0, n_sets=n) for n in (1, 2))
    torch.testing.assert_close(two[0], one)
    mask = torch.ones(24, 20, dtype=torch.bool)
    fits = []
    for operator in (SoftSenseMRI(mask, one[None]), SoftSenseMRI(mask, two)):
        x = operator.solve(operator.adjoint(kspace[None]), 1e-4, 1.0, max_iterations=200)
        fits.append(float((operator(x)[0] - kspace).norm() / kspace.norm()))
    assert fits[1] < 0.5 * fits[0]


def test_corrected_maps_explain_the_data_by_an_image_without_smooth_phase() -> None:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (48, 40)), indexing="ij")
    phase = 1.5 * y - 2 * x + y * x
    magnitude = ((y / 0.8) ** 2 + (x / 0.8) ** 2 < 1).float() * (1.2 + y)
    image = torch.polar(magnitude, phase)
    full = torch.ones(48, 40, dtype=torch.bool)
    maps = birdcage((48, 40), 6)
    kspace = CartesianMRI(full, maps)(image[None])[0]
    corrected = phase_corrected(maps, kspace)
    torch.testing.assert_close(corrected.abs(), maps.abs())
    found = CartesianMRI(full, corrected).adjoint(kspace[None])[0]
    norm = maps.abs().square().sum(0)
    inside = magnitude > 0
    angle = (found / norm).angle()[inside].abs()
    assert float(angle.median()) < 0.05
    torch.testing.assert_close(
        (found / norm).abs()[inside], magnitude[inside], rtol=1e-4, atol=1e-4
    )


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="sets of coil maps"):
        SoftSenseMRI(MASK, MAPS[0])
    with pytest.raises(DTypeError, match="real"):
        SoftSenseMRI(MASK, MAPS.abs())
    kspace = CartesianMRI(torch.ones(SHAPE, dtype=torch.bool), MAPS[0])(draw(IMAGE, 0))[0]
    with pytest.raises(InputError, match="more sets of maps than coils"):
        espirit(kspace, calibration=12, n_sets=5)
    with pytest.raises(InputError, match="does not fit"):
        phase_corrected(MAPS[0], kspace, calibration=30)
