"""Inversion without a diffusion prior: torch's optimisers on misfit and penalties."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.fwi.bands import band_at, check_bands, in_band, sees_all
from invdiff.fwi.method import Setting, without_data
from invdiff.fwi.objective import Objective
from invdiff.fwi.shots import AllShots, Shots, check_shots
from invdiff.fwi.state import InversionState
from invdiff.protocols import Term

__all__ = ["LBFGS", "Adam", "total_variation"]

_KNOWN = ("known.theta", "known.f", "known.total", "known.g")
_MAX_TRIALS = 25  # evaluations of a line search
_EDGE = 1e-4  # distance of a start from the bounds, as a share of their range


def total_variation(x: Tensor, *, smoothing: float = 10.0) -> Tensor:
    """Total variation of models, ``sum sqrt(|grad x|^2 + smoothing^2)`` over cells, ``(batch,)``.

    With `invdiff.terms.Penalty` a regularisation that keeps edges: Rudin, Osher & Fatemi (1992),
    doi 10.1016/0167-2789(92)90242-F. Differences are taken between neighbouring cells.

    Args:
        x: Models, ``(batch, nz, nx)``, m/s.
        smoothing: Differences below this are penalised by their square, m/s.

    >>> total_variation(torch.tensor([[[0.0, 300.0], [0.0, 300.0]]]), smoothing=0.0)
    tensor([600.])
    """
    dz = torch.nn.functional.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 1))
    dx = torch.nn.functional.pad(x[:, :, 1:] - x[:, :, :-1], (0, 1))
    return (dz.square() + dx.square() + smoothing**2).sqrt().flatten(1).sum(1)


@dataclass(frozen=True)
class _Descent(ABC):
    """One of torch's optimisers, applied to each member separately, one after another.

    Models are kept within their bounds by ``v = low + (high - low) / (1 + exp(-theta))``; the
    optimiser moves ``theta``. The objective is divided by its first value, so that settings mean
    the same for any data. A member whose misfit is zero, up to rounding, stays where it is.

    Args:
        steps: Number of iterations.
        bands: Frequencies in Hz, rising; the steps are divided evenly among data low-passed at each
            of them and, last, data as they are (Bunks et al. 1995, doi 10.1190/1.1443880).
        terms: Penalties, such as ``Penalty(total_variation, 0.3)``.
        shots: Choice of the shots that a step uses.
    """

    steps: int = 100
    bands: tuple[float, ...] = ()
    terms: tuple[Term, ...] = ()
    shots: Shots = field(default_factory=AllShots)

    needs_prior = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", as_integer("steps", self.steps, least=1))
        check_bands(self.bands)
        check_shots(self.shots)

    @abstractmethod
    def optimiser(self, theta: Tensor, step: int, *, n_trials: int) -> torch.optim.Optimizer:
        """The optimiser of one ``theta``; ``n_trials`` evaluations are left after the first."""

    def cost(self, setting: Setting, state: InversionState) -> int:
        """Forward solves of one evaluation of the step's shots."""
        return self.shots.count(setting.objective.n_shots)

    def init(self, setting: Setting) -> InversionState:
        """The start with its misfit; NaN if the shots of the first step hold no data."""
        objective = self._objective(setting, 0)
        if not objective.has_data:
            unknown = torch.full((len(setting.start),), torch.nan, dtype=torch.float64)
            memory = {"scale": torch.zeros_like(unknown)}
            return InversionState.at(setting.start, unknown, solves=0, memory=memory)
        f, _ = objective(setting.start)
        memory = {"scale": (f + self.penalty(setting.start)).abs()}
        return InversionState.at(
            setting.start, 2 * f / objective.n_data, solves=objective.n_shots, memory=memory
        )

    def step(self, setting: Setting, state: InversionState) -> InversionState:
        """One iteration of each member; unchanged if the shots of the step hold no data."""
        objective = self._objective(setting, state.step)
        if not objective.has_data:
            return without_data(state)
        is_new = self._is_new_objective(state.step)
        allowed = (setting.max_solves - state.solves) // objective.n_shots
        models, misfits, scales, spent = [], [], [], 0
        memory: dict[str, Tensor] = {}
        for i in range(len(state.x)):
            own = {} if is_new else _of_member(state.memory, i)
            scale = state.memory["scale"][i]
            descent = _MemberDescent(self, objective, state.x[i], scale=scale, memory=own)
            descent.run(state.step, allowed)
            models.append(descent.model())
            misfits.append(2 * descent.f / objective.n_data)
            scales.append(descent.scale)
            spent = max(spent, descent.n_evaluations * objective.n_shots)
            memory |= {f"{i}.{name}": value for name, value in descent.memory().items()}
        memory["scale"] = torch.tensor(scales, dtype=torch.float64)
        misfit = torch.tensor(misfits, dtype=torch.float64)
        return state.after(torch.stack(models), misfit, solves=spent, memory=memory)

    def sees_all(self, step: int) -> bool:
        """Whether that step used all shots and frequencies."""
        return sees_all(self, step, self.bands)

    def penalty(self, x: Tensor) -> Tensor:
        """Sum of the penalties of models ``(batch, nz, nx)``: ``(batch,)``, double precision."""
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for term in self.terms:
            total = total - term.log_prob(x, x, torch.zeros(())).double()
        return total

    def _is_new_objective(self, step: int) -> bool:
        is_new_band = self._band(step) != self._band(max(step - 1, 0))
        return is_new_band or self.shots.is_new(step)

    def _band(self, step: int) -> float | None:
        return band_at(self.bands, step / self.steps)

    def _objective(self, setting: Setting, step: int) -> Objective:
        objective = in_band(setting.objective, self.bands, step / self.steps)
        return self.shots.of(objective, step, setting.noise.seed)


