"""The noise field: all randomness of invdiff, as a pure function of where it is used."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError
from invdiff.grid import Grid

__all__ = ["MOVE_SIZE", "InversionStream", "NoiseField", "StepNoise", "Stream"]

_BLOCK = 64  # edge of a block in the last two axes; part of the definition of the noise


class Stream(IntEnum):
    """Purposes of the fields of noise that a sampler draws within one step.

    The numbers are part of the meaning of a seed and must not change. ``DATA`` and ``MOVE`` are
    each the first of a range: the data of term ``i`` are perturbed by ``DATA + i``. An accepted or
    rejected move takes its uniform number from ``MOVE``, its momentum from ``MOVE + 1``, and the
    momentum's part of the data of term ``i`` from ``MOVE + 2 + i``; move ``k`` of a chain uses the
    same streams plus ``k MOVE_SIZE``.
    """

    DIFFUSION = 0
    """Noise added to ``x_t``, or its initial draw."""
    CLEAN = 1
    """Noise of a draw of ``x_0`` given ``x_t``."""
    DATA = 2
    MOVE = 100
    PARTICLE = 1_000_001
    """Noise of the fields from which particles start."""
    RESAMPLING = 1_000_003
    """Noise of the one uniform number that a resampling takes."""


MOVE_SIZE = 64  # streams of one move of a chain


class InversionStream(IntEnum):
    """Purposes of the fields of noise that an inversion draws within one step.

    An inversion perturbs the data of one term only, so that ``ILLUMINATION`` follows ``DATA``.
    """

    STATE = 0
    """Noise that takes the model to a noise level of the prior."""
    PRIOR = 1
    """Noise that perturbs the prior's mean."""
    DATA = 2
    ILLUMINATION = 3
    """White data, whose gradients estimate how strongly the data determine each cell."""
    SCATTER = 4
    """Noise that separates the members before the first step."""


