"""The training loop: EDM loss, Adam, EMA; deterministic, and resumed from its checkpoint.

Data reach the loop as ``batches(step)``, a pure function of the step, so a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.special import ndtri
from torch import Tensor
from tqdm import tqdm

from invdiff.errors import DivergedError, InputError
from invdiff.priors.edm import EDMNetwork

__all__ = ["Batch", "TrainingRecipe", "prefetch", "train"]

Batch = tuple[np.ndarray, np.ndarray]
"""Clean fields ``(b, channels, h, w)`` and their positions ``(b, positions, h, w)``, float32."""


@dataclass(frozen=True)
class TrainingRecipe:
    """Numbers of a training run.

    Args:
        steps: optimiser steps.
        learning_rate: of Adam; constant between ``warmup`` and ``decay``.
        warmup: steps of linear warm-up.
        decay: last fraction of the steps, in which the rate falls linearly to zero.
        ema: decay of the averaged weights, which are the ones returned.
        noise_median: median of the per-channel noise level, log-normal.
        noise_spread: standard deviation of its logarithm.
        max_norm: gradient clipping.
        variance_weight: weight of the error estimate's likelihood.
        seed: of noise levels and noise.

    Raises:
        InputError: numbers that make no run.
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
        if self.steps < 1 or self.warmup < 1 or not 0 < self.decay <= 1:
            raise InputError(
                "not a recipe", got=self, expected="steps >= 1, warmup >= 1, 0 < decay <= 1"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm = (step + 1) / self.warmup
        cool = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, warm, cool)

    def noise(self, step: int, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Stratified noise levels ``(b,)`` and standard normal noise like ``x0``."""
        rng = np.random.default_rng((self.seed, step))
        quantiles = (rng.permutation(len(x0)) + rng.uniform(size=len(x0))) / len(x0)
        levels = self.noise_median * np.exp(self.noise_spread * ndtri(quantiles))
        normal = rng.standard_normal(x0.shape, np.float32)
        return (
            torch.from_numpy(levels.astype(np.float32)).to(x0.device),
            torch.from_numpy(normal).to(x0.device),
        )


def train(
    network: EDMNetwork,
    batches: Callable[[int], Batch],
    recipe: TrainingRecipe,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    workers: int = 1,
    progress: bool = True,
) -> EDMNetwork:
    """Train ``network`` and return its averaged copy.

    Runs in bfloat16 autocast, on the device of the network. With a ``checkpoint`` path the run
    continues from it when it exists.

    Raises:
        DivergedError: the loss is not finite.
    """
    device = next(network.parameters()).device
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
    start = 0
    if checkpoint is not None and checkpoint.exists():
        start = _load(checkpoint, network, averaged, optimiser)
    steps = tqdm(
        range(start, recipe.steps), initial=start, total=recipe.steps, disable=not progress
    )
    smooth = math.nan
    for step, (fields, positions) in zip(
        steps, prefetch(batches, range(start, recipe.steps), workers=workers), strict=True
    ):
        x0 = torch.from_numpy(fields).to(device)
        sigma, noise = recipe.noise(step, x0)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        with torch.autocast(device.type, torch.bfloat16):
            loss, squared = network.loss(
                x0,
                noise,
                sigma,
                positions=torch.from_numpy(positions).to(device),
                variance_weight=recipe.variance_weight,
            )
        if not torch.isfinite(loss):
            raise DivergedError(
                "training diverged", got=f"loss {loss} at step {step}", hint="Lower learning_rate."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.max_norm)
        optimiser.step()
        _average(averaged, network, min(recipe.ema, (step + 1) / (step + 10)))
        value = float(squared.mean())
        smooth = value if math.isnan(smooth) else 0.99 * smooth + 0.01 * value
        steps.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if checkpoint is not None and (
            (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps
        ):
            _save(checkpoint, network, averaged, optimiser, step=step + 1)
    return averaged


def prefetch(batches: Callable[[int], Batch], steps: range, *, workers: int) -> Iterator[Batch]:
    """Yield ``batches(step)`` in order, computed ahead by ``workers`` processes (0: none)."""
    if workers == 0:
        yield from map(batches, steps)
        return
    ahead = 4 * workers
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        queue: list[Future[Batch]] = [pool.submit(batches, step) for step in steps[:ahead]]
        for step in steps:
            if step + ahead < steps.stop:
                queue.append(pool.submit(batches, step + ahead))
            yield queue.pop(0).result()


def _average(averaged: EDMNetwork, network: EDMNetwork, decay: float) -> None:
    with torch.no_grad():
        for mean, new in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)


def _save(
    path: Path,
    network: EDMNetwork,
    averaged: EDMNetwork,
    optimiser: torch.optim.Optimizer,
    *,
    step: int,
) -> None:
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"averaged.{k}": v for k, v in averaged.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"step": str(step)})
    partial.replace(path)


def _load(
    path: Path, network: EDMNetwork, averaged: EDMNetwork, optimiser: torch.optim.Optimizer
) -> int:
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimiser": {}}
    for key, value in load_file(path).items():
        group, name = key.split(".", 1)
        groups[group][name] = value
    network.load_state_dict(groups["network"])
    averaged.load_state_dict(groups["averaged"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimiser"].items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return int(next(iter(state.values()))["step"])