@dataclass(frozen=True)
class LBFGS(_Descent):
    """L-BFGS with a strong-Wolfe line search, as in torch; the default without a prior.

    Minimises ``f(v) + sum_i penalty_i(v)`` over models ``v`` within their bounds, by quasi-Newton
    steps with the curvature of the latest ``memory`` steps (Liu & Nocedal 1989, doi
    10.1007/BF01589116)::

        theta += h d,   d = -H g,   v = low + (high - low) / (1 + exp(-theta))

    Assumptions: it finds the minimum in whose basin the start lies: begin with low frequencies
    (``bands``; Bunks et al. 1995, doi 10.1190/1.1443880), whose half period exceeds the time errors
    of the start. Deterministic: members from one start are equal, and the spread of members from
    several starts is not an uncertainty.

    Cost: one evaluation (a forward and an adjoint solve per shot) for most steps, up to 25 where
    the line search has to shorten a step, one more where bands or shots change. No network pass.

    Args:
        steps: Number of iterations.
        bands: Frequencies in Hz, rising; the steps are divided evenly among data low-passed at each
            of them and, last, data as they are.
        terms: Penalties, such as ``Penalty(total_variation, 0.3)``.
        shots: Choice of the shots that a step uses.
        memory: Number of pairs of changes of model and gradient that are kept.

    Raises:
        InputError: A count is not an integer >= 1, or the bands do not rise.

    Example:
        >>> from invdiff.fwi import LBFGS
        >>> LBFGS(50, bands=(5.0, 8.0))
        LBFGS(steps=50, bands=(5.0, 8.0), terms=(), shots=AllShots(), memory=10)
    """

    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "memory", as_integer("memory", self.memory, least=1))

    def cost(self, setting: Setting, state: InversionState) -> int:
        """Forward solves of one evaluation, or two where that of the present model is unknown."""
        is_known = state.step > 0 and not self._is_new_objective(state.step)
        return (1 if is_known else 2) * super().cost(setting, state)

    def least(self, n_shots: int) -> int:
        """Fewest forward solves per member of the start and one step."""
        return 3 * self.shots.count(n_shots)

    def optimiser(self, theta: Tensor, step: int, *, n_trials: int) -> torch.optim.Optimizer:
        """L-BFGS for one iteration, with the line search that the budget allows."""
        # By default torch allows max_iter 5 // 4 evaluations: with one iteration, no line search.
        return torch.optim.LBFGS(
            [theta], max_iter=1, max_eval=min(n_trials, _MAX_TRIALS), history_size=self.memory,
            line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip


@dataclass(frozen=True)
class Adam(_Descent):
    """Adam with a rate that falls as a cosine to zero, on misfit and penalties.

    Kingma & Ba (2015, arXiv 1412.6980), with the model kept within its bounds as by `LBFGS`::

        theta -= rate_k m_k / (sqrt(v_k) + 1e-8),   rate_k = rate (1 + cos(pi k / steps)) / 2

    for the bias-corrected running means ``m_k`` and ``v_k`` of the gradient and its square.

    Assumptions: robust against gradients that change from step to step, as those of `Minibatch` and
    `Encoded` shots do, and slower than `LBFGS` otherwise. Deterministic for given shots: the spread
    of members is not an uncertainty. Cost: one evaluation (a forward and an adjoint solve per shot)
    per step, no network pass.

    Args:
        steps: Number of iterations.
        bands: Frequencies in Hz, rising, as of `LBFGS`.
        terms: Penalties, such as ``Penalty(total_variation, 0.3)``.
        shots: Choice of the shots that a step uses.
        rate: Rate of the first step, in ``theta``; 0.02 is about 17 m/s in the middle of the bounds
            1400 to 4800 m/s.

    Raises:
        InputError: A count is not an integer >= 1, or the bands do not rise.

    Example:
        >>> from invdiff.fwi import Adam, Minibatch
        >>> Adam(200, shots=Minibatch(4)).shots.count(32)  # solves per step of a survey of 32 shots
        4
    """

    rate: float = 0.02

    def optimiser(self, theta: Tensor, step: int, *, n_trials: int) -> torch.optim.Optimizer:
        """Adam with the rate of this step."""
        share = torch.cos(torch.tensor(step / self.steps * torch.pi))
        return torch.optim.Adam([theta], lr=self.rate * float(1 + share) / 2)


class _MemberDescent:
    """One iteration of one member: optimiser, objective, and how often that was evaluated."""

    def __init__(
        self,
        method: _Descent,
        objective: Objective,
        x: Tensor,
        *,
        scale: Tensor,
        memory: Mapping[str, Tensor],
    ) -> None:
        self.method, self.objective, self.scale = method, objective, float(scale)
        low, high = objective.bounds
        share = ((x.double() - low) / (high - low)).clamp(_EDGE, 1 - _EDGE)
        theta = memory.get("theta", torch.logit(share))
        self.theta = theta.clone().requires_grad_()
        # The model of an unchanged theta is x itself, unaffected by rounding and the bounds.
        self._x, self._unchanged = x, theta.clone()
        self._start = memory
        self._after: Mapping[str, Any] | None = None
        # L-BFGS asks again for what its line search ended with.
        self._known: list[tuple[Tensor, ...]] = []
        if "known.theta" in memory:
            self._known = [tuple(memory[name] for name in _KNOWN)]
        self.n_evaluations, self.f = 0, 0.0

    def run(self, step: int, allowed: int) -> None:
        """One step of the optimiser, with at most ``allowed`` evaluations.

        No step is taken where the model explains the data: Adam would follow the rounding errors.
        """
        n_trials = allowed if self._find() is not None else allowed - 1
        if not self.method.terms and self._is_explained():
            return
        optimiser = self.method.optimiser(self.theta, step, n_trials=n_trials)
        _restore(optimiser, self.theta, self._start)
        optimiser.step(self._closure)  # type: ignore[arg-type]
        self._after = optimiser.state[self.theta]
        # Of the model that was taken; Adam's is not evaluated, so that of the one before.
        here = self._find()
        self.f = float((here or self._known[-1])[1])
        self._known = [] if here is None else [here]

    def _is_explained(self) -> bool:
        self._closure()
        here = self._find()
        assert here is not None
        self.f = float(here[1])
        return self.objective.is_explained(here[1])

    def model(self) -> Tensor:
        """The model ``(nz, nx)`` in m/s, within the bounds."""
        with torch.no_grad():
            return self._velocity()[0]

    def memory(self) -> dict[str, Tensor]:
        """All tensors that the next iteration needs, by name."""
        stored = {"theta": self.theta.detach().clone()}
        for known in self._known:
            stored |= dict(zip(_KNOWN, known, strict=True))
        if self._after is None:  # no step was taken
            kept = ("state.", "list.")
            return stored | {k: v for k, v in self._start.items() if k.startswith(kept)}
        for name, value in self._after.items():
            if name == "al":  # scratch space
                continue
            if isinstance(value, list):
                stored |= {f"list.{name}.{k:03d}": _tensor(v) for k, v in enumerate(value)}
            elif value is not None:
                stored[f"state.{name}"] = _tensor(value)
        return stored

    def _velocity(self) -> Tensor:
        low, high = self.objective.bounds
        v = low + (high - low) * torch.sigmoid(self.theta)
        v = v.to(self.objective.y.dtype).clamp(low, high)
        return (v + torch.where(self.theta == self._unchanged, self._x - v, 0.0).detach())[None]

    def _find(self) -> tuple[Tensor, ...] | None:
        """The stored evaluation of the present model; None if there is none."""
        return next((k for k in self._known if torch.equal(k[0], self.theta)), None)

    def _closure(self) -> Tensor:
        here = self._find()
        if here is None:
            here = (self.theta.detach().clone(), *self._evaluate())
            self._known.append(here)
            self.n_evaluations += 1
        _, _, total, g = here
        self.theta.grad = g.clone()
        return total

    def _evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Misfit, the scaled objective, and its gradient by ``theta``."""
        with torch.enable_grad():
            v = self._velocity()
            (f,), slope = self.objective(v.detach())
            penalty = self.method.penalty(v).sum()
            (g,) = torch.autograd.grad((slope * v).sum() + penalty, self.theta)
        total = f + penalty.detach()
        self.scale = self.scale or abs(float(total))
        divisor = self.scale or 1.0
        return f, total / divisor, g / divisor


def _of_member(memory: Mapping[str, Tensor], member: int) -> dict[str, Tensor]:
    prefix = f"{member}."
    return {k.removeprefix(prefix): v for k, v in memory.items() if k.startswith(prefix)}


def _restore(optimiser: torch.optim.Optimizer, theta: Tensor, memory: Mapping[str, Tensor]) -> None:
    state: dict[str, Any] = {}
    for name in sorted(memory):
        kind, _, rest = name.partition(".")
        if kind == "state":
            # Scalars are the host's, on any device.
            value = memory[name] if memory[name].ndim else memory[name].cpu()
            # Counters and the length of the last step are plain numbers to L-BFGS.
            is_number = rest in ("n_iter", "func_evals")
            state[rest] = int(value) if is_number else value.clone()
        elif kind == "list":
            state.setdefault(rest.rpartition(".")[0], []).append(memory[name].clone())
    if "prev_loss" in state:  # L-BFGS, whose lists may be empty
        state = {"old_dirs": [], "old_stps": [], "ro": []} | state
        state["prev_loss"] = float(state["prev_loss"])
    if state:
        optimiser.state[theta] = state


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
