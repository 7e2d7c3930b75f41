"""Recipe of ``velocity-2d``: a patch prior of P-velocity models in m/s on 10 m cells.

    python -m invdiff.priors.recipes.velocity_2d --out velocity-2d [--checkpoint FILE]

Models are drawn by `VelocityGenerator` alone; no published model is used. Five minutes on a GPU
(``--device cuda --workers 13``), a day on two CPU cores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from invdiff.grid import Grid
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.hub import check_path, load_prior
from invdiff.priors.network import NetworkPrior
from invdiff.priors.positions import Depth
from invdiff.priors.recipes.publish import publish
from invdiff.priors.recipes.velocity_generator import VelocityGenerator
from invdiff.priors.train import Batch, TrainingRecipe, train
from invdiff.priors.unet import UNetConfig
from invdiff.schedule import VE

__all__ = ["VelocityBatches", "fit", "main", "models"]

# Some are not multiples of the U-Net's stride, so that it learns to ignore its padding.
SIDES = (64, 70, 72, 78, 80)
DEEPEST_TOP = 58  # cells above a patch
OFFSET, SCALE = 3000.0, 1000.0  # m/s
DEPTH = Depth(unit=70.0)
CONFIG = UNetConfig(channels=1, positions=1, widths=(72, 104, 144))
SIGMA_DATA = 0.8  # of network units, measured over patches
BATCH_SIZE = 96
RECIPE = TrainingRecipe(steps=8000, warmup=500, decay=0.5, noise_median=0.12, noise_spread=1.6)
SCHEDULE = VE(ratio_min=5.0, ratio_max=20000.0)  # m/s
GRID = Grid(("z", "x"), (70, 70), torch.float32, units="m s-1")
N_MODELS = 384  # for the spectra, and again for the figures
N_DRAWS = 48  # without data, to be compared with the latter
SEED_FIT, SEED_VALIDATE, SEED_DRAWS = 1, 2, 3
CARD = {
    "name": "velocity-2d",
    "data": "Procedural P-velocity models, 10 m cells, 1400 to 5500 m/s, drawn by "
    "invdiff.priors.recipes.velocity_generator: layers, gradients, folds, faults, "
    f"unconformities, salt, water. Seed 0 for training, {SEED_FIT} for spectra, "
    f"{SEED_VALIDATE} for metrics; spectra and metrics on 70x70 models from the surface.",
    "licence": "BSD-3-Clause; own generator, no outside data",
    "spacing": {"z": 10.0, "x": 10.0},
    "intended_use": "Research on full waveform inversion of sections from the surface to about "
    "1.3 km on 10 m cells, any size; its geology is drawn, not observed.",
    "recipe": f"python -m invdiff.priors.recipes.velocity_2d --device cuda; {BATCH_SIZE} patches a "
    f"step, with sides of {SIDES} cells; {RECIPE}",
    "steps": RECIPE.steps,
    "seed": RECIPE.seed,
}


@dataclass(frozen=True)
class VelocityBatches:
    """Batch of one step: patches of new models, half of them at the surface.

    Args:
        generator: draws the models.
        seed: of the models and of the places of the patches.
        batch_size: patches per step.
    """

    generator: VelocityGenerator = field(default_factory=VelocityGenerator)
    seed: int = 0
    batch_size: int = BATCH_SIZE

    def __call__(self, step: int) -> Batch:
        """Network units ``(b, 1, h, w)`` and depth ``(b, 1, h, w)``; h and w are of ``SIDES``."""
        rng = np.random.default_rng((self.seed, step, 1))
        h, w = rng.choice(SIDES, 2).tolist()
        is_deep = rng.random(self.batch_size) < 0.5
        tops = np.where(is_deep, rng.integers(1, DEEPEST_TOP + 1, self.batch_size), 0)
        patches = []
        for i, top in enumerate(tops.tolist()):
            model = self.generator.model(self.seed, step * self.batch_size + i, (top + h, w))
            patches.append(model[top:])
        depth = DEPTH((DEEPEST_TOP + h, w)).numpy()
        fields = (np.stack(patches)[:, None] - OFFSET) / SCALE
        return fields.astype(np.float32), np.stack([depth[:, top : top + h] for top in tops])


def main(
    out: Annotated[Path, typer.Option(help="Where the prior is written.")] = Path("velocity-2d"),
    *,
    checkpoint: Annotated[Path | None, typer.Option(help="Resume from and write to.")] = None,
    device: Annotated[str, typer.Option(help="Where the network is trained.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that draw models.")] = 1,
    network: Annotated[str, typer.Option(help="A stored prior to fit anew, not train.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a stored prior.")] = False,
    overrule: Annotated[bool, typer.Option("--overrule", help="Save what fails the gate.")] = False,
) -> None:
    """Train, fit the spectra of the error, check for release, save weights with their card."""
    check_path(out, overwrite=overwrite)
    trained = (
        load_prior(network).network
        if network
        else train(
            EDMNetwork.untrained(CONFIG, SIGMA_DATA, seed=RECIPE.seed).to(device),
            VelocityBatches(),
            RECIPE,
            checkpoint=checkpoint,
            checkpoint_every=250,
            workers=workers,
        ).cpu()
    )
    generator = VelocityGenerator()
    prior = fit(trained, generator, n_models=N_MODELS)
    publish(
        prior,
        models(generator, SEED_VALIDATE, N_MODELS),
        out,
        n_draws=N_DRAWS,
        seed=SEED_DRAWS,
        overwrite=overwrite,
        overrule=overrule,
    )


def fit(
    network: EDMNetwork, generator: VelocityGenerator, *, n_models: int = N_MODELS
) -> NetworkPrior:
    """The prior of a trained network: spectra from some validation models, figures from others."""
    return NetworkPrior.fitted(
        network,
        models(generator, SEED_FIT, n_models).split(8),
        GRID,
        validation=models(generator, SEED_VALIDATE, n_models).split(8),
        schedule=SCHEDULE,
        scale=SCALE,
        offset=OFFSET,
        coordinates=DEPTH,
        card=CARD,
        n_levels=25,
    )


def models(generator: VelocityGenerator, seed: int, n: int) -> torch.Tensor:
    """The first ``n`` models of a seed on the grid of the prior, m/s, ``(n, 70, 70)``."""
    nz, nx = GRID.shape
    return torch.from_numpy(np.stack([generator.model(seed, i, (nz, nx)) for i in range(n)]))


if __name__ == "__main__":
    typer.run(main)
