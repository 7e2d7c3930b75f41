"""The training loop: EDM loss, Adam, averaged weights; deterministic and resumable."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor
from tqdm import tqdm

from invdiff import run_state
from invdiff.arguments import as_integer, as_number
from invdiff.errors import DivergedError, InputError
from invdiff.priors.edm import EDMNetwork
from invdiff.run_state import identity

__all__ = ["Batch", "TrainingRecipe", "prefetch", "train"]

T = TypeVar("T")
Floats = NDArray[np.float32]
Batch = tuple[np.ndarray, np.ndarray]
"""Clean fields ``(b, channels, h, w)`` and their positions ``(b, positions, h, w)``, float32."""


@dataclass(frozen=True)
class TrainingRecipe:
    """Numbers of a training run, as in Karras et al. 2022 (arXiv 2206.00364), section 5.

    The noise level of a member is log-normal, ``log(sigma) ~ N(log(noise_median),
    noise_spread^2)``, stratified within a batch.

    Args:
        steps: optimiser steps.
        learning_rate: of Adam; constant between ``warmup`` and ``decay``.
        warmup: steps of linear warm-up.
        decay: last fraction of the steps, in which the rate falls linearly to zero.
        ema: decay of the averaged weights, which are the ones returned.
        noise_median: median of the noise level of one channel, in network units.
        noise_spread: standard deviation of its logarithm.
        max_norm: gradient clipping.
        variance_weight: weight of the error estimate's likelihood.
        seed: of noise levels and noise.

    Raises:
        InputError: numbers that do not make a run.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.3
    ema: float = 0.999
    noise_median: float = 0.1
    noise_spread: float = 1.3
    max_norm: float = 1.0
    variance_weight: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, at_least in (("steps", 1), ("warmup", 1), ("seed", 0)):
            whole = as_integer(name, getattr(self, name), least=at_least)
            object.__setattr__(self, name, whole)
        positive = ("learning_rate", "decay", "noise_median", "noise_spread", "max_norm")
        for name in (*positive, "ema", "variance_weight"):
            value = as_number(
                name, getattr(self, name), above=0.0 if name in positive else -math.inf
            )
            object.__setattr__(self, name, value)
        if self.decay > 1 or not 0 <= self.ema < 1 or self.variance_weight < 0:
            raise InputError(
                "these numbers do not make a training run",
                got=self,
                expected="decay <= 1, 0 <= ema < 1, variance_weight >= 0",
                hint="Start from the defaults: TrainingRecipe(steps).",
            )

    def rate(self, step: int) -> float:
        """Learning rate of step ``step``, counted from 0."""
        warm = (step + 1) / self.warmup
        cool = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, warm, cool)

    def noise(self, step: int, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Stratified noise levels ``(batch,)`` and standard normal noise of ``shape``, float32."""
        rng = np.random.default_rng((self.seed, step))
        quantiles = (rng.permutation(shape[0]) + rng.uniform(size=shape[0])) / shape[0]
        levels = self.noise_median * np.exp(self.noise_spread * ndtri(quantiles))
        return levels.astype(np.float32), rng.standard_normal(shape, np.float32)


def train(
    network: EDMNetwork,
    batches: Callable[[int], Batch],
    recipe: TrainingRecipe,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    workers: int = 1,
    progress: bool = True,
) -> EDMNetwork:
    """Train ``network`` and return its averaged copy.

    Runs in bfloat16 autocast on the device of the network. With a ``checkpoint`` the run resumes
    from that file when it exists, bit for bit as if it had not been stopped. Cost: about three
    network passes per step and member.

    Args:
        network: to train, in place; see `EDMNetwork.untrained`.
        batches: gives the `Batch` of a step as a pure function of the step, so that a resumed run
            sees what an uninterrupted one would have seen; picklable if ``workers > 0``.
        recipe: numbers of the run.
        checkpoint: safetensors file to store the run in and to resume it from; its folder is made.
            A resumed run must have the same network and recipe; it does not know whether
            ``batches`` are the same.
        checkpoint_every: steps between two writes of it.
        workers: processes that compute batches ahead; 0 computes them here.
        progress: show a progress bar.

    Raises:
        DivergedError: a loss that is not finite.
        InputError: a checkpoint of another network or recipe, or numbers that are not possible.
        ShapeError: batches of another number of channels or positions than the network's.
    """
    checkpoint_every = as_integer("checkpoint_every", checkpoint_every, least=1)
    device = next(network.parameters()).device
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
    run = _Run(network, averaged, optimiser, recipe)
    start = 0
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        start = run.load(checkpoint) if checkpoint.exists() else 0
    steps = tqdm(
        range(start, recipe.steps), initial=start, total=recipe.steps, disable=not progress
    )
    watch = _Watch(steps)
    drawn = _Drawn(batches, recipe)
    for step, arrays in zip(
        steps, prefetch(drawn, range(start, recipe.steps), workers=workers), strict=True
    ):
        x0, positions, sigma, noise = (torch.from_numpy(part).to(device) for part in arrays)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        with torch.autocast(device.type, torch.bfloat16):
            loss, squared = network.loss(
                x0, noise, sigma, positions=positions, variance_weight=recipe.variance_weight
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.max_norm)
        optimiser.step()
        _average(averaged, network, min(recipe.ema, (step + 1) / (step + 10)))
        watch.note(step, loss, squared)
        if checkpoint is not None and (
            (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps
        ):
            watch.check()
            run.save(checkpoint, step=step + 1)
    watch.check()
    return averaged


def prefetch(batches: Callable[[int], T], steps: range, *, workers: int) -> Iterator[T]:
    """Yield ``batches(step)`` in order, computed ahead by ``workers`` processes (0: none).

    Raises:
        InputError: a number of workers that is not possible.
    """
    workers = as_integer("workers", workers, least=0)
    if workers == 0:
        yield from map(batches, steps)
        return
    ahead = 4 * workers
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        queue: list[Future[T]] = [pool.submit(batches, step) for step in steps[:ahead]]
        for step in steps:
            if step + ahead < steps.stop:
                queue.append(pool.submit(batches, step + ahead))
            yield queue.pop(0).result()


@dataclass(frozen=True)
class _Drawn:
    """All that is random in a step: fields, positions, noise levels and noise."""

    batches: Callable[[int], Batch]
    recipe: TrainingRecipe

    def __call__(self, step: int) -> tuple[np.ndarray, ...]:
        fields, positions = self.batches(step)
        return fields, positions, *self.recipe.noise(step, fields.shape)


class _Watch:
    """The loss, read one step late: a GPU goes on while its last step is looked at."""

    def __init__(self, bar: tqdm[int]) -> None:
        self.bar, self.smooth = bar, math.nan
        self.latest: tuple[int, Tensor, Tensor] | None = None

    def note(self, step: int, loss: Tensor, squared: Tensor) -> None:
        """Check the step before, and remember this one."""
        self.check()
        self.latest = step, loss.detach(), squared.mean()

    def check(self) -> None:
        """Show the latest loss.

        Raises:
            DivergedError: It is not finite.
        """
        if self.latest is None:
            return
        step, loss, squared = self.latest
        if not torch.isfinite(loss):
            raise DivergedError(
                "training diverged",
                got=f"loss {float(loss)} at step {step}",
                expected="a finite loss",
                hint="Lower learning_rate, or look for extreme values among the fields.",
            )
        value = float(squared)
        self.smooth = value if math.isnan(self.smooth) else 0.99 * self.smooth + 0.01 * value
        self.bar.set_postfix(loss=f"{self.smooth:.4f}", refresh=False)
        self.latest = None


def _average(averaged: EDMNetwork, network: EDMNetwork, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)


@dataclass(frozen=True)
class _Run:
    """All that changes in a run, and what it must be the same in to be resumed."""

    network: EDMNetwork
    averaged: EDMNetwork
    optimiser: torch.optim.Optimizer
    recipe: TrainingRecipe

    @property
    def identity(self) -> dict[str, str]:
        """What identifies the run, but for its batches."""
        network = self.network
        unet, sigma_data = network.network.config, network.sigma_data
        return identity({"network": [unet, sigma_data], "recipe": self.recipe})

    def save(self, path: Path, *, step: int) -> None:
        """Write the run to ``path``, replacing the file in one move."""
        values = {
            "step": step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict()["state"],
        }
        run_state.save(path, values, run=self.identity)

    def load(self, path: Path) -> int:
        """Continue from ``path``: the next step."""
        stored = run_state.load(path, run=self.identity)
        self.network.load_state_dict(stored["network"])
        self.averaged.load_state_dict(stored["averaged"])
        state = {int(index): values for index, values in stored["optimiser"].items()}
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        return int(stored["step"])
