"""Run any sampler: as a stream of states, or to the end for an ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from invdiff.errors import DivergedError, InputError
from invdiff.noise import NoiseField
from invdiff.protocols import Prior, Sampler
from invdiff.samplers.base import SamplerState
from invdiff.samplers.batches import in_batches
from invdiff.samplers.resampling import effective_number, log_evidence, members_of

__all__ = ["Ensemble", "ensemble", "iterate", "member_numbers", "sample"]


def iterate(
    model: Prior,
    sampler: Sampler,
    *,
    realizations: Sequence[int],
    seed: int,
    state: SamplerState | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[SamplerState]:
    """Yield the state after each step, of all ``realizations`` in one batch.

    Args:
        model: a prior or posterior.
        sampler: any sampler.
        realizations: numbers of the members; a member's noise depends on its own number alone.
        seed: of the noise.
        state: continue from here, as an uninterrupted run would have, bit for bit.
        device: where to compute.

    Raises:
        InputError: a state of other members.
        DivergedError: the state is no longer finite.
    """
    noise, device = NoiseField(seed), torch.device(device)
    sampler.check(model)
    realizations = tuple(realizations)
    if state is not None and state.realizations != realizations:
        raise InputError(
            "the state belongs to other members", got=state.realizations, expected=realizations
        )
    mode = torch.no_grad if model.needs_grad or sampler.needs_grad else torch.inference_mode
    with mode():
        state = state or sampler.init(model, noise, realizations, device=device)
    while state.step < sampler.steps:
        with mode():  # entered anew, so that the caller's code between states is not in it
            state = sampler.step(model, noise, state)
        if not torch.isfinite(state.x).all():
            raise DivergedError(
                f"{sampler!r} left the finite numbers",
                got=f"NaN or Inf after step {state.step} of members {realizations}",
                hint="Take more steps, weaken the guidance, or check the noise level.",
            )
        yield state


class Ensemble(NamedTuple):
    """Members, equally weighted, and what a weighted sampler knows beside them."""

    fields: Tensor
    """``(n, *grid.shape)``."""
    effective_number: float | None = None
    """Of the final weights, over the number of particles."""
    log_evidence: float | None = None
    """``log p(y)`` without the normalisation of the noise; NaN if the weights were dropped."""


def ensemble(
    model: Prior,
    sampler: Sampler,
    *,
    realizations: int | Sequence[int],
    seed: int,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Ensemble:
    """Draw an ensemble, in batches of fixed size unless the sampler couples its members.

    Args:
        model: a prior or posterior.
        sampler: any sampler.
        realizations: how many, or the numbers of the members.
        seed: of the noise.
        batch_size: members (or particles) a network call. Members do not depend on it but for the
            rounding of the network; at equal ``batch_size`` they are equal bit for bit.
        device: where to compute; the result stays there.
        progress: show a progress bar.

    Raises:
        InputError: no members, or a batch size below one.
        UnsupportedError: a sampler that cannot use the model's terms.
    """
    members = member_numbers(realizations, batch_size)
    if sampler.couples_members:
        model, batch_size = in_batches(model, batch_size), len(members)
    drawn = []
    with tqdm(total=len(members) * sampler.steps, disable=not progress, unit="step") as bar:
        for start in range(0, len(members), batch_size):
            wanted = members[start : start + batch_size]
            # A short last batch is filled up: the network's rounding depends on the batch's size.
            filled = wanted + wanted[-1:] * (batch_size - len(wanted)) if start else wanted
            states = iterate(model, sampler, realizations=filled, seed=seed, device=device)
            for state in states:
                bar.update(len(wanted))
                last = state
            drawn.append(members_of(last, seed)[: len(wanted)])
    fields = torch.cat(drawn)
    if last.log_weights is None:
        return Ensemble(fields)
    share = effective_number(last.log_weights) / len(last.log_weights)
    return Ensemble(fields, share, log_evidence(last))


def sample(
    model: Prior,
    sampler: Sampler,
    *,
    realizations: int | Sequence[int],
    seed: int,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Tensor:
    """The members of an :func:`ensemble` alone, ``(n, *model.grid.shape)``; same arguments."""
    return ensemble(
        model,
        sampler,
        realizations=realizations,
        seed=seed,
        batch_size=batch_size,
        device=device,
        progress=progress,
    ).fields


def member_numbers(realizations: int | Sequence[int], batch_size: int) -> list[int]:
    """Numbers of the members asked for: given, or that many from 0.

    Raises:
        InputError: none, one twice, a negative one, or a batch size below one.
    """
    members = list(range(realizations)) if isinstance(realizations, int) else list(realizations)
    if not members or batch_size < 1:
        raise InputError(
            "nothing to draw",
            got=f"realizations={realizations}, batch_size={batch_size}",
            expected="both >= 1",
            hint="Ask for at least one member, at least one at a time.",
        )
    if min(members) < 0 or len(set(members)) < len(members):
        raise InputError(
            "realizations are not the numbers of members",
            got=members,
            expected="distinct integers >= 0",
            hint="Name each member once; an int asks for that many from 0.",
        )
    return members
