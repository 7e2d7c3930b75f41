"""Recipe of ``brain-t1``: a complex patch prior of T1-like brain slices.

    python -m invdiff.priors.recipes.brain_t1 LABELS.npz --out brain-t1 [--checkpoint FILE]

LABELS.npz holds ``labels (n, h, w)``, ``lut`` and ``subject``; the shipped prior used 1 mm axial
sections of 16 heads from SynthSeg (Apache-2.0), subjects 1 to 14. Images are drawn by
:class:`invdiff.priors.brain.BrainGenerator`; no patient's image is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from invdiff.priors.brain import BrainGenerator, LabelMaps
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.train import Batch, TrainingRecipe, train
from invdiff.priors.unet import UNetConfig

__all__ = ["BrainBatches", "main"]

TRAINING_SUBJECTS = tuple(range(1, 15))
VALIDATION_SUBJECTS = (15, 16)
PATCH = 96
CONFIG = UNetConfig(widths=(80, 112, 144))
SIGMA_DATA = 0.3
RECIPE = TrainingRecipe(steps=6000)


@dataclass(frozen=True)
class BrainBatches:
    """Batch of a step: ``n_images`` new slices, ``n_patches`` patches of each."""

    generator: BrainGenerator
    seed: int = 0
    n_images: int = 4
    n_patches: int = 4

    def __call__(self, step: int) -> Batch:
        """Real channels ``(b, 2, 96, 96)`` and positions ``(b, 2, 96, 96)``."""
        drawn = [
            self.generator.patches(self.seed, step * self.n_images + i, PATCH, n=self.n_patches)
            for i in range(self.n_images)
        ]
        fields = np.concatenate([f for f, _ in drawn])
        positions = np.concatenate([p for _, p in drawn])
        return np.stack([fields.real, fields.imag], axis=1), positions


def main(
    labels: Path,
    out: Annotated[Path, typer.Option(help="Where the prior is written.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Resume from and write to.")] = None,
) -> None:
    """Train, fit the covariance of the error, validate, and save weights with their card."""
    maps = LabelMaps.load(labels)
    network = build()
    train(
        network,
        BrainBatches(BrainGenerator(maps.of_subjects(TRAINING_SUBJECTS))),
        RECIPE,
        checkpoint=checkpoint,
    )


def build() -> EDMNetwork:
    """The untrained network, deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(RECIPE.seed)
        network = EDMNetwork(CONFIG, SIGMA_DATA)
    return network.to(memory_format=torch.channels_last)


if __name__ == "__main__":
    typer.run(main)
