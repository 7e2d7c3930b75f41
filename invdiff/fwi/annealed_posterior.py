"""Posterior draws at falling noise levels, around a fit that all members share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import torch
from torch import Tensor

from invdiff.errors import InputError
from invdiff.fwi.annealed import AnnealedMode, Fit
from invdiff.fwi.classic import LBFGS
from invdiff.fwi.method import Setting, noised
from invdiff.fwi.scatter import (
    antithetic,
    deviations,
    error_of_fit,
    level_with_deviations,
    tempered,
)
from invdiff.fwi.state import InversionState
from invdiff.grid import Grid
from invdiff.noise import InversionStream

__all__ = ["AnnealedPosterior"]

_FIRST_LEVEL = 2.0  # times the estimated error of the fit
_RISE = 2.0  # of the normalised misfit, at most, where members begin: levels take it away again


@dataclass(frozen=True)
class AnnealedPosterior(AnnealedMode):
    """One draw from the posterior per member, at falling noise levels; the default with a prior.

    The wave solver is applied to clean models, never to noisy states. At a level ``sigma`` a member
    ``x`` is noised and denoised, which gives the prior's expectation of nearby models, ``N(m, C)``
    with ``m = E[x_0|x_t]``, ``C = Cov[x_0|x_t]``. The next ``x`` minimises the randomised objective
    (randomise, then optimise: Bardsley et al. 2014, doi 10.1137/140964023)::

        f(x) / T - e_y . x + |C^(-1/2) (x - m) - e_x|^2 / 2,    e_y ~ N(0, B / T), e_x ~ N(0, I)

    for one quasi-Newton step: ``f`` is replaced by its quadratic model with the curvature ``B``
    estimated from all gradients so far, those of the fit too, ``C`` is exact, and the quadratic is
    solved by conjugate gradients, which take no wave solve. So every level takes a single gradient.
    ``e_y`` is what noise of the data would add to the gradient, drawn from the curvature instead of
    through the operator. ``T = max(1, 2 f / n_data)`` makes the noise as large as the residual
    while a model cannot explain the data: the profile likelihood of an unknown noise level. The
    first curvature is a Gauss-Newton Hessian of stationary correlation, estimated by pulling back
    white data (`Objective.hessian`).

    An `AnnealedMode`, and before it a classical fit, come first: from the starting model itself, 50
    levels were too few. Members share the fit and begin around it, at draws of the prior less their
    expectation (`scatter.deviations`), as far apart as the fit may be wrong: twice the difference
    between the two fits (`scatter.error_of_fit`). They are stiffer where the data tell more, so
    that the misfit rises by no more than the levels take away again (`scatter.tempered`), and no
    member begins cycle-skipped where the fit is not.

    Assumptions: independent Gaussian noise of known level, modelling errors included, and a start
    within half a period. With linear data and an exact prior the draws are those of the posterior
    (``tests/fwi/test_invert.py``). In full waveform inversion most of the error of a fit is that of
    a local minimum and of the modelling and not of noise, which is why members do not begin at it;
    ``benchmarks/fwi.py`` states how far the intervals hold.

    Members come in pairs with opposite noise (``2 k`` and ``2 k + 1``), which makes their mean more
    accurate. A member alone is a draw like any other, and depends on its own number only.

    Cost: the fit, shared by all members with equal starts; then per member one evaluation (a
    forward and an adjoint solve per shot) and one per level, with one network pass.

    Args:
        steps: Number of noise levels.
        highest: Largest first noise level, m/s; it is twice the estimated error of the fit if that
            is less, and the scatter not 0.
        lowest: Last noise level, m/s.
        bands: Pairs ``(noise level, frequency)`` in m/s and Hz, as of `AnnealedMode`.
        shots: Choice of the shots that a step uses.
        memory: Number of pairs of changes of model and gradient that determine the curvature.
        damping: Factor on the curvature in the first steps; it falls while the quadratic model
            predicts the misfit.
        max_iterations: Largest number of conjugate-gradient steps of a level.
        fit: Method that finds the model around which members are scattered; None for the start.
        scatter: Root mean square, m/s, of the deviations from the fit at which members begin. By
            default the estimated error of the fit; deviations at the noise level
            ``highest`` where it cannot be estimated, for want of an `AnnealedMode` that all members
            share. 0 to begin at the fit.

    Raises:
        InputError: `AnnealedMode` refuses the settings, or the scatter is negative.

    Example:
        >>> from invdiff.fwi import AnnealedPosterior
        >>> AnnealedPosterior(steps=4, highest=200.0, lowest=25.0).levels  # m/s
        array([200., 100.,  50.,  25.])
        >>> method = AnnealedPosterior.within(100, bands=(6.0, 10.0))  # gradients per member
        >>> method.steps, method.fit.steps, method.fit.fit
        (15, 33, LBFGS(steps=42, bands=(6.0, 10.0), terms=(), shots=AllShots(), memory=10))
    """

    highest: float = 200.0
    fit: LBFGS | AnnealedMode | None = field(default_factory=AnnealedMode)
    scatter: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scatter is not None and self.scatter < 0:
            raise InputError(
                "the scatter is negative", got=f"scatter={self.scatter:g}", expected=">= 0, in m/s"
            )

    @classmethod
    def within(cls, n_gradients: int, *, bands: tuple[float, ...] = ()) -> Self:
        """The method with the steps that ``n_gradients`` per member allow.

        A quarter of them are a member's own, up to 16, or else a sixteenth; the fit that members
        share has the rest: the mean of members is hardly better than their fit.

        Args:
            n_gradients: Evaluations per member, each a forward and an adjoint solve per shot.
            bands: Frequencies of the fit in Hz, rising.
        """
        own = max(n_gradients // 16, min(n_gradients // 4, 16))
        fit = AnnealedMode.within(n_gradients - own, bands=bands)
        return cls(steps=max(own - 1, 1), fit=fit)

    def init(self, setting: Setting) -> InversionState:
        """Members around the fit, with their misfit and curvature."""
        if self.scatter == 0:
            return super().init(setting)
        fit = self.fitted(setting)
        error = None
        if fit.is_shared and fit.origin is not None:
            error = float(error_of_fit(fit.origin, fit.x))
        first = self.highest if error is None else min(self.highest, _FIRST_LEVEL * error)
        first = max(first, self.lowest)
        x, n_solves = self._scattered(setting, fit, error), fit.n_solves
        curvature, damping = fit.curvature, fit.x.new_full((len(fit.x),), self.damping).double()
        if curvature is None:
            curvature, damping = self._first_curvature(setting, x)
            n_solves += setting.objective.n_shots
        return self._begun(
            setting, x, curvature=curvature, damping=damping, n_solves=n_solves,
            n_shared=fit.n_solves if fit.is_shared else 0, first_level=first,
        )  # fmt: skip

    def _scattered(self, setting: Setting, fit: Fit, error: float | None) -> Tensor:
        """Models around the fit, ``(batch, nz, nx)``."""
        prior = setting.prior
        assert prior is not None

        def noise(members: Sequence[int]) -> dict[str, Tensor]:
            own = setting._replace(members=members)
            draw = partial(self._noise, own, prior.grid, stream=InversionStream.SCATTER)
            return {"e_t": draw(0), "e_x": draw(1)}

        rms = error if self.scatter is None else self.scatter
        x, members = fit.x.expand_as(setting.start), list(setting.members)
        alone = zip(x.split(1), [[m] for m in members], strict=True)
        parts = []
        for models, own in [(x, members)] if fit.is_shared else alone:
            level = self.highest
            if rms is not None:
                # With the noise of member 0, whichever are drawn: all have the same level.
                level = level_with_deviations(prior, models[:1], rms, **noise([0]))
            d = deviations(prior, models, level, **noise(own))
            parts.append(self._explained(setting, fit, models, d=d, level=level))
        return torch.cat(parts).clamp(*setting.objective.bounds)

    def _explained(
        self, setting: Setting, fit: Fit, x: Tensor, *, d: Tensor, level: float
    ) -> Tensor:
        """Models ``x + d`` after what the levels could not make the data explain is taken away."""
        if not fit.is_shared or fit.curvature is None or not setting.objective.has_data:
            return x + d
        prior = setting.prior
        assert prior is not None
        with torch.no_grad():
            clean, t = noised(prior, x, level, e=torch.zeros_like(x))
            _, covariance = prior.moments(clean, t)
            rise = _RISE * setting.objective.n_data / 2
            return x + tempered(d, covariance, fit.curvature.expand(len(x)), rise=rise)

    def _noise(self, setting: Setting, grid: Grid, step: int, *, stream: int) -> Tensor:
        members = list(setting.members)
        drawn = antithetic(setting.noise, grid, members, step=step, stream=stream)
        return drawn.to(setting.start)
