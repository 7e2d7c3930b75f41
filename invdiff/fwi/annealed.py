"""One best model at falling noise levels, with wave solves of clean models only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.covariance import Covariance, SpectralCovariance
from invdiff.errors import InputError, UnsupportedError
from invdiff.fwi.classic import LBFGS
from invdiff.fwi.curvature import Curvature
from invdiff.fwi.drive import descend
from invdiff.fwi.method import Setting, noised, without_data
from invdiff.fwi.objective import Objective
from invdiff.fwi.shots import AllShots, Shots, check_shots
from invdiff.fwi.state import InversionState
from invdiff.grid import Grid
from invdiff.linalg import conjugate_gradient, inner, per_member
from invdiff.noise import InversionStream

__all__ = ["AnnealedMode", "Fit", "coordinates"]


@dataclass(frozen=True)
class AnnealedMode:
    """One best model at falling noise levels, close to the posterior's mode.

    `AnnealedPosterior` without noise: at each level ``sigma`` the model ``x`` is denoised, which
    gives the prior's expectation of nearby models, ``N(m, C)`` with ``m = E[x_0|x_t]``,
    ``C = Cov[x_0|x_t]``. The next model minimises, for one quasi-Newton step::

        f(x) / T + |C^(-1/2) (x - m)|^2 / 2,   T = max(1, 2 f / n_data)

    Assumptions: a start within half a period. Its members are restarts, whose spread is not an
    uncertainty.

    Cost: the fit, two evaluations (a forward and an adjoint solve per shot each) for the first
    curvature and misfit, then one evaluation and one network pass per level and member, two
    evaluations where bands or shots change.

    Args:
        steps: Number of noise levels.
        highest: First noise level, m/s: about the error of the model that ``fit`` finds.
        lowest: Last noise level, m/s.
        bands: Pairs ``(noise level, frequency)``, falling levels in m/s and rising frequencies in
            Hz: data are low-passed at the frequency until the level is reached.
        shots: Choice of the shots that a step uses.
        memory: Number of pairs of changes of model and gradient that determine the curvature.
        damping: Factor on the curvature in the first steps; it falls while the quadratic model
            predicts the misfit.
        max_iterations: Largest number of conjugate-gradient steps of a level.
        fit: Method that finds a model which explains the data, from which the levels begin; members
            with equal starts share it. None to begin at the start.

    Raises:
        InputError: A count is not an integer >= 1, the levels do not fall, or the bands are not
            pairs.

    Example:
        A method within a budget of 100 gradients per member, whose fit begins with low frequencies:

        >>> from invdiff.fwi import AnnealedMode
        >>> method = AnnealedMode.within(100, bands=(5.0, 8.0))
        >>> method.steps, method.fit.steps, method.fit.bands
        (40, 50, (5.0, 8.0))
    """

    steps: int = 50
    highest: float = 100.0
    lowest: float = 15.0
    bands: tuple[tuple[float, float], ...] = ()
    shots: Shots = field(default_factory=AllShots)
    memory: int = 50
    damping: float = 16.0
    max_iterations: int = 60
    fit: LBFGS | AnnealedMode | None = field(default_factory=lambda: LBFGS(steps=60))

    needs_prior = True

    def __post_init__(self) -> None:
        for name in ("steps", "memory", "max_iterations"):
            object.__setattr__(self, name, as_integer(name, getattr(self, name), least=1))
        for name in ("lowest", "highest"):
            as_number(name, getattr(self, name))
        if self.lowest > self.highest:
            raise InputError(
                "the noise levels do not fall", got=self, expected="0 < lowest <= highest"
            )
        if self.fit is not None and (isinstance(self.fit, type) or not hasattr(self.fit, "least")):
            raise UnsupportedError(
                "fit is not a method",
                got=repr(self.fit),
                expected="such as LBFGS(steps=60), or None",
            )
        check_shots(self.shots)
        _check_levels_of_bands(self.bands)

    @classmethod
    def within(cls, n_gradients: int, *, bands: tuple[float, ...] = ()) -> Self:
        """The method with the steps that ``n_gradients`` per member allow.

        Args:
            n_gradients: Evaluations per member, each a forward and an adjoint solve per shot.
            bands: Frequencies of the fit in Hz, rising.
        """
        # The fit's line searches take a few more than its steps.
        fit = LBFGS(steps=max(n_gradients // 2, 1), bands=bands)
        return cls(steps=max(2 * n_gradients // 5, 1), fit=fit)

    @property
    def levels(self) -> np.ndarray:
        """Noise levels of the steps in m/s, falling geometrically: of a posterior at most these."""
        return np.geomspace(self.highest, self.lowest, self.steps)

    def init(self, setting: Setting) -> InversionState:
        """The fitted models, with their misfit and curvature."""
        fit = self.fitted(setting)
        x = fit.x.expand_as(setting.start).clone()
        curvature, damping, n_solves = fit.curvature, fit.damping, fit.n_solves
        if curvature is None or damping is None:
            curvature, damping = self._first_curvature(setting, fit.x)
            n_solves += setting.objective.n_shots
        return self._begun(
            setting, x, curvature=curvature, damping=damping, n_solves=n_solves,
            n_shared=n_solves if fit.is_shared else 0,
        )  # fmt: skip

    def _begun(
        self,
        setting: Setting,
        x: Tensor,
        *,
        curvature: Curvature,
        damping: Tensor,
        n_solves: int,
        n_shared: int,
        first_level: float | None = None,
    ) -> InversionState:
        """The state at models ``x`` before the first level, after ``n_solves`` per member."""
        first_level = self.highest if first_level is None else first_level
        objective = self._objective(setting, 0, first_level)
        if objective.has_data:
            (f, g), spent = objective(x), objective.n_shots
        else:
            (f, g), spent = (x.new_zeros(len(x)).double(), torch.zeros_like(x)), 0
        misfit = 2 * f / objective.n_data if objective.has_data else torch.full_like(f, torch.nan)
        memory = _remember(f, g, curvature.expand(len(x)), damping.expand(len(x)))
        memory["origin"] = x.clone()
        memory["shared_solves"] = torch.tensor(n_shared, device=x.device)
        memory["first_level"] = torch.tensor(first_level, dtype=torch.float64, device=x.device)
        return InversionState.at(x, misfit, solves=n_solves + spent, memory=memory)

    def fitted(self, setting: Setting) -> Fit:
        """Models that explain the data, one for all members that have the same start."""
        starts = setting.start
        is_shared = bool((starts == starts[:1]).all())
        starts = starts[:1] if is_shared else starts
        if self.fit is None:
            return Fit(starts, 0, is_shared)
        shared = setting._replace(start=starts, members=range(len(starts)))
        stored = setting.checkpoint
        *_, last = descend(
            self.fit,
            shared,
            max_solves=self._budget_of_fit(setting),
            checkpoint=None if stored is None else stored.part("fit").path,
            run=None if stored is None else stored.run,
        )
        if not isinstance(self.fit, AnnealedMode):
            return Fit(last.x, last.solves, is_shared)
        origin, (_, _, curvature, damping) = last.memory["origin"], _recall(last.memory)
        return Fit(last.x, last.solves, is_shared, curvature, damping, origin)

    def _first_curvature(self, setting: Setting, x: Tensor) -> tuple[Curvature, Tensor]:
        """The Gauss-Newton estimate at models ``x``, and the damping of the first steps."""
        curvature = Curvature.start(setting.objective.hessian(x, setting.noise), x)
        return curvature, torch.full((len(x),), self.damping, dtype=torch.float64, device=x.device)

    def _budget_of_fit(self, setting: Setting) -> int:
        """Forward solves per member that the fit may take, so that the levels keep theirs.

        Raises:
            InputError: The budget is too small for the fit, the start and a level.
        """
        assert self.fit is not None
        n_shots, whole = setting.objective.n_shots, setting.max_solves
        least = self.least(n_shots)
        if whole < least:
            raise InputError(
                "the budget is too small for the start and a step",
                got=f"max_solves={whole}",
                expected=f"at least {least} for {n_shots} shots, and many times that for a result",
            )
        # Line searches may take more than one solve per shot and step.
        levels = least - self.fit.least(n_shots) + (self.steps - 1) * n_shots
        share = max(whole - levels, whole // 2, self.fit.least(n_shots))
        return min(share, whole - least + self.fit.least(n_shots))

    def least(self, n_shots: int) -> int:
        """Fewest forward solves per member of the fit, the start and one level."""
        fit = 0 if self.fit is None else self.fit.least(n_shots)
        # The curvature of an annealed fit is used as it is.
        hessian = 0 if isinstance(self.fit, AnnealedMode) else n_shots
        return fit + hessian + 2 * self.shots.count(n_shots)

    def sees_all(self, step: int) -> bool:
        """Whether that step used all shots and frequencies."""
        last = self.bands[-1][0] if self.bands else np.inf
        return isinstance(self.shots, AllShots) and bool(self.levels[step] <= last)

    def cost(self, setting: Setting, state: InversionState) -> int:
        """Forward solves of one evaluation, or of two where the objective changes."""
        n_evaluations = 2 if self._is_new_objective(state) else 1
        return n_evaluations * self.shots.count(setting.objective.n_shots)

    def step(self, setting: Setting, state: InversionState) -> InversionState:
        """The state at the next noise level."""
        objective, spent = self._objective(setting, state.step, _first_level(state)), 0
        if not objective.has_data:
            return without_data(state)
        f, g, curvature, damping = _recall(state.memory)
        if self._is_new_objective(state):
            (f, g), spent = objective(state.x), objective.n_shots
        temperature = (2 * f / objective.n_data).clamp_min(1.0)
        quadratic = _Quadratic(state.x, g, curvature, damping, temperature)
        x = self._minimum(setting, state, quadratic).clamp(*objective.bounds)
        predicted = f + quadratic.change(x)
        f_new, g_new = objective(x)
        spent += objective.n_shots
        curvature = curvature.updated(x - state.x, g_new - g, memory=self.memory)
        # Where the quadratic predicted the misfit badly, its curvature is increased.
        explained = temperature * objective.n_data / 2  # f, or its value for noise alone
        missed = f_new > predicted + 0.25 * (f - predicted).abs() + 0.05 * explained
        damping = torch.where(missed, 4 * damping, (0.6 * damping).clamp_min(1.0))
        worse = f_new > f + 0.2 * explained
        keep = per_member(worse, x)
        memory = dict(state.memory) | _remember(
            torch.where(worse, f, f_new), torch.where(keep, g, g_new), curvature, damping
        )
        misfit = 2 * torch.where(worse, f, f_new) / objective.n_data
        return state.after(torch.where(keep, state.x, x), misfit, solves=spent, memory=memory)

    def _minimum(self, setting: Setting, state: InversionState, quadratic: _Quadratic) -> Tensor:
        """Minimum of the randomised objective, in coordinates ``x = m + L u``, ``C = L L^H``."""
        prior = setting.prior
        assert prior is not None
        e_t = self._noise(setting, prior.grid, state.step, stream=InversionStream.STATE)
        e_x = self._noise(setting, prior.grid, state.step, stream=InversionStream.PRIOR)
        with torch.no_grad():
            x_t, t = noised(prior, state.x, self._level(state.step, _first_level(state)), e=e_t)
            mean, covariance = prior.moments(x_t, t)

            def normal(u: Tensor) -> Tensor:
                return u + covariance.sqrt_adjoint(quadratic.product(covariance.sqrt(u)))

            e_y = self._noise(setting, prior.grid, state.step, stream=InversionStream.DATA).double()
            # Noise of the data, pulled back by the curvature instead of by the operator.
            pull = quadratic.curvature.draw(e_y) / per_member(quadratic.temperature, e_y).sqrt()
            slope = quadratic.product(state.x - mean) - quadratic.slope + pull.to(e_x)
            target = covariance.coordinates(e_x) + covariance.sqrt_adjoint(slope)
            # Begin at the present model: a solve that stops early is then a shorter step.
            here = coordinates(covariance, state.x - mean, self.max_iterations)
            solution = conjugate_gradient(
                normal, target - normal(here), rtol=1e-3, max_iterations=self.max_iterations
            )
            return mean + covariance.sqrt(here + solution.x)

    def _noise(self, setting: Setting, grid: Grid, step: int, *, stream: int) -> Tensor:
        return setting.start.new_zeros((len(setting.members), *grid.shape))

    def _objective(self, setting: Setting, step: int, first_level: float) -> Objective:
        """The objective in the band and of the shots of this step."""
        objective = setting.objective
        frequency = self._frequency(step, first_level)
        if frequency is not None:
            objective = objective.below(frequency)
        return self.shots.of(objective, step, setting.noise.seed)

    def _level(self, step: int, first_level: float) -> float:
        """Noise level of a step, m/s."""
        return float(np.geomspace(first_level, self.lowest, self.steps)[step])

    def _frequency(self, step: int, first_level: float) -> float | None:
        level = self._level(step, first_level)
        return next((f for until, f in self.bands if level > until), None)

    def _is_new_objective(self, state: InversionState) -> bool:
        step, first = state.step, _first_level(state)
        if step == 0:
            return False
        is_new_band = self._frequency(step, first) != self._frequency(step - 1, first)
        return is_new_band or self.shots.is_new(step)


def _check_levels_of_bands(bands: tuple[tuple[float, float], ...]) -> None:
    """Refuse bands that are not pairs of falling levels and rising frequencies."""
    is_pairs = isinstance(bands, tuple | list) and all(
        isinstance(band, tuple | list) and len(band) == 2 for band in bands
    )
    if is_pairs:
        levels, frequencies = ([band[i] for band in bands] for i in (0, 1))
        if levels == sorted(levels, reverse=True) and frequencies == sorted(frequencies):
            return
    raise InputError(
        "the bands are not pairs of noise level and frequency",
        got=f"bands={bands!r}",
        expected="((level in m/s, frequency in Hz), ...), levels that fall, frequencies that rise",
        hint="Bands of the fit are plain frequencies:"
        " fit=LBFGS(bands=(6.0, 10.0)), or AnnealedPosterior.within(100, bands=(6.0, 10.0)).",
    )


class Fit(NamedTuple):
    """Models that explain the data, from which the levels begin."""

    x: Tensor
    """Models, m/s: one if it is shared by all members, otherwise one for each."""
    n_solves: int
    """Forward solves that a model took."""
    is_shared: bool
    """Whether all members have the same."""
    curvature: Curvature | None = None
    """Curvature of the misfit, where levels have found one."""
    damping: Tensor | None = None
    """Factor on the curvature, ``(batch,)``."""
    origin: Tensor | None = None
    """Models at which those levels began, like ``x``."""


class _Quadratic(NamedTuple):
    """``(g.d + d^T (damping B) d / 2) / temperature`` for changes ``d`` of models ``x``."""

    x: Tensor
    g: Tensor
    curvature: Curvature
    damping: Tensor
    temperature: Tensor

    @property
    def slope(self) -> Tensor:
        """The gradient over the temperature, ``g / T``."""
        return self.g / per_member(self.temperature, self.g).to(self.g)

    def product(self, v: Tensor) -> Tensor:
        """The damped curvature over the temperature, ``damping B v / T``."""
        stiffness = per_member(self.damping / self.temperature, v)
        return (stiffness * self.curvature.product(v)).to(v)

    def change(self, x: Tensor) -> Tensor:
        """The change of the misfit that the undamped model predicts at ``x``, ``(batch,)``."""
        d = (x - self.x).double()
        return inner(self.g, d) + inner(d, self.curvature.product(d)) / 2


def coordinates(covariance: Covariance, v: Tensor, max_iterations: int) -> Tensor:
    """Coordinates ``u`` with ``L u = v``, by least squares."""
    return conjugate_gradient(
        lambda u: covariance.sqrt_adjoint(covariance.sqrt(u)),
        covariance.sqrt_adjoint(v),
        rtol=1e-3,
        max_iterations=max_iterations,
    ).x


def _first_level(state: InversionState) -> float:
    return float(state.memory["first_level"])


def _remember(f: Tensor, g: Tensor, curvature: Curvature, damping: Tensor) -> dict[str, Tensor]:
    base = curvature.base
    assert isinstance(base, SpectralCovariance)
    assert base.std is not None
    return {
        "f": f,
        "g": g,
        "damping": damping,
        "power": base.power,
        "std": base.std,
        "s": curvature.s,
        "y": curvature.y,
    }


def _recall(memory: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Curvature, Tensor]:
    base = SpectralCovariance(memory["power"], memory["std"], is_complex=False, by_member=True)
    return memory["f"], memory["g"], Curvature(base, memory["s"], memory["y"]), memory["damping"]
