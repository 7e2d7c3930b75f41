"""NoiseField: a pure function of seed, realization, step, stream and position."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from invdiff.errors import InputError
from invdiff.grid import Grid
from invdiff.noise import MOVE_SIZE, InversionStream, NoiseField, Stream

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
P_MIN = 1e-4


@st.composite
def windows(draw) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    shape, window = [], []
    n_axes = draw(st.integers(1, 4))
    for axis in range(n_axes):
        n = draw(st.integers(1, 150 if axis >= n_axes - 2 else 3))
        lo = draw(st.integers(0, n - 1))
        shape.append(n)
        window.append(slice(lo, draw(st.integers(lo + 1, n))))
    return tuple(shape), tuple(window)


@settings(max_examples=40)
@given(windows(), st.sampled_from(DTYPES), st.integers(0, 2**63 - 1))
def test_a_window_is_a_crop_of_the_whole(case, dtype: torch.dtype, seed: int) -> None:
    shape, window = case
    grid = Grid(("t", "z", "y", "x")[-len(shape) :], shape, dtype)
    noise = NoiseField(seed)
    whole = noise(grid, [3], 5, stream=1)
    assert whole.shape == (1, *shape)
    assert whole.dtype == dtype
    assert torch.equal(noise(grid, [3], 5, stream=1, window=window), whole[(slice(None), *window)])


def test_members_do_not_depend_on_their_company() -> None:
    grid, noise = Grid(("y", "x"), (70, 5)), NoiseField(1)
    together = noise(grid, [4, 0, 9], 2)
    assert all(torch.equal(noise(grid, [r], 2)[0], together[i]) for i, r in enumerate([4, 0, 9]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_it_is_standard_normal(dtype: torch.dtype) -> None:
    noise = NoiseField(7)(Grid(("y", "x"), (200, 200), dtype), range(3), 0).flatten()
    parts = torch.view_as_real(noise).T * 2**0.5 if dtype.is_complex else noise[None]
    for part in parts:
        assert stats.kstest(part.numpy(), stats.norm.cdf).pvalue > P_MIN
    n = len(noise)
    assert float(noise.abs().square().mean()) == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    if dtype.is_complex:  # circular: E[n n] = 0
        assert abs(complex((noise * noise).mean())) < 5 / n**0.5


NEAR = [
    (0, 0, 0, 0),
    (1, 0, 0, 0),
    (2**62 + 1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 2**40, 0, 0),
    (0, 2**40 + 1, 0, 0),
    (0, 0, 1, 0),
    (0, 0, -1, 0),
    (0, 0, 2**30, 0),
    (0, 0, 2**30, 1),
    (0, 0, 0, 1),
    (0, 0, 0, 2),
]
# Words of key or counter that a signed or a double's integer does not hold.
FAR = [
    (0, 0, -1, 0),
    (0, 0, -1, 1),
    (0, 0, 2**31, 0),
    (0, 0, 2**31, 1),
    (2**63, 0, 0, 0),
    (2**63 + 1, 0, 0, 0),
    (2**64 - 1, 0, 0, 0),
    (2**64 - 1, 1, 0, 0),
]


@pytest.mark.parametrize("addresses", [NEAR, FAR])
def test_addresses_are_independent(addresses: list[tuple[int, int, int, int]]) -> None:
    grid = Grid(("z", "y", "x"), (2, 64, 130))
    fields = [
        NoiseField(seed)(grid, [member], step, stream=stream).flatten()
        for seed, member, step, stream in addresses
    ]
    stacked = torch.stack(fields).double()
    correlations = np.corrcoef(stacked.numpy())[np.triu_indices(len(fields), 1)]
    assert np.abs(correlations).max() < 5 / stacked.shape[1] ** 0.5


def test_planes_and_blocks_differ() -> None:
    values = NoiseField(0)(Grid(("z", "y", "x"), (3, 192, 192)), [0], 0)[0]
    tiles = values.unfold(1, 64, 64).unfold(2, 64, 64).reshape(27, -1)
    correlations = np.corrcoef(tiles.double().numpy())[np.triu_indices(27, 1)]
    assert np.abs(correlations).max() < 5 / 64


def test_the_noise_is_frozen() -> None:
    """These values are part of the promise that a seed means the same draw for ever."""
    noise = NoiseField(42)(Grid(("x",), (3,), torch.float64), [1], 2, stream=3)[0]
    reference = np.random.Generator(
        np.random.Philox(
            key=np.array([42, 1], np.uint64), counter=np.array([0, 2 << 32 | 3, 0, 0], np.uint64)
        )
    ).standard_normal((64, 1), np.float32)[:3, 0]
    assert noise.tolist() == reference.astype(float).tolist()


def test_step_noise_is_the_field_at_a_step() -> None:
    grid, noise = Grid(("x",), (9,)), NoiseField(3)
    device = torch.device("cpu")
    assert torch.equal(noise.at([2, 5], 4, device)(grid, 1), noise(grid, [2, 5], 4, stream=1))
    assert torch.equal(noise.initial([2], device)(grid, 0), noise(grid, [2], -1))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        NoiseField(seed)


def test_streams_do_not_overlap_and_keep_their_numbers() -> None:
    """``DATA`` and ``MOVE`` begin ranges: of the terms of a model, and of the moves of a chain."""
    n_terms, n_moves = MOVE_SIZE - 2, 10_000
    used = {
        Stream.DIFFUSION: range(1),
        Stream.CLEAN: range(1, 2),
        Stream.DATA: range(2, 2 + n_terms),
        Stream.MOVE: range(100, 100 + n_moves * MOVE_SIZE),
        Stream.PARTICLE: range(1_000_001, 1_000_002),
        Stream.RESAMPLING: range(1_000_003, 1_000_004),
    }
    assert list(used) == list(Stream)  # a new stream needs its range here
    assert [own.start for own in used.values()] == [int(stream) for stream in Stream]
    assert all(a.stop <= b.start for a, b in pairwise(used.values()))
    assert [int(stream) for stream in InversionStream] == list(range(5))


COILS = Grid(("coil", "ky", "kx"), (5, 70, 30), torch.complex64)
KEPT = torch.from_numpy(np.random.default_rng(0).random((70, 30)) < 0.2).expand(COILS.shape)


def test_noise_of_samples_is_white_there_and_zero_elsewhere() -> None:
    noise = NoiseField(3).at(range(40), 4, torch.device("cpu"))
    drawn = noise(COILS, Stream.DATA, where=KEPT)
    assert drawn.shape == (40, *COILS.shape)
    assert not drawn[:, ~KEPT].any()
    samples = drawn[:, KEPT]
    parts = torch.view_as_real(samples).flatten().numpy() * 2**0.5
    assert stats.kstest(parts, stats.norm.cdf).pvalue > P_MIN
    correlations = np.corrcoef(samples.real.numpy())[np.triu_indices(40, 1)]
    assert np.abs(correlations).max() < 5 / samples.shape[1] ** 0.5


def test_noise_of_samples_goes_by_member_step_and_number() -> None:
    """Those of another mask with as many samples are the same, in their order."""
    field, cpu = NoiseField(3), torch.device("cpu")
    drawn = field.at([7, 2], 4, cpu)(COILS, Stream.DATA, where=KEPT)
    assert torch.equal(field.at([2], 4, cpu)(COILS, Stream.DATA, where=KEPT)[0], drawn[1])
    moved = KEPT.roll(9, 2)
    other = field.at([7, 2], 4, cpu)(COILS, Stream.DATA, where=moved)
    assert torch.equal(other[:, moved], drawn[:, KEPT])
    for step, stream in ((5, Stream.DATA), (4, Stream.DATA + 1)):
        apart = field.at([7, 2], step, cpu)(COILS, stream, where=KEPT)
        assert not (apart[:, KEPT] == drawn[:, KEPT]).any()


def test_where_nothing_is_saved_the_whole_field_is_drawn() -> None:
    grid, cpu = Grid(("y", "x"), (60, 64)), torch.device("cpu")
    noise = NoiseField(3).at([1], 0, cpu)
    assert torch.equal(noise(grid, 2, where=torch.eye(64)[:60] > 0), noise(grid, 2))