@dataclass(frozen=True)
class NoiseField:
    """Standard normal noise addressed by ``(realization, step, stream, position)``.

    The value at a grid point depends on ``(seed, realization, step, stream, global position)`` and
    on nothing else. There is no stored generator, so that members do not depend on batching,
    chunking, order or resumption, and tiles with halos have the same noise where they overlap.
    Blocks of 64 points along the last two axes are filled from a Philox counter at the place that
    the address determines (Salmon et al. 2011, doi 10.1145/2063384.2063405).

    Assumptions: complex noise is circular, ``E|eps|^2 = 1``, half of it in each part.
    Cost: about 20 ns per value on one thread; a window takes the time of the blocks it touches.

    Args:
        seed: Any integer in ``[0, 2**64)``.

    Raises:
        InputError: The seed is not an integer, or lies outside that range.

    Example:
        >>> from invdiff import Grid, NoiseField
        >>> grid, noise = Grid(("y", "x"), (100, 100)), NoiseField(seed=0)
        >>> members = noise(grid, realizations=[0, 1, 2], step=5)
        >>> members.shape
        torch.Size([3, 100, 100])
        >>> bool((noise(grid, [2], 5)[0] == members[2]).all())  # whatever the batch
        True
        >>> tile = noise(grid, [2], 5, window=(slice(50, 80), slice(0, 100)))
        >>> bool((tile[0] == members[2, 50:80]).all())
        True
    """

    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_integer("seed", self.seed))
        if not 0 <= self.seed < 2**64:
            raise InputError(
                "seed is out of range",
                got=self.seed,
                expected="0 <= seed < 2**64",
                hint="Use any integer in that range.",
            )

    def __call__(
        self,
        grid: Grid,
        realizations: Sequence[int],
        step: int,
        *,
        stream: int = 0,
        window: tuple[slice, ...] | None = None,
    ) -> Tensor:
        """Noise on a grid, or on a window of it.

        Args:
            grid: Grid that gives shape and dtype.
            realizations: Numbers of the members; the noise of each is independent of the others.
            step: Step of the sampler that the noise belongs to; -1 for the initial draw.
            stream: A :class:`Stream` or :class:`InversionStream`, which distinguishes the fields
                drawn in one step.
            window: One slice per axis; the values equal those of the full field there. None for
                all.

        Returns:
            Noise ``(len(realizations), *window shape)`` on the CPU.
        """
        window = window or tuple(slice(0, n) for n in grid.shape)
        parts = 2 if grid.is_complex else 1
        shape = tuple(w.stop - w.start for w in window)
        out = np.empty((len(realizations), *shape, parts), np.float32)

        def fill(i: int) -> None:
            self._fill(out[i], grid, window, key=(realizations[i], step % 2**32, stream))

        n_threads = torch.get_num_threads()
        if n_threads == 1:
            for i in range(len(realizations)):
                fill(i)
        else:  # numpy fills without the interpreter lock, so members are filled side by side
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(fill, range(len(realizations))))
        noise = torch.from_numpy(out).to(grid.real_dtype)
        return torch.view_as_complex(noise * 0.5**0.5) if grid.is_complex else noise[..., 0]

    def _fill(
        self,
        out: np.ndarray,
        grid: Grid,
        window: tuple[slice, ...],
        *,
        key: tuple[int, int, int],
    ) -> None:
        """Copy into ``out`` the overlap of each block with the window."""
        realization, step, stream = key
        n_lead = max(grid.ndim - 2, 0)
        tiled = window[n_lead:]
        for lead in itertools.product(*(range(w.start, w.stop) for w in window[:n_lead])):
            plane = int(np.ravel_multi_index(lead, grid.shape[:n_lead])) if lead else 0
            target = out[tuple(i - w.start for i, w in zip(lead, window, strict=False))]
            blocks = (range(w.start // _BLOCK, (w.stop - 1) // _BLOCK + 1) for w in tiled)
            for block in itertools.product(*blocks):
                row, column = block if len(block) == 2 else (0, block[0])
                counter = [0, step << 32 | stream, row << 32 | column, plane]
                # As uint64 arrays: numpy passes integers in lists through doubles.
                philox = np.random.Philox(
                    key=np.array([self.seed, realization], np.uint64),
                    counter=np.array(counter, np.uint64),
                )
                generator = np.random.Generator(philox)
                source, place = [], []
                for b, w in zip(block, tiled, strict=True):
                    lo, hi = max(w.start, b * _BLOCK), min(w.stop, (b + 1) * _BLOCK)
                    source.append(slice(lo - b * _BLOCK, hi - b * _BLOCK))
                    place.append(slice(lo - w.start, hi - w.start))
                # Values come row by row: those below the window need not be drawn.
                shape = (source[0].stop, *(_BLOCK,) * (len(block) - 1), out.shape[-1])
                values = generator.standard_normal(shape, np.float32)
                target[tuple(place)] = values[tuple(source)]

    def at(self, realizations: Sequence[int], step: int, device: torch.device) -> StepNoise:
        """The noise of one step for some members: what a sampler passes to a model."""
        return StepNoise(self, tuple(realizations), step, device)

    def initial(self, realizations: Sequence[int], device: torch.device) -> StepNoise:
        """The noise of the initial draw, before any step."""
        return self.at(realizations, -1, device)


@dataclass(frozen=True)
class StepNoise:
    """The noise of one step for some members, by grid and stream.

    Args:
        field: Source of the noise.
        realizations: Numbers of the members.
        step: Step that the noise belongs to; -1 for the initial draw.
        device: Device on which the noise is placed.
    """

    field: NoiseField
    realizations: tuple[int, ...]
    step: int
    device: torch.device

    def __call__(self, grid: Grid, stream: int, *, where: Tensor | None = None) -> Tensor:
        """Noise of one stream.

        Args:
            grid: Grid that gives shape and dtype.
            stream: A :class:`Stream`, as for :class:`NoiseField`.
            where: Booleans ``(*grid.shape)`` that mark where noise is needed; elsewhere it may be
                zero. If that takes fewer blocks, only these values are drawn, in their C order, and
                a value then depends on its number among them instead of on its position. None for
                all.

        Returns:
            Noise ``(len(realizations), *grid.shape)`` on the device.
        """
        n = grid.size if where is None else int(where.sum())
        packed = Grid(("row", "column"), (-(-n // _BLOCK), _BLOCK), grid.dtype)
        if where is None or _n_blocks(packed) >= _n_blocks(grid):
            return self.field(grid, self.realizations, self.step, stream=stream).to(self.device)
        values = self(packed, stream).flatten(1)[:, :n]
        noise = torch.zeros(len(values), grid.size, dtype=grid.dtype, device=self.device)
        noise[:, where.flatten().to(self.device)] = values
        return noise.reshape(-1, *grid.shape)


def _n_blocks(grid: Grid) -> int:
    """Number of blocks in which the noise of a grid is drawn."""
    return math.prod(grid.shape[:-2]) * math.prod(-(-n // _BLOCK) for n in grid.shape[-2:])
