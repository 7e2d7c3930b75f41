"""Recipe of ``brain-t1``: a complex patch prior of T1-like brain slices.

    python -m invdiff.priors.recipes.brain_t1 LABELS.npz --out brain-t1 [--checkpoint FILE]

LABELS.npz holds ``labels (n, h, w)``, ``lut`` and ``subject``; the shipped prior used 1 mm axial
sections of 16 heads from SynthSeg (Apache-2.0), subjects 1 to 14. Images are drawn by
`BrainGenerator`; no patient's image is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from invdiff.grid import Grid
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.hub import check_path, load_prior
from invdiff.priors.network import NetworkPrior
from invdiff.priors.positions import Centred
from invdiff.priors.recipes.brain_generator import BrainGenerator, LabelMaps
from invdiff.priors.recipes.publish import publish
from invdiff.priors.train import Batch, TrainingRecipe, train
from invdiff.priors.unet import UNetConfig
from invdiff.schedule import VE

__all__ = ["BrainBatches", "fit", "main", "slices"]

TRAINING_SUBJECTS = tuple(range(1, 15))
VALIDATION_SUBJECTS = (15, 16)
# Some sides are not multiples of the U-Net's stride, so that it learns to ignore its padding.
PATCHES = ((96, 4, 4), (125, 3, 3))  # side, slices, patches of each: as much work in each step
WHOLE_SIDES, N_WHOLE = (150, 224), 4
CONFIG = UNetConfig(widths=(80, 112, 144))
SIGMA_DATA = 0.3
# One after the other. Most of the first is spent where an image takes shape; the second adds levels
# at which noise hides a whole head.
STAGES = (
    TrainingRecipe(steps=5600, noise_median=0.2, noise_spread=1.5),
    TrainingRecipe(steps=5000, learning_rate=5e-4, noise_median=0.35, noise_spread=2.0, seed=1),
)
# Beyond 16 the deviations that the network states are too wide for the release.
SCHEDULE = VE(ratio_min=0.005, ratio_max=16.0)
# Of the validation subjects, for the spectra and again for the figures. The power of the error
# varies by 75 % from slice to slice, so this many give it to 8 %.
N_SLICES = 96
N_DRAWS = 16  # without data, to be compared with the latter
SEED_FIT, SEED_VALIDATE, SEED_DRAWS = 1, 2, 3
CARD = {
    "name": "brain-t1",
    "data": "Synthetic T1-like complex axial slices, 1 mm, drawn by "
    "invdiff.priors.recipes.brain_generator from label maps of 16 heads (SynthSeg); "
    "subjects 1-14 for training, 15-16 for spectra and metrics. "
    "Magnitude about 1 at the 99th percentile of the foreground, smooth random phase, and in some "
    "a phase between fat and water.",
    "licence": "BSD-3-Clause; label maps: Apache-2.0 (BBillot/SynthSeg)",
    "intended_use": "Research on reconstruction of axial brain slices; no clinical use.",
    "recipe": f"python -m invdiff.priors.recipes.brain_t1; every other step whole slices, "
    f"else patches of {[side for side, _, _ in PATCHES]} px; {', then '.join(map(str, STAGES))}",
    "steps": sum(stage.steps for stage in STAGES),
    "seed": STAGES[0].seed,
}


@dataclass(frozen=True)
class BrainBatches:
    """Batch of one step: patches of new slices, or slices cropped about their centre.

    Patches show many places and whole slices the wide context that high noise levels need; they
    take turns.

    Args:
        generator: draws the slices.
        seed: of the slices and of the crops.
    """

    generator: BrainGenerator
    seed: int = 0

    def __call__(self, step: int) -> Batch:
        """Real channels ``(b, 2, h, w)`` and positions ``(b, 2, h, w)``."""
        if step % 2:
            fields, positions = self._whole(step)
        else:
            side, n_images, n_patches = PATCHES[step // 2 % len(PATCHES)]
            drawn = [
                self.generator.patches(self.seed, N_WHOLE * step + i, side, n=n_patches)
                for i in range(n_images)
            ]
            fields, positions = (np.concatenate(part) for part in zip(*drawn, strict=True))
        return np.stack([fields.real, fields.imag], axis=1), positions

    def _whole(self, step: int) -> Batch:
        """Complex slices of one shape, and positions about the centre of the crop."""
        rng = np.random.default_rng((self.seed, step, 1))
        h, w = rng.integers(WHOLE_SIDES[0], WHOLE_SIDES[1] + 1, size=2).tolist()
        crops = []
        for i in range(N_WHOLE):
            image = self.generator.image(self.seed, N_WHOLE * step + i)
            top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
            crops.append(image[top : top + h, left : left + w])
        return np.stack(crops), np.stack([Centred()((h, w)).numpy()] * N_WHOLE)


def main(
    labels: Path,
    out: Annotated[Path, typer.Option(help="Where the prior is written.")] = Path("brain-t1"),
    *,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Resume from and write to; one file for each stage.")
    ] = None,
    network: Annotated[str, typer.Option(help="A stored prior to fit anew, not train.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a stored prior.")] = False,
    overrule: Annotated[bool, typer.Option("--overrule", help="Save what fails the gate.")] = False,
) -> None:
    """Train, fit the spectra of the error, check for release, save weights with their card."""
    check_path(out, overwrite=overwrite)
    maps = LabelMaps.load(labels)
    trained = (
        load_prior(network).network
        if network
        else train_stages(maps.of_subjects(TRAINING_SUBJECTS), checkpoint=checkpoint)
    )
    generator = BrainGenerator(maps.of_subjects(VALIDATION_SUBJECTS))
    prior = fit(trained, generator, n_slices=N_SLICES)
    publish(
        prior,
        slices(generator, SEED_VALIDATE, N_SLICES),
        out,
        n_draws=N_DRAWS,
        seed=SEED_DRAWS,
        overwrite=overwrite,
        overrule=overrule,
    )


def train_stages(maps: LabelMaps, *, checkpoint: Path | None = None) -> EDMNetwork:
    """The network after all `STAGES`, each of which goes on from the averaged weights."""
    network = EDMNetwork.untrained(CONFIG, SIGMA_DATA, seed=STAGES[0].seed)
    for number, stage in enumerate(STAGES, 1):
        network = train(
            network.requires_grad_(True),
            BrainBatches(BrainGenerator(maps), seed=stage.seed),
            stage,
            checkpoint=checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number}"),
        )
    return network


def fit(
    network: EDMNetwork, generator: BrainGenerator, *, n_slices: int = N_SLICES
) -> NetworkPrior:
    """The prior of a trained network: spectra from some validation slices, figures from others."""
    fields = slices(generator, SEED_FIT, n_slices)
    return NetworkPrior.fitted(
        network,
        fields.split(4),
        Grid(("y", "x"), tuple(fields.shape[1:]), fields.dtype),
        validation=slices(generator, SEED_VALIDATE, n_slices).split(4),
        schedule=SCHEDULE,
        card=CARD,
    )


def slices(generator: BrainGenerator, seed: int, n: int) -> torch.Tensor:
    """The first ``n`` slices of a seed, complex64 ``(n, h, w)``."""
    return torch.from_numpy(np.stack([generator.image(seed, i) for i in range(n)]))


if __name__ == "__main__":
    typer.run(main)
