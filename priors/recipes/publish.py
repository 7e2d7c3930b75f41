"""The last step of a recipe: draw without data, check for release, save."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from invdiff.priors.hub import save_prior
from invdiff.priors.network import NetworkPrior
from invdiff.priors.release import check_release
from invdiff.samplers import Ancestral, sample

__all__ = ["publish"]


def publish(
    prior: NetworkPrior,
    held_out: Tensor,
    out: Path,
    *,
    n_draws: int,
    seed: int,
    overwrite: bool,
    overrule: bool,
) -> None:
    """Save a prior that keeps the bounds of `check_release`, with what was found in its card.

    Cost: the default steps of `Ancestral` network passes per draw.

    Args:
        prior: as `NetworkPrior.fitted` returns it.
        held_out: fields that it was neither trained nor fitted on.
        out: path without suffix.
        n_draws: draws without data, by the default sampler.
        seed: of the draws.
        overwrite: replace a stored prior.
        overrule: save a prior beyond the bounds too, with its failures in its card.

    Raises:
        InputError: figures beyond the bounds, unless overruled.
        OutputExistsError: a stored prior at this path, without ``overwrite``.
    """
    draws = sample(prior, Ancestral(), realizations=n_draws, seed=seed, batch_size=4)
    prior.card["release"] = check_release(prior, draws, held_out, overrule=overrule)
    save_prior(prior, out, overwrite=overwrite)
