"""Posterior draws and modes at falling noise levels, with wave solves of clean models only."""

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

__all__ = ["AnnealedMode", "AnnealedPosterior"]


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
        """Noise levels of the steps in m/s, falling geometrically."""
        return np.geomspace(self.highest, self.lowest, self.steps)

    def init(self, setting: Setting) -> InversionState:
        """The fitted models, with their misfit and curvature."""
        # Members with equal starts share the fit.
        starts = setting.start
        starts = starts[:1] if bool((starts == starts[:1]).all()) else starts
        fitted, curvature, damping, n_fit = self._fitted(setting, starts)
        x = self._scattered(setting, fitted.expand_as(setting.start))
        objective = self._objective(setting, 0)
        if objective.has_data:
            (f, g), spent = objective(x), objective.n_shots
        else:
            (f, g), spent = (x.new_zeros(len(x)).double(), torch.zeros_like(x)), 0
        misfit = 2 * f / objective.n_data if objective.has_data else torch.full_like(f, torch.nan)
        shared = torch.tensor(n_fit if len(starts) == 1 else 0)
        memory = _remember(f, g, curvature.expand(len(x)), damping.expand(len(x)))
        return InversionState.at(
            x, misfit, solves=n_fit + spent, memory=memory | {"shared_solves": shared}
        )

    def _scattered(self, setting: Setting, x: Tensor) -> Tensor:
        """Models at which the levels begin, given the fitted ones."""
        return x.clone()

    def _fitted(self, setting: Setting, starts: Tensor) -> tuple[Tensor, Curvature, Tensor, int]:
        """Models that explain the data, their curvature and damping, and the solves per member."""
        x, n_solves = starts, 0
        if self.fit is not None:
            shared = setting._replace(start=starts, members=range(len(starts)))
            *_, last = descend(self.fit, shared, max_solves=self._budget_of_fit(setting))
            x, n_solves = last.x, last.solves
            if isinstance(self.fit, AnnealedMode):
                return x, *_recall(last.memory)[2:], n_solves
        curvature = Curvature.start(setting.objective.hessian(x, setting.noise), x)
        damping = torch.full((len(x),), self.damping, dtype=torch.float64, device=x.device)
        return x, curvature, damping, n_solves + setting.objective.n_shots

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
        share = max(whole - (self.steps + 2) * n_shots, whole // 2, self.fit.least(n_shots))
        return min(share, whole - least + self.fit.least(n_shots))

    def least(self, n_shots: int) -> int:
        """Fewest forward solves per member of the fit, the start and one level."""
        fit = 0 if self.fit is None else self.fit.least(n_shots)
        # The curvature of an annealed fit is used as it is.
        hessian = 0 if isinstance(self.fit, AnnealedMode) else n_shots
        return fit + hessian + 2 * self.shots.count(n_shots)

    def cost(self, setting: Setting, state: InversionState) -> int:
        """Forward solves of one evaluation, or of two where the objective changes."""
        n_evaluations = 2 if self._is_new_objective(state.step) else 1
        return n_evaluations * self.shots.count(setting.objective.n_shots)

    def step(self, setting: Setting, state: InversionState) -> InversionState:
        """The state at the next noise level."""
        objective, spent = self._objective(setting, state.step), 0
        if not objective.has_data:
            return without_data(state)
        f, g, curvature, damping = _recall(state.memory)
        if self._is_new_objective(state.step):
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
        memory = _remember(
            torch.where(worse, f, f_new), torch.where(keep, g, g_new), curvature, damping
        ) | {"shared_solves": state.memory["shared_solves"]}
        misfit = 2 * torch.where(worse, f, f_new) / objective.n_data
        return state.after(torch.where(keep, state.x, x), misfit, solves=spent, memory=memory)

    def _minimum(self, setting: Setting, state: InversionState, quadratic: _Quadratic) -> Tensor:
        """Minimum of the randomised objective, in coordinates ``x = m + L u``, ``C = L L^H``."""
        prior = setting.prior
        assert prior is not None
        e_t = self._noise(setting, prior.grid, state.step, stream=InversionStream.STATE)
        e_x = self._noise(setting, prior.grid, state.step, stream=InversionStream.PRIOR)
        with torch.no_grad():
            x_t, t = noised(prior, state.x, float(self.levels[state.step]), e=e_t)
            mean, covariance = prior.moments(x_t, t)

            def normal(u: Tensor) -> Tensor:
                return u + covariance.sqrt_adjoint(quadratic.product(covariance.sqrt(u)))

            e_y = self._noise(setting, prior.grid, state.step, stream=InversionStream.DATA).double()
            # Noise of the data, pulled back by the curvature instead of by the operator.
            pull = quadratic.curvature.draw(e_y) / per_member(quadratic.temperature, e_y).sqrt()
            slope = quadratic.product(state.x - mean) - quadratic.slope + pull.to(e_x)
            target = covariance.coordinates(e_x) + covariance.sqrt_adjoint(slope)
            # Begin at the present model: a solve that stops early is then a shorter step.
            here = _coordinates(covariance, state.x - mean, self.max_iterations)
            solution = conjugate_gradient(
                normal, target - normal(here), rtol=1e-3, max_iterations=self.max_iterations
            )
            return mean + covariance.sqrt(here + solution.x)

    def _noise(self, setting: Setting, grid: Grid, step: int, *, stream: int) -> Tensor:
        return setting.start.new_zeros((len(setting.members), *grid.shape))

    def _objective(self, setting: Setting, step: int) -> Objective:
        """The objective in the band and of the shots of this step."""
        objective = setting.objective
        frequency = self._frequency(step)
        if frequency is not None:
            objective = objective.below(frequency)
        return self.shots.of(objective, step, setting.noise.seed)

    def _frequency(self, step: int) -> float | None:
        level = self.levels[step]
        return next((f for until, f in self.bands if level > until), None)

    def _is_new_objective(self, step: int) -> bool:
        if step == 0:
            return False
        return self._frequency(step) != self._frequency(step - 1) or self.shots.is_new(step)


@dataclass(frozen=True)
class AnnealedPosterior(AnnealedMode):
    """One draw from the posterior per member, at falling noise levels; the default with a prior.

    The wave solver is applied to clean models, never to noisy states. At a level ``sigma`` a member
    ``x`` is noised and denoised, which gives the prior's expectation of nearby models, ``N(m, C)``
    with ``m = E[x_0|x_t]``, ``C = Cov[x_0|x_t]``. The next ``x`` minimises the randomised objective
    (randomise, then optimise: Bardsley et al. 2014, doi 10.1137/140964023)::

        f(x) / T - e_y . x + |C^(-1/2) (x - m) - e_x|^2 / 2,    e_y ~ N(0, B / T), e_x ~ N(0, I)

    for one quasi-Newton step: ``f`` is replaced by its quadratic model with the curvature ``B``
    estimated from all gradients so far, ``C`` is exact, and the quadratic is solved by conjugate
    gradients, which take no wave solve. So every level takes a single gradient, and the curvature
    is kept between levels. ``e_y`` is what noise of the data would add to the gradient, drawn from
    the curvature instead of through the operator. ``T = max(1, 2 f / n_data)`` makes the noise as
    large as the residual while a model cannot explain the data: the profile likelihood of an
    unknown noise level. The first curvature is a Gauss-Newton Hessian of stationary correlation,
    estimated by pulling back white data (`Objective.hessian`).

    An `AnnealedMode`, and before it a classical fit, come first: from the starting model itself, 50
    levels were too few. Members share the fit and are scattered around it by draws of the prior,
    which keeps them apart where the data contain little information.

    Assumptions: independent Gaussian noise of known level, modelling errors included, and a start
    within half a period. With linear data and an exact prior the draws are those of the posterior
    (``tests/fwi/test_invert.py``). In full waveform inversion most of the remaining error is that
    of a local minimum and not of noise; ``benchmarks/fwi.py`` states how far the intervals hold.

    Cost: the fit, shared by all members with equal starts; then per member one evaluation (a
    forward and an adjoint solve per shot) and one network pass per level.

    Args:
        steps: Number of noise levels.
        highest: First noise level, m/s.
        lowest: Last noise level, m/s.
        bands: Pairs ``(noise level, frequency)`` in m/s and Hz, as of `AnnealedMode`.
        shots: Choice of the shots that a step uses.
        memory: Number of pairs of changes of model and gradient that determine the curvature.
        damping: Factor on the curvature in the first steps; it falls while the quadratic model
            predicts the misfit.
        max_iterations: Largest number of conjugate-gradient steps of a level.
        fit: Method that finds the model around which members are scattered; None for the start.
        scatter: Noise level, m/s, of the draws of the prior at which members begin, around the
            fitted model. A larger value finds more of the models that explain the data, and takes
            more levels. 0 to begin at the fit.

    Raises:
        InputError: `AnnealedMode` refuses the settings, or the scatter is negative.

    Example:
        >>> from invdiff.fwi import AnnealedPosterior
        >>> AnnealedPosterior(steps=4, highest=200.0, lowest=25.0).levels  # m/s
        array([200., 100.,  50.,  25.])
        >>> method = AnnealedPosterior.within(100, bands=(6.0, 10.0))  # gradients per member
        >>> method.steps, method.fit.steps, method.fit.fit
        (23, 30, LBFGS(steps=37, bands=(6.0, 10.0), terms=(), shots=AllShots(), memory=10))
    """

    highest: float = 200.0
    fit: LBFGS | AnnealedMode | None = field(default_factory=AnnealedMode)
    scatter: float = 300.0

    @classmethod
    def within(cls, n_gradients: int, *, bands: tuple[float, ...] = ()) -> Self:
        """The method with the steps that ``n_gradients`` per member allow, 3/4 of them for the fit.

        Members share the fit: ``n`` of them take ``(3 + n) / 4`` of the solves of one.

        Args:
            n_gradients: Evaluations per member, each a forward and an adjoint solve per shot.
            bands: Frequencies of the fit in Hz, rising.
        """
        fit = AnnealedMode.within(3 * n_gradients // 4, bands=bands)
        return cls(steps=max(n_gradients // 4 - 2, 1), fit=fit)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scatter < 0:
            raise InputError(
                "the scatter is negative", got=f"scatter={self.scatter:g}", expected=">= 0, in m/s"
            )

    def _scattered(self, setting: Setting, x: Tensor) -> Tensor:
        if not self.scatter:
            return super()._scattered(setting, x)
        prior = setting.prior
        assert prior is not None
        e_t = self._noise(setting, prior.grid, 0, stream=InversionStream.SCATTER)
        e_x = self._noise(setting, prior.grid, 1, stream=InversionStream.SCATTER)
        with torch.no_grad():
            x_t, t = noised(prior, x, self.scatter, e=e_t)
            mean, covariance = prior.moments(x_t, t)
            return (mean + covariance.draw(e_x)).clamp(*setting.objective.bounds)

    def _noise(self, setting: Setting, grid: Grid, step: int, *, stream: int) -> Tensor:
        return setting.noise(grid, setting.members, step, stream=stream).to(setting.start)


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


def _coordinates(covariance: Covariance, v: Tensor, max_iterations: int) -> Tensor:
    """Coordinates ``u`` with ``L u = v``, by least squares."""
    return conjugate_gradient(
        lambda u: covariance.sqrt_adjoint(covariance.sqrt(u)),
        covariance.sqrt_adjoint(v),
        rtol=1e-3,
        max_iterations=max_iterations,
    ).x


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
