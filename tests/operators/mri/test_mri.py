"""Cartesian MRI against sigpy; masks, sensitivities, noise and scale of k-space."""

import math
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from invdiff.errors import DTypeError, InputError, NonFiniteError, ShapeError
from invdiff.grid import Grid
from invdiff.noise import NoiseField
from invdiff.operators.mri import (
    CartesianMRI,
    birdcage,
    calibration_shape,
    equispaced_lines,
    espirit,
    estimate_coil_covariance,
    estimate_noise_std,
    foreground_percentile,
    gaussian_lines,
    image_scale,
    partial_fourier,
    poisson_disc,
    prewhiten,
    random_lines,
)
from invdiff.operators.mri.coils import dependent_coils

COMPLEX = torch.complex64


def grid(*shape: int) -> Grid:
    return Grid(("coil", "z", "y", "x")[-len(shape) :], shape, COMPLEX)


def noise(*shape: int, n: int = 1, seed: int = 0) -> Tensor:
    return NoiseField(seed)(grid(*shape), range(n), 0)


def phantom(n_y: int, n_x: int) -> Tensor:
    """A head of ellipses, brightest 0.95, with a smooth phase and, as in voxels, soft edges."""
    y, x = np.mgrid[-1 : 1 : n_y * 1j, -1 : 1 : n_x * 1j]
    ellipses = [
        (0.0, 0.0, 0.75, 0.9, 0.8),
        (0.0, 0.0, 0.6, 0.75, -0.3),
        (0.2, 0.3, 0.15, 0.15, 0.5),
        (-0.25, 0.1, 0.2, 0.2, -0.1),
        (0.1, -0.4, 0.2, 0.2, 0.45),
    ]
    image = np.zeros((n_y, n_x))
    for centre_x, centre_y, a, b, level in ellipses:
        inside = 1 - np.hypot((x - centre_x) / a, (y - centre_y) / b)
        image += level * 0.5 * (1 + np.tanh(inside * min(a, b) * min(n_y, n_x) / 2))
    return torch.from_numpy(image * np.exp(1j * (1.2 * y - 0.8 * x + 0.5 * x * y))).to(COMPLEX)


# The operator.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sigpy and numba, on import
@pytest.mark.parametrize("shape", [(8, 10), (9, 7), (8, 7), (4, 5, 6), (5, 3, 4)])
def test_agrees_with_sigpy(shape):
    from sigpy.mri.linop import Sense

    maps, x = noise(*shape, n=3), noise(*shape, seed=1)
    mask = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.5)
    ours = CartesianMRI(mask, maps)
    theirs = Sense(maps.numpy(), weights=mask.numpy())
    y = theirs(x[0].numpy())
    assert np.linalg.norm(ours(x)[0].numpy() - y) < 1e-5 * np.linalg.norm(y)
    back = theirs.H(y)
    assert np.linalg.norm(
        ours.adjoint(torch.from_numpy(y)[None])[0].numpy() - back
    ) < 1e-5 * np.linalg.norm(back)


def test_grids_and_counts():
    mask = random_lines((8, 9), 3, calibration=1, seed=0)
    operator = CartesianMRI(mask, noise(8, 9, n=4))
    assert operator.domain == Grid(("y", "x"), (8, 9), COMPLEX)
    assert operator.range == Grid(("coil", "ky", "kx"), (4, 8, 9), COMPLEX)
    assert operator.n_data == 4 * 8 * 3
    assert repr(operator) == "CartesianMRI(4 coils, 8x9, R=3.00)"
    single = CartesianMRI(mask)
    assert single.range == Grid(("ky", "kx"), (8, 9), COMPLEX)
    assert single.n_data == 8 * 3
    volume = CartesianMRI(torch.ones(3, 4, 5, dtype=torch.bool))
    assert volume.domain.dims == ("z", "y", "x")


def test_unacquired_samples_are_zero_and_ignored():
    mask = random_lines((8, 9), 3, calibration=1, seed=0)
    operator = CartesianMRI(mask, noise(8, 9, n=2))
    y = operator(noise(8, 9))
    assert (y[:, :, ~mask] == 0).all()
    torch.testing.assert_close(operator.adjoint(y + 9.0 * ~mask), operator.adjoint(y))


def test_gram_in_parts_is_the_gram(monkeypatch):
    operator = CartesianMRI(poisson_disc((9, 8), 2, calibration=3, seed=0), noise(9, 8, n=5))
    x = noise(9, 8, n=2)
    whole = operator.gram(x)
    monkeypatch.setattr("invdiff.operators.mri.cartesian._MAX_VALUES", 2 * x.numel())
    torch.testing.assert_close(operator.gram(x), whole)


def test_double_precision_is_kept():
    maps = noise(8, 9, n=2).to(torch.complex128)
    operator = CartesianMRI(torch.ones(8, 9), maps)
    x = noise(8, 9).to(torch.complex128)
    assert operator(x).dtype == operator.gram(x).dtype == torch.complex128
    assert (operator.gram(x) - operator.adjoint(operator(x))).abs().max() < 1e-13


