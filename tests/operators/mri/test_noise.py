"""Noise of k-space against known covariances, and its whitening."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invdiff.errors import InputError, NonFiniteError, ShapeError
from invdiff.operators.mri import (
    CartesianMRI,
    birdcage,
    estimate_coil_covariance,
    estimate_noise_std,
    prewhiten,
    random_lines,
)
from invdiff.operators.mri.coils import dependent_coils
from tests.support.scans import COMPLEX, noise, phantom, simulated

MASK = torch.ones(8, 9, dtype=torch.bool)


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
