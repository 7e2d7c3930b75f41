"""Run any sampler: as a stream of states, or to the end for an ensemble."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from invdiff.arguments import as_integer, as_integers, as_path
from invdiff.errors import InputError, UnsupportedError
from invdiff.likelihood import Likelihood
from invdiff.noise import NoiseField
from invdiff.posterior import Posterior, check_prior
from invdiff.protocols import Prior, Sampler
from invdiff.run_state import Checkpoint, check_identity, identity
from invdiff.samplers.base import SamplerState
from invdiff.samplers.batches import in_batches
from invdiff.samplers.resampling import effective_number, log_evidence, members_of
from invdiff.stepwise import advance, to_the_end

__all__ = ["Ensemble", "ensemble", "iterate", "member_numbers", "run_identity", "sample"]

_SAMPLER_MEMBERS = ("steps", "couples_members", "needs_grad", "check", "init", "step")
_MOST = 2**48  # numbers of members stay below, so that those of particles fit 63 bits


def iterate(
    model: Prior,
    sampler: Sampler,
    *,
    realizations: Sequence[int],
    seed: int,
    state: SamplerState | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[SamplerState]:
    """Run a sampler step by step: yield the state after each step, of all members in one batch.

    Args:
        model: Prior or posterior to draw from.
        sampler: Any sampler, such as ``Ancestral(24)``.
        realizations: Numbers of the members; the noise of a member depends on its own number only.
        seed: Seed of the noise, an integer in [0, 2^64).
        state: State to resume from. The run continues as an uninterrupted one would have, bit for
            bit.
        device: Device on which to compute; the model must live there.

    Yields:
        The state after each step; ``x`` of the last one holds the members ``(n, *grid.shape)``, or
        their weighted particles.

    Raises:
        InputError: The state belongs to other members, or to a run with another model, sampler or
            seed.
        DivergedError: The state is no longer finite.
        UnsupportedError: The sampler cannot use the model's terms.

    Example:
        Stop after two of four steps, store the state, and resume from the file:

        >>> from pathlib import Path
        >>> import torch
        >>> from invdiff import Ancestral, Grid, iterate
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> from invdiff.samplers import load_state, save_state
        >>> prior = StationaryGaussianPrior(Grid(("x",), (8,)), torch.zeros(8), torch.ones(8))
        >>> run = iterate(prior, Ancestral(4), realizations=[0, 1], seed=0)
        >>> state = next(state for state in run if state.step == 2)
        >>> save_state(state, Path("run.safetensors"))
        >>> resumed = load_state(Path("run.safetensors"))
        >>> *_, last = iterate(prior, Ancestral(4), realizations=[0, 1], seed=0, state=resumed)
        >>> *_, whole = iterate(prior, Ancestral(4), realizations=[0, 1], seed=0)
        >>> last.step, torch.equal(last.x, whole.x)
        (4, True)
    """
    model, members = _posterior(model), tuple(member_numbers(realizations))
    _check_sampler(sampler)
    if state is not None and not isinstance(state, SamplerState):
        raise InputError(
            "this is not the state of a run",
            got=repr(state),
            expected="a SamplerState, as iterate yields it",
            hint="Read a stored one with invdiff.samplers.load_state(path).",
        )
    if state is not None and state.realizations != members:
        raise InputError(
            "the state belongs to other members", got=state.realizations, expected=members
        )
    run = run_identity(model, sampler, seed=seed)
    if state is not None and state.run:
        check_identity(dict(state.run), run, "the state")
    stored = tuple(sorted(run.items()))
    steps = _steps(model, sampler, members, seed=seed, state=state, device=torch.device(device))
    return (after._replace(run=stored) for after in islice(steps, 1, None))


def run_identity(model: Posterior, sampler: Sampler, *, seed: int) -> dict[str, str]:
    """Digests that identify the members of a run, except for their numbers."""
    parts: dict[str, object] = {
        "prior": model.prior,
        "conditioning": model.conditioning,
        "sampler": sampler,
    }
    for i, term in enumerate(model.terms):
        name = "likelihood" if isinstance(term, Likelihood) else "term"
        name += f"_{i}" if i else ""
        parts[name] = term
        if isinstance(term, Likelihood):  # taken apart, so that a refusal names what differs
            parts[f"{name}.operator"] = term.operator
    return identity(parts | {"sampler": sampler, "seed": seed})


def _posterior(model: Prior) -> Posterior:
    """The model as a posterior; a prior becomes one without terms.

    Raises:
        UnsupportedError: The object is not a prior.
    """
    if isinstance(model, Posterior):
        return model
    check_prior(model)
    return Posterior(model)


def _check_sampler(sampler: object) -> None:
    if isinstance(sampler, str | type) or not callable(getattr(sampler, "step", None)):
        name = sampler.__name__ if isinstance(sampler, type) else str(sampler)
        raise UnsupportedError(
            "this is not a sampler",
            got=repr(sampler),
            expected="an object such as Ancestral(24)",
            hint=f"Samplers are objects of invdiff.samplers, made by a call: {_nearest(name)}().",
        )
    missing = [name for name in _SAMPLER_MEMBERS if not hasattr(sampler, name)]
    if missing:
        raise UnsupportedError(
            "the sampler is incomplete",
            got=f"{sampler!r} without {', '.join(missing)}",
            expected=f"an object with {', '.join(_SAMPLER_MEMBERS)}",
            hint="Derive from invdiff.samplers.base.RatioSampler, which has all but `advance`.",
        )


def _nearest(name: str) -> str:
    """The sampler whose name is most like this one."""
    from invdiff import samplers

    names = {known.lower(): known for known in samplers.__all__}
    close = get_close_matches(name.lower(), names, n=1)
    return names[close[0]] if close else "Ancestral"


def _steps(
    model: Posterior,
    sampler: Sampler,
    members: tuple[int, ...],
    *,
    seed: int,
    state: SamplerState | None,
    device: torch.device,
    store: Callable[[SamplerState], None] | None = None,
) -> Iterator[SamplerState]:
    """The state that a run begins with, and that after each step."""
    noise = NoiseField(seed)
    sampler.check(model)
    mode = torch.no_grad if model.needs_grad or sampler.needs_grad else torch.inference_mode
    with mode():
        state = state or sampler.init(model, noise, members, device=device)

    def step(state: SamplerState) -> SamplerState:
        with mode():  # entered for each step: the caller's code between states is not inside it
            after: SamplerState = sampler.step(model, noise, state)
        return after

    yield from advance(
        sampler,
        state,
        step,
        is_over=lambda state: state.step >= sampler.steps,
        members=members,
        hint="Use more steps or weaker guidance, and check the noise level.",
        store=store,
    )


class Ensemble(NamedTuple):
    """Equally weighted members, and the diagnostics of a weighted sampler.

    Attributes:
        fields: Members ``(n, *grid.shape)``.
        innovations: What the data said of the prior's covariance, ``(update, 4, n)`` as in
            `SamplerState`; None where they were not asked.
        effective_number: Effective number of the final weights over the number of particles,
            between 0 and 1; NaN if the weights were dropped, None for a sampler without weights.
        log_evidence: ``log p(y)`` without the normalisation of the noise; NaN if the weights were
            dropped, None for a sampler without weights.
    """

    fields: Tensor
    """``(n, *grid.shape)``."""
    innovations: Tensor | None = None
    """``(step, 4, n)``, as in `SamplerState`."""
    effective_number: float | None = None
    """Of the final weights, over the number of particles; NaN if the weights were dropped."""
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
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> Ensemble:
    """Draw an ensemble, in batches of fixed size unless the sampler couples its members.

    Args:
        model: Prior or posterior to draw from.
        sampler: Any sampler, such as ``Ancestral(24)``.
        realizations: Number of members, or the numbers that name them.
        seed: Seed of the noise, an integer in [0, 2^64).
        batch_size: Members (or particles) per network call. Members depend on it only by the
            rounding of the network; with equal ``batch_size`` they are equal bit for bit.
        device: Device on which to compute; the result stays there.
        checkpoint: File in which the run is stored after each step, and from which it is resumed,
            bit for bit, if the file exists.
        progress: Whether to show a progress bar.

    Raises:
        InputError: There are no members, the batch size is less than one, or the checkpoint belongs
            to another run.
        DivergedError: The state is no longer finite.
        UnsupportedError: The sampler cannot use the model's terms.
    """
    model, members = _posterior(model), member_numbers(realizations)
    batch_size = as_integer("batch_size", batch_size, least=1)
    _check_sampler(sampler)
    file = None
    if checkpoint is not None:
        run = run_identity(model, sampler, seed=seed)
        file = Checkpoint(
            as_path("checkpoint", checkpoint),
            run | identity({"members": members, "batch_size": batch_size}),
        )
    if sampler.couples_members:
        model, batch_size = in_batches(model, batch_size), len(members)
    stored = file.load(device) if file else None
    drawn = [Ensemble(*batch) for batch in stored["drawn"]] if stored else []
    state = SamplerState(**stored["state"]) if stored else None
    store = None if file is None else partial(_store, file, drawn)
    with tqdm(total=len(members) * sampler.steps, disable=not progress, unit="step") as bar:
        for start in range(0, len(members), batch_size):
            wanted = members[start : start + batch_size]
            # A short last batch is filled up: the network's rounding depends on the batch's size.
            filled = wanted + wanted[-1:] * (batch_size - len(wanted)) if start else wanted
            if start // batch_size < len(drawn):
                bar.update(len(wanted) * sampler.steps)
                continue
            steps = _steps(
                model, sampler, tuple(filled),
                seed=seed, state=state, device=torch.device(device), store=store,
            )  # fmt: skip
            last = to_the_end(steps, bar, partial(_work, len(wanted)))
            drawn.append(_batch(last, seed, len(wanted)))
            state = None
    return _joined(drawn)


def _store(file: Checkpoint, drawn: Sequence[Ensemble], state: SamplerState) -> None:
    """Finished batches, and the state of the present one."""
    batches = [(batch.fields, batch.innovations) for batch in drawn]
    file.save({"drawn": batches, "state": state._asdict()})


def _work(n_members: int, state: SamplerState) -> int:
    return n_members * state.step


def _batch(last: SamplerState, seed: int, n_wanted: int) -> Ensemble:
    """Members of a finished batch, and the diagnostics of their weights."""
    fields = members_of(last, seed)[:n_wanted]
    found = None if last.innovations is None else last.innovations[..., :n_wanted]
    if last.log_weights is None:
        return Ensemble(fields, found)
    evidence = log_evidence(last)
    if math.isnan(evidence):  # dropped weights were made equal, which says nothing of the members
        return Ensemble(fields, found, math.nan, math.nan)
    share = effective_number(last.log_weights) / len(last.log_weights)
    return Ensemble(fields, found, share, evidence)


def _joined(batches: Sequence[Ensemble]) -> Ensemble:
    """All batches as one; only the single batch of a coupled sampler has weights."""
    said = [batch.innovations for batch in batches if batch.innovations is not None]
    return batches[-1]._replace(
        fields=torch.cat([batch.fields for batch in batches]),
        innovations=torch.cat(said, -1) if len(said) == len(batches) else None,
    )


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
    """Draw members of a prior or posterior.

    Args:
        model: Prior or posterior to draw from.
        sampler: Any sampler, such as ``Ancestral(24)``.
        realizations: Number of members, or the numbers that name them; the noise of a member
            depends on its own number only.
        seed: Seed of the noise, an integer in [0, 2^64).
        batch_size: Members (or particles) per network call.
        device: Device on which to compute; the result stays there.
        progress: Whether to show a progress bar.

    Returns:
        The members ``(n, *model.grid.shape)``, equally weighted.

    Raises:
        InputError: There are no members, or the batch size is less than one.
        DivergedError: The state is no longer finite.
        UnsupportedError: The sampler cannot use the model's terms.

    Example:
        >>> import torch
        >>> from invdiff import Ancestral, Grid, sample
        >>> from invdiff.priors import StationaryGaussianPrior
        >>> prior = StationaryGaussianPrior(Grid(("x",), (8,)), torch.zeros(8), torch.ones(8))
        >>> members = sample(prior, Ancestral(4), realizations=3, seed=0)
        >>> members.shape
        torch.Size([3, 8])
        >>> torch.equal(sample(prior, Ancestral(4), realizations=[2], seed=0)[0], members[2])
        True
    """
    return ensemble(
        model,
        sampler,
        realizations=realizations,
        seed=seed,
        batch_size=batch_size,
        device=device,
        progress=progress,
    ).fields


def member_numbers(realizations: int | Sequence[int]) -> list[int]:
    """Numbers of the members: as given, or the first ``realizations`` from 0.

    Raises:
        InputError: There are none, a number is repeated or negative, or one is not an integer.

    >>> member_numbers(3)
    [0, 1, 2]
    """
    is_single = getattr(realizations, "ndim", None) == 0  # an array, such as np.array(8)
    if isinstance(realizations, str) or is_single or not isinstance(realizations, Iterable):
        return list(range(as_integer("realizations", realizations, least=1)))
    members = as_integers("realizations", list(realizations))
    is_fit = bool(members) and 0 <= min(members) <= max(members) < _MOST
    if not is_fit or len(set(members)) < len(members):
        raise InputError(
            "realizations are not the numbers of members",
            got=members,
            expected=f"one or more distinct integers >= 0 and < 2**{_MOST.bit_length() - 1}",
            hint="Name each member once; an integer asks for that many from 0.",
        )
    return members
