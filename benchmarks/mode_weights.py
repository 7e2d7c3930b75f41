"""Weights of modes at image size: a lesion in a hole of the data, seen by two moments alone.

``python -m benchmarks.mode_weights [--quick] [--only METHOD ...]``. Fields are texture with no
lesion (half of them), a dark or a bright one, a `SpectralMixturePrior`, and all points are measured
but for a square hole about the lesion. A sampler is given what a network would give: the exact mean
of the clean field, the exact map of its deviation and the spectrum fitted to its error. The exact
posterior is known. ``tv`` is the total variation between the weights of the three modes among the
members and the exact ones, ``cover_hole`` and ``cover_rest`` the share of exact draws within the
central 90 % of the members, in the hole and outside; the row of exact draws is what is left of
chance. Means over truths; ``tv_se`` is the standard error of such a mean.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.table import kept, markdown, write_table
from invdiff.conditioning import MomentMatching
from invdiff.covariance import LowRankCovariance, SpectralCovariance
from invdiff.grid import Grid
from invdiff.likelihood import Gaussian
from invdiff.noise import NoiseField
from invdiff.operators import Mask
from invdiff.posterior import Posterior
from invdiff.priors import GaussianMixturePrior, SpectralMixturePrior
from invdiff.priors.fit import fit_error_spectra
from invdiff.priors.spectral import SpectralPrior
from invdiff.protocols import Sampler
from invdiff.samplers import DAPS, Ancestral, SplitGibbs, ensemble

__all__ = ["Hole", "MomentsOnly", "rows_of"]

HOLE, RADIUS, NOISE, TEXTURE, LENGTH = 10, 2.0, 0.1, 0.5, 4.0  # pixels and amplitudes of lesions
WEIGHTS = (0.5, 0.25, 0.25)  # without, dark, bright


class MomentsOnly(SpectralPrior):
    """A mixture as a network knows it: exact mean and deviations, a stationary correlation."""

    def __init__(self, mixture: SpectralMixturePrior) -> None:
        self.mixture, self.grid, self.schedule = mixture, mixture.grid, mixture.schedule
        self.spread, self.needs_grad, self.n_passes = mixture.spread, False, 0
        ratios = np.geomspace(self.schedule.ratio_min, self.schedule.ratio_max, 16)
        fields = mixture.exact_draws(64, seed=5).split(16)
        self.spectra = fit_error_spectra(self, fields, ratios=ratios)

    def mean_and_std(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The moments, and a count of fields that they were asked of."""
        self.n_passes += len(x_t)
        mean, covariance = self.mixture.moments(x_t, t)
        assert isinstance(covariance, LowRankCovariance)
        within = covariance.base.power.mean((-2, -1), keepdim=True)
        return mean, (within + covariance.factors.square().sum(1)).sqrt()

    def power(self, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The fitted spectrum, on the DFT grid of ``shape``."""
        return self.spectra.at(self.levels(t)[1], shape)

    def on(self, grid: Grid, window: tuple[slice, ...] | None = None) -> MomentsOnly:
        """The same prior: it is not of another size."""
        return self


@dataclass(frozen=True, eq=False)
class Hole:
    """A problem with its exact posterior: ``mask`` is true where there are data."""

    prior: MomentsOnly
    likelihood: Gaussian
    mask: Tensor
    exact: GaussianMixturePrior

    @classmethod
    def made(cls, prior: MomentsOnly, *, seed: int) -> Hole:
        """Data of a draw of the prior."""
        grid, mixture = prior.grid, prior.mixture
        mask = torch.ones(grid.shape, dtype=torch.bool)
        window = slice((grid.shape[0] - HOLE) // 2, (grid.shape[0] + HOLE) // 2)
        mask[window, window] = False
        operator = Mask(grid, mask)
        truth = mixture.exact_draws(seed + 1, seed=0)[-1:]
        noise = NoiseField(7)(grid, [seed], 0)[0]
        y = operator(truth)[0] + NOISE * mask * noise
        eye = torch.eye(grid.size, dtype=grid.dtype).reshape(-1, *grid.shape)
        covariance = SpectralCovariance(mixture.spectra[0], is_complex=False)(eye).flatten(1)
        dense = GaussianMixturePrior(
            grid,
            mixture.weights,
            mixture.means,
            covariances=covariance.expand(len(WEIGHTS), *covariance.shape),
        )
        matrix = torch.eye(grid.size, dtype=grid.dtype)[mask.flatten()]
        exact = dense.posterior(matrix, y.flatten()[mask.flatten()], NOISE)
        return cls(prior, Gaussian(y, operator, NOISE), mask, exact)


def texture(side: int) -> MomentsOnly:
    """The prior on a square grid."""
    grid = Grid(("y", "x"), (side, side), torch.float64)
    k = torch.fft.fftfreq(side, dtype=torch.float64)
    power = torch.exp(-((math.pi * LENGTH) ** 2) * (k[:, None] ** 2 + k**2)) + 1e-3
    power *= TEXTURE**2 / power.mean()
    place = torch.arange(side, dtype=torch.float64) - side / 2 + 0.5
    lesion = torch.exp(-(place[:, None] ** 2 + place**2) / (2 * RADIUS**2))
    means = torch.stack([0 * lesion, -lesion, lesion])
    spectra = power.expand(len(WEIGHTS), side, side)
    return MomentsOnly(SpectralMixturePrior(grid, torch.tensor(WEIGHTS), means, spectra=spectra))


def methods(n: int) -> dict[str, tuple[Sampler, MomentMatching | None] | None]:
    """Samplers and conditionings by name, for fields of ``n`` points; None: exact draws."""
    return {
        "exact draws": None,
        "invdiff default": (Ancestral(), None),
        "invdiff Ancestral(keep=1)": (Ancestral(keep=1.0), None),
        "invdiff Ancestral(96)": (Ancestral(96), None),
        # A bound on the error of all unknowns together, as solves had it before.
        "invdiff, solves to 5 % of the whole spread": (
            Ancestral(),
            MomentMatching(tolerance=0.05 * n**0.5),
        ),
        "invdiff DAPS": (DAPS(), None),
        "invdiff SplitGibbs": (SplitGibbs(), None),
    }


def scores(hole: Hole, members: Tensor) -> dict[str, float]:
    """Weights of modes and coverage of members ``(n, *shape)`` against the exact posterior."""
    exact, least = hole.exact, torch.tensor(hole.prior.schedule.ratio_min, dtype=torch.float64)
    weights = exact.responsibilities(members, least).mean(0)
    draws = exact.exact_draws(400, seed=9)
    low, high = (torch.quantile(members, q, 0) for q in (0.05, 0.95))
    held = ((draws >= low) & (draws <= high)).double().mean(0)
    return {
        "tv": float((weights - exact.weights).abs().sum() / 2),
        "cover_hole": float(held[~hole.mask].mean()),
        "cover_rest": float(held[hole.mask].mean()),
        "misfit": float(hole.likelihood.misfit(members).mean()),
    }


def rows_of(
    holes: list[Hole], *, members: int, only: tuple[str, ...] = ("",)
) -> Iterator[dict[str, object]]:
    """A row for each method: means over the problems."""
    prior = holes[0].prior
    side = prior.grid.shape[0]
    for name, method in methods(prior.grid.size).items():
        if not any(part in name for part in only):
            continue
        prior.n_passes, start, found = 0, time.perf_counter(), []
        for seed, hole in enumerate(holes):
            if method is None:
                drawn = hole.exact.exact_draws(members, seed=1000 + seed)
            else:
                model = Posterior(prior, hole.likelihood, conditioning=method[1])
                drawn = ensemble(
                    model, method[0], realizations=members, seed=seed, batch_size=64
                ).fields
            found.append(scores(hole, drawn))
        table = {key: np.array([one[key] for one in found]) for key in found[0]}
        tv = table.pop("tv")
        n = len(holes)
        yield (
            {"case": f"hole, {side}x{side}", "method": name, "tv": float(tv.mean())}
            | ({"tv_se": float(tv.std(ddof=1) / n**0.5)} if n > 1 else {})
            | {key: float(values.mean()) for key, values in table.items()}
            | {"passes": prior.n_passes / members / n, "truths": n, "members": members}
            | {"seconds": (time.perf_counter() - start) / n}
        )


def main() -> None:
    """Print the table; write it unless quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small case; writes no result")
    parser.add_argument("--only", nargs="+", default=[""], help="methods that hold one of these")
    parser.add_argument("--sides", nargs="+", type=int, default=[32, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {16: (1, 32)} if options.quick else {32: (8, 512), 64: (2, 256)}
    rows: list[dict[str, object]] = []
    for side, (n_truths, members) in sizes.items():
        if options.quick or side in options.sides:
            prior = texture(side)
            holes = [Hole.made(prior, seed=seed) for seed in range(n_truths)]
            for row in rows_of(holes, members=members, only=tuple(options.only)):
                rows.append(row)
                print(markdown([row]), flush=True)
    if not options.quick:
        write_table(
            "mode_weights",
            [*kept("mode_weights", rows), *rows],
            command="python -m benchmarks.mode_weights",
            notes="`tv` is 0 for the exact weights. What is left to the default with exact solves "
            "is the Gaussian shape of each update.",
        )


if __name__ == "__main__":
    main()
