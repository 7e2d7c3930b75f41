"""State of a run, and what the samplers of one member at a time share.

Samplers walk ``z = x_t / alpha_t``, whose noise level is the ratio ``r = sigma / alpha``; so a
method is written once for all schedules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.errors import InputError, UnsupportedError
from invdiff.methods import require
from invdiff.noise import NoiseField, StepNoise
from invdiff.posterior import Posterior
from invdiff.protocols import Prior, Term

__all__ = [
    "LevelSampler",
    "RatioSampler",
    "SamplerState",
    "TermSampler",
    "Walk",
    "load_state",
    "save_state",
]


class SamplerState(NamedTuple):
    """All that a run needs to go on.

    ``x`` is ``x_t`` of the members, ``step`` the number of steps done, ``memory`` what a multistep
    method remembers, ``log_weights`` those of weighted particles ``(n,)``, which may outnumber the
    members. Noise is addressed by step, so no generator is stored.
    """

    x: Tensor
    step: int
    realizations: tuple[int, ...]
    memory: tuple[Tensor, ...] = ()
    log_weights: Tensor | None = None


class Walk(NamedTuple):
    """One step from time ``t`` to ``s`` in terms of the ratio."""

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

    Args:
        steps: number of steps; the times come from the model's schedule.

    Raises:
        InputError: fewer than one step.
    """

    steps: int
    order: ClassVar[int] = 1
    couples_members: ClassVar[bool] = False
    needs_grad: ClassVar[bool] = False

    def check(self, model: Prior) -> None:  # noqa: B027 - most draw from any
        """Refuse a model that this sampler cannot draw from."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                "too few steps",
                got=f"steps={self.steps}",
                expected="steps >= 1",
                hint="Take about 32, or leave it to the default.",
            )

    def init(
        self, model: Prior, noise: NoiseField, realizations: Sequence[int], *, device: torch.device
    ) -> SamplerState:
        """``x_T = sigma_T eps``: the field itself is negligible at the largest ratio."""
        t = model.schedule.timesteps(self.steps)[0]
        eps = noise.initial(realizations, device)(model.grid, 0)
        return SamplerState(float(model.schedule.sigma(t)) * eps, 0, tuple(realizations))

    def walk(self, model: Prior, state: SamplerState) -> Walk:
        """The step that follows a state."""
        schedule = model.schedule
        t, s = schedule.timesteps(self.steps)[state.step : state.step + 2]
        alpha_t, alpha_s = float(schedule.alpha(t)), float(schedule.alpha(s))
        ratio_t, ratio_s = float(schedule.ratio(t)), float(schedule.ratio(s))
        return Walk(t, state.x / alpha_t, ratio_t, ratio_s, alpha_t, alpha_s, s)

    @abstractmethod
    def step(self, model: Prior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """One step; pure."""


@dataclass(frozen=True)
class RatioSampler(LevelSampler):
    """A sampler that treats members independently."""

    def step(self, model: Prior, noise: NoiseField, state: SamplerState) -> SamplerState:
        """One step; pure."""
        walk = self.walk(model, state)
        draws = noise.at(state.realizations, state.step, state.x.device)
        if walk.ratio_s == 0:
            x_0 = self.finish(model, state.x, walk.t, noise=draws)
            return SamplerState(x_0, state.step + 1, state.realizations)
        z, memory = self.advance(model, walk, draws, state=state)
        return SamplerState(walk.alpha_s * z, state.step + 1, state.realizations, memory)

    def finish(self, model: Prior, x_t: Tensor, t: Tensor, *, noise: StepNoise) -> Tensor:
        """The last step, to ratio zero: ``E[x_0 | x_t]``."""
        return model.denoise(x_t, t)

    @abstractmethod
    def advance(
        self, model: Prior, walk: Walk, noise: StepNoise, *, state: SamplerState
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``z`` at the end of a step that leaves some noise, and the new memory."""


class UsesTerms(LevelSampler):
    """A sampler that uses prior and terms of a posterior by itself, without a conditioning."""

    def check(self, model: Prior) -> None:
        """Refuse what this sampler cannot use.

        Raises:
            UnsupportedError: terms out of its reach, with the list of methods that can; or a
                conditioning, which it would not use.
        """
        name = type(self).__name__
        if not isinstance(model, Posterior):
            return
        if model.conditioning is not None:
            raise UnsupportedError(
                f"{name} conditions by itself",
                got=f"conditioning={model.conditioning!r}",
                expected="Posterior(prior, *terms) without one",
                hint=f"Leave the conditioning out, or take another sampler than {name}.",
            )
        require(name, model.terms)

    @staticmethod
    def parts(model: Prior) -> tuple[Prior, tuple[Term, ...]]:
        """The prior and the terms of a model; a prior has no terms."""
        return (model.prior, model.terms) if isinstance(model, Posterior) else (model, ())


class TermSampler(UsesTerms, RatioSampler):
    """The same, one member independently of the others."""


def save_state(state: SamplerState, path: Path) -> None:
    """Store a state as safetensors; :func:`load_state` gives it back bit for bit."""
    tensors = {"x": state.x} | {f"memory.{i}": m for i, m in enumerate(state.memory)}
    if state.log_weights is not None:
        tensors["log_weights"] = state.log_weights
    # Complex tensors are stored as pairs of reals, which every safetensors version reads.
    stored = {
        f"{name}.complex" if value.is_complex() else name: (
            torch.view_as_real(value) if value.is_complex() else value
        )
        .contiguous()
        .cpu()
        for name, value in tensors.items()
    }
    metadata = {"step": str(state.step), "realizations": " ".join(map(str, state.realizations))}
    save_file(stored, path, metadata)


def load_state(path: Path, *, device: str | torch.device = "cpu") -> SamplerState:
    """Read a state stored by :func:`save_state`."""
    tensors: dict[str, Tensor] = {}
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            value = file.get_tensor(name)
            key = name.removesuffix(".complex")
            tensors[key] = value if key == name else torch.view_as_complex(value)
    x, log_weights = tensors.pop("x"), tensors.pop("log_weights", None)
    memory = tuple(tensors[f"memory.{i}"] for i in range(len(tensors)))
    realizations = tuple(map(int, metadata["realizations"].split()))
    return SamplerState(x, int(metadata["step"]), realizations, memory, log_weights)