MASK, MAPS = torch.ones(8, 9, dtype=torch.bool), noise(8, 9, n=2)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: CartesianMRI(MASK.T, MAPS), ShapeError),
        (lambda: CartesianMRI(MASK, MAPS[0]), ShapeError),
        (lambda: CartesianMRI(MASK, MAPS, domain=grid(9, 8)), ShapeError),
        (lambda: CartesianMRI(MASK[0]), ShapeError),
        (lambda: CartesianMRI(MASK, MAPS.abs()), DTypeError),
        (lambda: CartesianMRI(MASK, domain=Grid(("y", "x"), (8, 9))), DTypeError),
        (lambda: CartesianMRI(MASK, MAPS * torch.nan), NonFiniteError),
        (lambda: CartesianMRI(MASK * torch.inf), NonFiniteError),
        (lambda: CartesianMRI(~MASK, MAPS), InputError),
        (lambda: CartesianMRI(0.5 * MASK), InputError),
    ],
)
def test_bad_operators_are_refused(make, error):
    with pytest.raises(error, match="got"):
        make()


# Masks.

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


# Sensitivities.


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


# Noise.


def simulated(n_coils: int, shape: tuple[int, int], std: float) -> tuple[Tensor, Tensor, Tensor]:
    """K-space of the phantom with correlated noise, its mask, and the noise covariance."""
    mixing = noise(n_coils, n_coils, seed=4)[0] * 0.3 + torch.eye(n_coils)
    white = noise(n_coils, *shape, seed=5)[0]
    mask = poisson_disc(shape, 2, calibration=16, seed=0)
    signal = CartesianMRI(mask, birdcage(shape, n_coils))(phantom(*shape)[None])[0]
    colored = torch.einsum("ab,b...->a...", mixing, white)
    return signal + std * colored * mask, mask, std**2 * mixing @ mixing.mH


def test_noise_std_of_pure_noise():
    mask = torch.ones(64, 64, dtype=torch.bool)
    estimate = estimate_noise_std(0.3 * noise(64, 64)[0], mask, fraction=1.0)
    # The median of |n| has relative standard error 1 / (2 ln 2 sqrt(N)) = 0.72 / 64.
    assert float(estimate) == pytest.approx(0.3, rel=4 * 0.72 / 64)


def test_noise_std_beside_signal():
    kspace, mask, covariance = simulated(6, (128, 128), 0.05)
    truth = covariance.diagonal().real.sqrt()
    ratio = estimate_noise_std(kspace, mask) / truth
    # 819 samples: 4 standard errors are 10 %. Little of the signal reaches the outer samples.
    assert ((ratio > 0.9) & (ratio < 1.2)).all()


def test_coil_covariance_of_pure_noise():
    _, mask, covariance = simulated(6, (96, 96), 1.0)
    factor = torch.linalg.cholesky(covariance)
    kspace = torch.einsum("ab,b...->a...", factor, noise(6, 96, 96, seed=6)[0]) * mask
    estimate = estimate_coil_covariance(kspace, mask, fraction=1.0)
    # Eigenvalues of a whitened sample covariance lie within 1 +- 2 sqrt(n_coils / N) = 1 +- 0.07;
    # Tyler's estimator is less efficient by (n_coils + 1) / n_coils, its scale adds 1 / sqrt(6 N).
    white = prewhiten(prewhiten(estimate, covariance).mH.contiguous(), covariance)
    eigenvalues = torch.linalg.eigvalsh(white)
    assert 0.88 < eigenvalues.min() < 1 < eigenvalues.max() < 1.12


def test_coil_covariance_beside_signal():
    kspace, mask, covariance = simulated(6, (128, 128), 0.05)
    estimate = estimate_coil_covariance(kspace, mask, fraction=0.1)
    white = prewhiten(prewhiten(estimate, covariance).mH.contiguous(), covariance)
    # 819 samples: 2 sqrt(n_coils / N) = 0.17. Little of the signal reaches the outer samples.
    eigenvalues = torch.linalg.eigvalsh(white)
    assert 0.75 < eigenvalues.min() < eigenvalues.max() < 1.5


def test_prewhiten_undoes_the_colouring():
    mixing = noise(5, 5, seed=4)[0] + 2 * torch.eye(5)
    colored = torch.einsum("ab,b...->a...", mixing, noise(5, 60, 60, seed=6)[0])
    white = prewhiten(colored, mixing @ mixing.mH)
    # 3600 samples: entries of a sample covariance have standard error 1 / 60.
    expected = torch.eye(5).to(COMPLEX)
    torch.testing.assert_close(torch.cov(white.flatten(1)), expected, atol=5 / 60, rtol=0)


