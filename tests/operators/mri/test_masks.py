"""Sampling masks: their lines, their distances, and what they refuse."""

import math
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invdiff.errors import InputError, ShapeError
from invdiff.operators.mri import (
    calibration_shape,
    equispaced_lines,
    gaussian_lines,
    partial_fourier,
    poisson_disc,
    random_lines,
)

LINES = {
    "random": lambda shape, r, **k: random_lines(shape, r, seed=3, **k),
    "gaussian": lambda shape, r, **k: gaussian_lines(shape, r, seed=3, **k),
    "equispaced": equispaced_lines,
}
every_line_mask = pytest.mark.parametrize("make", LINES.values(), ids=LINES)


@every_line_mask
@given(n=st.integers(4, 300), acceleration=st.floats(1, 10), n_central=st.integers(0, 24))
def test_line_masks(make, n, acceleration, n_central):
    if not max(n_central, 1) <= round(n / acceleration):
        with pytest.raises(InputError):
            make((3, n), acceleration, calibration=n_central)
        return
    mask = make((3, n), acceleration, calibration=n_central)
    assert mask.dtype == torch.bool
    assert mask.shape == (3, n)
    assert (mask == mask[:1]).all()
    assert int(mask[0].sum()) == round(n / acceleration)
    start = n // 2 - n_central // 2
    assert mask[:, start : start + n_central].all()


@every_line_mask
def test_line_masks_by_axis(make):
    across = make((20, 24), 4, calibration=2, axis=0)
    torch.testing.assert_close(across, make((24, 20), 4, calibration=2).T)
    volume = make((5, 20, 24), 4, calibration=2, axis=1)
    torch.testing.assert_close(volume[3], across)


def test_masks_follow_their_seed():
    for make in (random_lines, gaussian_lines, poisson_disc):
        first, again = (make((40, 50), 3, calibration=4, seed=1) for _ in range(2))
        assert (first == again).all()
        assert (first != make((40, 50), 3, calibration=4, seed=2)).any()


def test_gaussian_lines_are_dense_at_the_centre():
    distance = (torch.arange(100) - 50).abs().float()
    gaussian, uniform = (
        torch.stack([distance[f((1, 100), 4, calibration=0, seed=s)[0]].mean() for s in range(20)])
        for f in (gaussian_lines, random_lines)
    )
    # Means over 20 x 25 lines: of |N(0, 16.7)| about 13, of U(0, 50) 25, standard error below 1.
    assert gaussian.mean() < 17 < 22 < uniform.mean()


def test_equispaced_lines_are_equispaced():
    mask = equispaced_lines((1, 64), 4, calibration=0, offset=3)
    assert torch.nonzero(mask[0]).flatten().tolist() == list(range(3, 64, 4))
    with_centre = equispaced_lines((1, 230), 4, calibration=16)[0]
    gaps = torch.nonzero(with_centre).flatten().diff()
    assert set(gaps[:15].tolist()) <= {5, 6}  # 214 lines outside the centre, 42 acquired


@pytest.mark.parametrize("shape", [(128, 96), (31, 33), (16, 17), (9, 8)])
@pytest.mark.parametrize("acceleration", [1.5, 2, 4, 8])
def test_poisson_disc(shape, acceleration):
    mask = poisson_disc(shape, acceleration, calibration=2, seed=0)
    assert int(mask.sum()) == round(prod(shape) / acceleration)
    assert min(calibration_shape(mask)) >= 2
    assert not mask[0, 0]
    assert not mask[-1, -1]


def test_poisson_disc_keeps_its_distance_and_thins_out():
    mask = poisson_disc((128, 128), 8, calibration=12, seed=0)
    points = torch.nonzero(mask).float()
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf).min(1).values
    k = (points - 64).norm(dim=1)
    inner, outer = distance[(k > 10) & (k < 25)], distance[k > 50]
    assert outer.mean() > 1.5 * inner.mean()
    # Independent points of this density are nearer than 2 to another one with probability
    # 1 - exp(-pi 4 / 12) = 0.65; a Poisson disc has almost none.
    assert (outer < 2).float().mean() < 0.05


def test_poisson_disc_in_3d_has_a_full_readout():
    mask = poisson_disc((4, 24, 20), 3, calibration=(6, 4), seed=0)
    assert (mask == mask[:1]).all()
    torch.testing.assert_close(mask[0], poisson_disc((24, 20), 3, calibration=(6, 4), seed=0))


def test_masks_take_the_numbers_of_numpy():
    shape, four, seed = np.array([16, 12]), np.int64(4), np.uint32(3)
    plain = {"calibration": 4, "seed": 3}
    for make in (random_lines, gaussian_lines, poisson_disc):
        mask = make(shape, np.float32(2), calibration=four, seed=seed)
        assert torch.equal(mask, make((16, 12), 2, **plain))
    both = poisson_disc((16, 12), 2, calibration=np.array([4, 4]), seed=3)
    assert torch.equal(both, poisson_disc((16, 12), 2, **plain))


@pytest.mark.parametrize("n", [8, 9])
def test_partial_fourier(n):
    mask = partial_fourier((n, 6), 0.7, axis=0)
    assert mask[:, 0].tolist() == [True] * round(0.7 * n) + [False] * (n - round(0.7 * n))
    assert mask[n // 2].all()
    both = mask & random_lines((n, 6), 2, calibration=2, seed=0)
    assert int(both.sum()) == 3 * round(0.7 * n)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: random_lines((8, 8), 0.5, calibration=0, seed=0), InputError),
        (lambda: random_lines((8, 8), 2, calibration=9, seed=0), InputError),
        (lambda: random_lines((8, 8), 4, calibration=3, seed=0), InputError),
        (lambda: random_lines((8,), 2, calibration=0, seed=0), ShapeError),
        (lambda: random_lines((8, 8), 2, calibration=0, seed=0, axis=2), ShapeError),
        (lambda: gaussian_lines((8, 8), 2, calibration=0, seed=0, width=0.0), InputError),
        (lambda: equispaced_lines((8, 8), 2, calibration=0, offset=2), InputError),
        (lambda: poisson_disc((8, 8), 4, calibration=5, seed=0), InputError),
        (lambda: poisson_disc((8, 8), 1, calibration=0, seed=0), InputError),
        (lambda: partial_fourier((8, 8), 0.5), InputError),
        (lambda: partial_fourier((8, 8), 1.2), InputError),
        (lambda: partial_fourier((8, 8), math.nan), InputError),
        (lambda: random_lines((8, 8.0), 2, calibration=0, seed=0), InputError),
        (lambda: random_lines((8, 8), math.nan, calibration=0, seed=0), InputError),
        (lambda: random_lines((8, 8), 2, calibration=2.0, seed=0), InputError),
        (lambda: random_lines((8, 8), 2, calibration=0, seed=1.5), InputError),
        (lambda: random_lines((8, 8), 2, calibration=0, seed=True), InputError),
        (lambda: random_lines((8, 8), 2, calibration=0, seed=0, axis=1.0), InputError),
        (lambda: equispaced_lines((8, 8), 2, calibration=0, offset=0.5), InputError),
        (lambda: poisson_disc((8, 8), 2, calibration=2.5, seed=0), InputError),
        (lambda: poisson_disc((8, 8), 2, calibration=(2, 2, 2), seed=0), InputError),
    ],
)
def test_bad_masks_are_refused(make, error):
    with pytest.raises(error, match="got"):
        make()
