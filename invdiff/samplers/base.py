"""State of a run, and base classes of the samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_path
from invdiff.errors import UnsupportedError
from invdiff.needs import TermMethod, require
from invdiff.noise import NoiseField, StepNoise
from invdiff.posterior import Posterior, TrackedPosterior
from invdiff.protocols import Prior, Term
from invdiff.run_state import Checkpoint, load

__all__ = [
    "LevelSampler",
    "RatioSampler",
    "SamplerState",
    "TermSampler",
    "Walk",
    "centre_of",
    "load_state",
    "save_state",
]


class SamplerState(NamedTuple):
    """All that a run needs to be resumed; noise is addressed by step, so no generator is stored.

    Attributes:
        x: Noisy fields ``x_t`` of the members, or particles, ``(n, *grid.shape)``.
        step: Number of steps done.
        realizations: Numbers of the members.
        memory: Tensors that a multistep method keeps from earlier steps.
        log_weights: Log-weights of weighted particles ``(n,)``, which may outnumber the members;
            None for equally weighted members.
        run: Identity of the run as pairs of name and digest, attached by `iterate`.
        innovations: What the data said of the prior's covariance in each step so far: noise level,
            scale, ``|r|^2 / n`` and ``tr S / n`` of `InnovationScale`, ``(update, 4, n)``; None
            where they were not asked.
    """

    x: Tensor
    step: int
    realizations: tuple[int, ...]
    memory: tuple[Tensor, ...] = ()
    log_weights: Tensor | None = None
    run: tuple[tuple[str, str], ...] = ()
    innovations: Tensor | None = None


class Walk(NamedTuple):
    """One step from time ``t`` to ``s`` in terms of the ratio ``r = sigma / alpha``.

    Attributes:
        t: Time at the start of the step, a scalar.
        z: Fields ``x_t / alpha_t``, ``(batch, *grid.shape)``, whose noise level is ``ratio_t``.
        ratio_t: Noise-to-signal ratio at ``t``.
        ratio_s: Noise-to-signal ratio at ``s``; 0 in the last step.
        alpha_t: Signal level at ``t``.
        alpha_s: Signal level at ``s``.
        s: Time at the end of the step, a scalar.
    """

    t: Tensor
    z: Tensor
    ratio_t: float
    ratio_s: float
    alpha_t: float
    alpha_s: float
    s: Tensor


@dataclass(frozen=True)
class LevelSampler(ABC):
    """A sampler that walks down the noise levels of the model's schedule.

    Samplers walk ``z = x_t / alpha_t``, whose noise level is the ratio ``r = sigma / alpha``, so
    that a method is written once for all schedules.

    Args:
        steps: Number of steps; the times come from the model's schedule.

    Raises:
        InputError: ``steps`` is less than one.
    """

    steps: int
    order: ClassVar[int] = 1
    couples_members: ClassVar[bool] = False
    needs_grad: ClassVar[bool] = False

    def check(self, model: Posterior) -> None:  # noqa: B027 - most samplers accept any model
        """Refuse a model that this sampler cannot draw from; by default none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", as_integer("steps", self.steps, least=1))

    def init(
        self,
        model: Posterior,
        noise: NoiseField,
        realizations: Sequence[int],
        *,
        device: torch.device,
    ) -> SamplerState:
        """``x_T = alpha_T mean + sigma_T eps``: at the largest ratio the spread is negligible.

        The mean is that of the prior where it is known (its `Spread`), and zero otherwise.
        """
        t = model.schedule.timesteps(self.steps)[0]
        eps = noise.initial(realizations, device)(model.grid, 0)
        x_t = float(model.schedule.sigma(t)) * eps
        return SamplerState(
            x_t + float(model.schedule.alpha(t)) * centre_of(model, eps), 0, tuple(realizations)
        )

    def walk(self, model: Posterior, state: SamplerState) -> Walk:
        """The step that follows a state, from its time to the next of the schedule."""
        schedule = model.schedule
        t, s = schedule.timesteps(self.steps)[state.step : state.step + 2]
        alpha_t, alpha_s = float(schedule.alpha(t)), float(schedule.alpha(s))
        ratio_t, ratio_s = float(schedule.ratio(t)), float(schedule.ratio(s))
        return Walk(t, state.x / alpha_t, ratio_t, ratio_s, alpha_t, alpha_s, s)

    @abstractmethod
    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """The state after one more step; a pure function of its arguments."""


def centre_of(model: Posterior, like: Tensor) -> Tensor:
    """Mean of the prior's fields where it is known, else zero; of the dtype of ``like``."""
    centre = 0.0 if model.spread is None else model.spread.centre
    return torch.as_tensor(centre).to(like.device, like.dtype)


@dataclass(frozen=True)
class RatioSampler(LevelSampler):
    """A sampler that treats its members independently of each other."""

    def step(self, model: Posterior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """The state after one more step; a pure function of its arguments."""
        tracked = TrackedPosterior(model, state.innovations)
        walk = self.walk(model, state)
        draws = noise.at(state.realizations, state.step, state.x.device)
        if walk.ratio_s == 0:
            x_0 = self.finish(tracked, state.x, walk.t, noise=draws)
            after = SamplerState(x_0, state.step + 1, state.realizations)
        else:
            z, memory = self.advance(tracked, walk, draws, state=state)
            after = SamplerState(walk.alpha_s * z, state.step + 1, state.realizations, memory)
        return after._replace(innovations=tracked.innovations)

    def finish(self, model: Posterior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """The last step, to ratio zero: ``E[x_0 | x_t]``, ``(batch, *grid.shape)``."""
        return model.denoise(x_t, t)

    @abstractmethod
    def advance(
        self, model: Posterior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``z`` at the end of a step that leaves some noise, and the new memory."""


class UsesTerms(TermMethod, LevelSampler):
    """A sampler that uses prior and terms of a posterior directly, without a conditioning."""

    kind: ClassVar[str] = "samplers"

    def check(self, model: Posterior) -> None:
        """Refuse a model that this sampler cannot draw from.

        Raises:
            UnsupportedError: The sampler cannot use a term (the error lists methods that can), or
                the model has a conditioning, which the sampler would ignore.
        """
        name = type(self).__name__
        if model.conditioning is not None:
            raise UnsupportedError(
                f"{name} uses the terms directly",
                got=f"conditioning={model.conditioning!r}",
                expected="Posterior(prior, *terms) without a conditioning",
                hint=f"Leave the conditioning out, or use another sampler than {name}.",
            )
        require(self, model.terms)

    @staticmethod
    def parts(model: Posterior) -> tuple[Prior, tuple[Term, ...]]:
        """The prior and the terms of a model."""
        return model.prior, model.terms


class TermSampler(UsesTerms, RatioSampler):
    """A sampler that uses the terms directly and treats its members independently of each other."""


def save_state(state: SamplerState, path: str | Path) -> None:
    """Store a state with the identity of its run; :func:`load_state` returns it bit for bit.

    Args:
        state: State as `iterate` yields it.
        path: Path of a safetensors file, which is replaced if it exists.

    Raises:
        InputError: The folder is missing or not writable.
    """
    Checkpoint(as_path("path", path), dict(state.run)).save(state._asdict())


def load_state(path: str | Path, *, device: str | torch.device = "cpu") -> SamplerState:
    """Read a state that was stored by :func:`save_state`.

    Args:
        path: Path of the file.
        device: Device on which the tensors are placed.

    Raises:
        InputError: The file was not written by :func:`save_state`.
    """
    return SamplerState(**load(as_path("path", path), run=None, device=device))
