"""The curvature of the misfit, estimated from gradients: damped BFGS, its draws, its memory."""

import numpy as np
import torch
from torch import Tensor

from invdiff.covariance import SpectralCovariance
from invdiff.fwi.curvature import Curvature
from tests.support.closed_form import normal


def spectral(shape: tuple[int, int]) -> SpectralCovariance:
    k = sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    std = 1 + 0.5 * torch.from_numpy(np.random.default_rng(0).random((1, *shape)))
    return SpectralCovariance(torch.from_numpy(1 / (1 + 20 * k)), std, is_complex=False)


def matrix(product, shape: tuple[int, int], member: int, batch: int) -> Tensor:
    """Dense form of a batched operator on fields, for one of the members."""
    n = shape[0] * shape[1]
    columns = [
        product(e.expand(batch, -1, -1))[member].flatten()
        for e in torch.eye(n, dtype=torch.float64).reshape(n, 1, *shape)
    ]
    return torch.stack(columns, 1)


def textbook(b: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Nocedal & Wright (2006), procedure 18.2, with 0.1 in the place of 0.2."""
    bs = b @ s
    theta = 1.0 if s @ y >= 0.1 * (s @ bs) else 0.9 * (s @ bs) / (s @ bs - s @ y)
    r = theta * y + (1 - theta) * bs
    return b - torch.outer(bs, bs) / (s @ bs) + torch.outer(r, r) / (s @ r)


def test_curvature_is_damped_bfgs() -> None:
    shape, batch = (3, 4), 2
    base = spectral(shape)
    s, y = normal((5, batch, *shape), 1), normal((5, batch, *shape), 2)
    y = y + 0.2 * s  # some pairs are convex enough, others are damped
    curvature = Curvature.start(base, s[0].float())
    dense = [matrix(base, shape, 0, 1)] * batch
    n_damped = 0
    for one_s, one_y in zip(s, y, strict=True):
        curvature = curvature.updated(one_s, one_y, memory=10)
        for i in range(batch):
            flat = one_s[i].flatten(), one_y[i].flatten()
            n_damped += int(flat[0] @ flat[1] < 0.1 * flat[0] @ dense[i] @ flat[0])
            dense[i] = textbook(dense[i], *flat)
    assert 0 < n_damped < 5 * batch
    for i in range(batch):
        found = matrix(curvature.product, shape, i, batch)
        torch.testing.assert_close(found, dense[i], rtol=1e-9, atol=1e-9)
        assert float(torch.linalg.eigvalsh(found).min()) > 0


def test_draws_of_a_curvature_have_it_as_covariance() -> None:
    """``A A^T = B``, with the columns of ``A`` the draws of unit vectors; damped pairs too."""
    shape, batch = (3, 4), 2
    s, y = normal((5, batch, *shape), 1), normal((5, batch, *shape), 2)
    curvature = Curvature.start(spectral(shape), s[0])
    for one_s, one_y in zip(s, y + 0.2 * s, strict=True):
        curvature = curvature.updated(one_s, one_y, memory=3)
    for i in range(batch):
        root = matrix(curvature.draw, shape, i, batch)
        found = matrix(curvature.product, shape, i, batch)
        torch.testing.assert_close(root @ root.mT, found, rtol=1e-9, atol=1e-9)


def test_curvature_forgets_the_oldest_pairs() -> None:
    shape = (3, 3)
    s, y = normal((4, 1, *shape), 3), normal((4, 1, *shape), 3)
    short = long = Curvature.start(spectral(shape), s[0])
    for one_s, one_y in zip(s, y, strict=True):
        short = short.updated(one_s, one_y, memory=2)
    # Damping depends on the curvature at hand; these pairs, with y = s, need none.
    for one_s, one_y in zip(s[2:], y[2:], strict=True):
        long = long.updated(one_s, one_y, memory=10)
    v = normal((1, *shape), 5)
    torch.testing.assert_close(short.product(v), long.product(v))
    assert short.s.shape == (1, 2, *shape)


def test_a_member_that_stood_still_learns_nothing() -> None:
    shape = (3, 3)
    s, y = normal((2, *shape), 1), normal((2, *shape), 1)
    before = Curvature.start(spectral(shape), s).updated(s, y, memory=5)
    s[1], y[1] = 0, normal(shape, 9)
    after = before.updated(s, 2 * y, memory=5)
    v = normal((2, *shape), 5)
    torch.testing.assert_close(after.product(v)[1], before.product(v)[1])
    assert not torch.allclose(after.product(v)[0], before.product(v)[0])
    torch.testing.assert_close(after.product(s)[0], 2 * y[0])  # the secant equation
