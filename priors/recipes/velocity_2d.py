"""Recipe of ``velocity-2d``: a patch prior of P-velocity models in m/s on 10 m cells.

    python -m invdiff.priors.recipes.velocity_2d --out velocity-2d [--checkpoint FILE]

Models are drawn by :class:`invdiff.priors.velocity.VelocityGenerator` alone; no published model is
used. An hour on one CPU core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file

from invdiff.grid import Grid
from invdiff.priors import hub
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.fit import fit_error_spectra, validate
from invdiff.priors.network import NetworkPrior
from invdiff.priors.positions import Depth
from invdiff.priors.spectral import ErrorSpectra
from invdiff.priors.train import Batch, TrainingRecipe, train
from invdiff.priors.unet import UNetConfig
from invdiff.priors.velocity import VelocityGenerator
from invdiff.schedule import VE

__all__ = ["VelocityBatches", "build", "fit", "from_checkpoint", "main"]

# Some are no multiples of the U-Net's stride, so that it learns to ignore its padding.
SIDES = (64, 70, 72, 78, 80)
DEEPEST_TOP = 58  # cells above a patch
OFFSET, SCALE = 3000.0, 1000.0  # m/s
DEPTH = Depth(unit=70.0)
CONFIG = UNetConfig(channels=1, positions=1, widths=(72, 104, 144))
SIGMA_DATA = 0.8  # of network units, measured over patches
RECIPE = TrainingRecipe(steps=7000, noise_median=0.12, noise_spread=1.6)
SCHEDULE = VE(ratio_min=5.0, ratio_max=20000.0)  # m/s
GRID = Grid(("z", "x"), (70, 70), torch.float32, units="m s-1")
N_MODELS = 96  # for the spectra, and again for the figures
SEED_FIT, SEED_JUDGE = 1, 2
CARD = {
    "name": "velocity-2d",
    "data": "Procedural P-velocity models, 10 m cells, 1400 to 5500 m/s, drawn by "
    "invdiff.priors.velocity: layers, gradients, folds, faults, unconformities, salt, water. "
    f"Seed 0 for training, {SEED_FIT} for spectra, {SEED_JUDGE} for metrics; spectra and metrics "
    "on 70x70 models from the surface.",
    "licence": "BSD-3-Clause; own generator, no outside data",
    "spacing": {"z": 10.0, "x": 10.0},
    "intended_use": "Research on full waveform inversion of sections from the surface to about "
    "1.3 km on 10 m cells, any size; its geology is drawn, not observed.",
    "recipe": f"python -m invdiff.priors.recipes.velocity_2d; patches with sides of {SIDES} cells; "
    f"{RECIPE}",
    "steps": RECIPE.steps,
    "seed": RECIPE.seed,
}


@dataclass(frozen=True)
class VelocityBatches:
    """Batch of a step: patches of new models, half of them at the surface."""

    generator: VelocityGenerator = field(default_factory=VelocityGenerator)
    seed: int = 0
    batch_size: int = 12

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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a stored prior.")] = False,
) -> None:
    """Train, fit the spectra of the error, validate, and save weights with their card."""
    network = train(build(), VelocityBatches(), RECIPE, checkpoint=checkpoint, checkpoint_every=250)
    prior, metrics = fit(network)
    hub.save(prior, out, {**CARD, "metrics": metrics}, overwrite=overwrite)


def fit(
    network: EDMNetwork, generator: VelocityGenerator | None = None, *, n_models: int = N_MODELS
) -> tuple[NetworkPrior, list[dict[str, float]]]:
    """Error spectra from ``n_models`` validation models, and figures from as many others.

    Weights are rounded to the half precision they are stored in first.
    """
    generator = generator or VelocityGenerator()
    for parameter in network.parameters():
        parameter.data = parameter.half().float()
    nz, nx = GRID.shape
    fitted, judged = (
        torch.from_numpy(np.stack([generator.model(seed, i, (nz, nx)) for i in range(n_models)]))
        for seed in (SEED_FIT, SEED_JUDGE)
    )
    ratios = np.geomspace(SCHEDULE.ratio_min, SCHEDULE.ratio_max, 25)
    white = ErrorSpectra(ratios[[0, -1]] / SCALE, np.array([0.0, 1.0]), np.ones((2, 2)))
    raw = fit_error_spectra(_prior(network, white), fitted.split(8), ratios=ratios)
    # The table is asked in network units.
    prior = _prior(network, ErrorSpectra(ratios / SCALE, raw.wavenumbers, raw.power))
    return prior, validate(prior, judged.split(8), ratios=ratios[::2])


def from_checkpoint(path: Path, *, n_models: int = N_MODELS) -> NetworkPrior:
    """A usable prior from the averaged weights of a run that is not over."""
    stored = load_file(path)
    network = build()
    network.load_state_dict(
        {
            key.removeprefix("averaged."): value
            for key, value in stored.items()
            if key.startswith("averaged.")
        }
    )
    return fit(network.requires_grad_(False), n_models=n_models)[0]


def build() -> EDMNetwork:
    """The untrained network, deterministic."""
    # torch initialises layers from its global generator; it is seeded here and put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RECIPE.seed)
        network = EDMNetwork(CONFIG, SIGMA_DATA)
    return network.to(memory_format=torch.channels_last)


def _prior(network: EDMNetwork, spectra: ErrorSpectra) -> NetworkPrior:
    return NetworkPrior(
        network,
        spectra,
        GRID,
        schedule=SCHEDULE,
        scale=SCALE,
        offset=OFFSET,
        coordinates=DEPTH,
        card={"name": CARD["name"]},
    )


if __name__ == "__main__":
    typer.run(main)