def test_tyler_resists_outliers():
    shape, n_coils = (64, 64), 4
    kspace, mask = noise(n_coils, *shape)[0], torch.ones(shape, dtype=torch.bool)
    strong = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.1)
    kspace = torch.where(strong, 100 * kspace, kspace)
    robust = estimate_coil_covariance(kspace, mask, fraction=1.0)
    # A tenth of outliers moves the median by d p / p' ~ 0.1 / ...: below 20 %; the sample
    # covariance is 1000 times too large.
    assert (robust - torch.eye(n_coils)).norm() < 0.2 * n_coils**0.5
    assert torch.cov(kspace.flatten(1)).diagonal().real.min() > 500


def test_whitened_data_obey_the_whitened_model():
    maps, image = birdcage((16, 17), 4), phantom(16, 17)[None]
    mask = random_lines((16, 17), 2, calibration=4, seed=0)
    mixing = noise(4, 4)[0] + 2 * torch.eye(4)
    covariance = mixing @ mixing.mH
    whitened = prewhiten(CartesianMRI(mask, maps)(image)[0], covariance)
    model = CartesianMRI(mask, prewhiten(maps, covariance))
    torch.testing.assert_close(model(image)[0], whitened, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: estimate_noise_std(noise(8, 8)[0], MASK), ShapeError),
        (lambda: estimate_noise_std(noise(8, 9)[0], MASK, fraction=0.01), InputError),
        (lambda: estimate_noise_std(noise(8, 9)[0] * torch.nan, MASK), NonFiniteError),
        (lambda: estimate_coil_covariance(noise(8, 9)[0], MASK), ShapeError),
        (lambda: estimate_coil_covariance(noise(9, 8, 9)[0], MASK, fraction=0.4), InputError),
        (lambda: prewhiten(noise(3, 8, 9)[0], torch.eye(2)), ShapeError),
        (lambda: prewhiten(noise(2, 8, 9)[0], torch.tensor([[1.0, 2.0], [2.0, 1.0]])), InputError),
    ],
)
def test_bad_noise_estimates_are_refused(make, error):
    with pytest.raises(error, match="got"):
        make()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({3: {}}, "coil 3: zero at all measured samples"),
        ({3: {1: 2.0 - 1j}}, "coil 3: a multiple of coil 1"),
        (
            {2: {}, 5: {0: 1.0, 4: 30.0}},
            "coil 2: zero at all measured samples; coil 5: a combination of coils 0, 4",
        ),
    ],
)
def test_singular_covariances_name_the_coils(fault, named):
    kspace, mask, _ = simulated(6, (96, 96), 0.05)
    for coil, weights in fault.items():
        kspace[coil] = sum((w * kspace[other] for other, w in weights.items()), 0 * kspace[0])
    with pytest.raises(InputError, match="covariance between the coils is singular") as caught:
        estimate_coil_covariance(kspace, mask)
    assert caught.value.got == named


def test_a_coil_that_is_zero_in_a_part_of_k_space_is_refused():
    """Its zeros are not noise: Tyler's estimate would go to zero."""
    kspace, mask, _ = simulated(4, (96, 96), 0.05)
    kspace[1, :, :80] = 0
    with pytest.raises(InputError, match=r"coil 1: zero at \d+ of \d+ measured samples"):
        estimate_coil_covariance(kspace, mask)


def test_samples_in_a_subspace_of_the_coils_are_refused():
    kspace, mask = noise(4, 64, 64)[0], torch.ones(64, 64, dtype=torch.bool)
    kspace[2:, :, :63] = kspace[:2, :, :63]  # copies, but not everywhere
    with pytest.raises(InputError, match="covariance between the coils cannot be estimated"):
        estimate_coil_covariance(kspace, mask, fraction=1.0)


@given(
    n_coils=st.integers(2, 12),
    n_copies=st.integers(1, 3),
    log_gain=st.floats(-12, 12),
    snr=st.floats(0, 300),
    dtype=st.sampled_from([torch.complex64, torch.complex128]),
    seed=st.integers(0, 2**16),
)
def test_dependent_coils(n_coils, n_copies, log_gain, snr, dtype, seed):
    """Found among coils with strong common signal, whatever their gains; no others are."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((2, n_coils, 400))
    signal = snr * rng.standard_normal(400) * np.exp(-np.linspace(0, 8, 400))
    coils = normal[0] + 1j * normal[1] + signal
    coils = (coils * 10.0 ** rng.uniform(-6, 6, (n_coils, 1))).astype(str(dtype)[6:])
    where = np.sort(rng.choice(n_coils, min(n_copies, n_coils), replace=False))
    gain = 10.0**log_gain * np.exp(1j * seed)
    samples = torch.from_numpy(np.concatenate([coils, coils[where] * gain])).to(dtype)
    found = dependent_coils(samples)
    assert list(found) == list(range(n_coils, n_coils + len(where)))
    for weights, source in zip(found.values(), where, strict=True):
        assert list(weights) == [source]
        assert weights[source] == pytest.approx(gain, rel=1e-4)


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


# Scale.


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
