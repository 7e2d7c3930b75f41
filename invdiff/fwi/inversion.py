"""The verb ``invert``: traces, operator and a starting model in; models with error bars out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from invdiff.arguments import as_integer, as_number, as_path
from invdiff.errors import ShapeError, UnsupportedError
from invdiff.fwi.annealed_posterior import AnnealedPosterior
from invdiff.fwi.bands import first_band
from invdiff.fwi.classic import LBFGS
from invdiff.fwi.drive import descend
from invdiff.fwi.inputs import Traces, given_data, given_starts, given_traces
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.misfit import Misfit
from invdiff.fwi.objective import Objective
from invdiff.fwi.result import labelled_result
from invdiff.fwi.start import check_start
from invdiff.fwi.state import InversionState
from invdiff.grid import Grid
from invdiff.inputs import as_device, moved
from invdiff.noise import NoiseField
from invdiff.noise_levels import GivenNoise
from invdiff.protocols import Prior, Problem, WaveOperator
from invdiff.run_state import identity
from invdiff.samplers.drive import member_numbers
from invdiff.stepwise import to_the_end

__all__ = ["SOLVES", "default_method", "invert"]

SOLVES = 300  # forward solves for each shot by default


def invert(
    y: xr.DataArray | Problem,
    operator: WaveOperator | None = None,
    prior: Prior | None = None,
    *,
    start: xr.DataArray | None = None,
    seed: int,
    method: Method | None = None,
    realizations: int | Sequence[int] = 8,
    noise_std: GivenNoise | None = None,
    misfit: Misfit | None = None,
    weights: xr.DataArray | None = None,
    max_solves: int | None = None,
    stop_at: float | None = None,
    is_weighted: bool | None = None,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Full waveform inversion: models that explain traces, and how uncertain they are.

    Traces that are dead (constant or NaN) and NaN at their ends are left out, counted in the
    attributes and reported in a warning. The first prediction is compared with the data: amplitudes
    that differ by more than a factor of two and a cycle-skipped start are reported, too; so is a
    data misfit of the members that is far from 1.

    Args:
        y: Traces ``(shot, receiver, time)`` on the operator's range; or a `Problem`, as
            `invdiff.operators.seismic.acoustic_problem` makes it, which brings its operator, noise,
            weights and start: ``invert(problem, prior=prior, seed=0)``.
        operator: Such as `invdiff.operators.seismic.Acoustic`.
        prior: Prior of the models, on the operator's domain; None for classical inversion.
        start: Model ``(z, x)``, m/s, or one for each member ``(realization, z, x)``. Default: that
            of the problem.
        seed: Seed of all randomness; a member depends on ``seed`` and its own number only, where
            all have the same start.
        method: Default by :func:`default_method`: ``AnnealedPosterior`` with a prior, which draws,
            ``LBFGS`` without one, with the steps that ``max_solves`` pays for. Optimisers
            (``LBFGS``, ``Adam``, ``REDDiffusion``, ``AnnealedMode``) find one model from one start:
            their members are restarts, whose spread is not an uncertainty.
        realizations: How many members, or their numbers.
        noise_std: Standard deviation of a sample, the errors of the modelling included, in the
            units of ``y``: a number, or an array or DataArray that broadcasts to ``y``. Default:
            that of the problem, or ``y.attrs["noise_std"]``.
        misfit: Of the traces instead of half the squared residual over the noise.
        weights: Of the traces, over any of their dims; 0 leaves out: source, receiver, time mutes.
            They multiply those of the problem, if it has any.
        max_solves: Forward solves per member, each with one adjoint solve; by default 300 for each
            shot. Surveys of many shots can use `Minibatch` steps. The check of the start
            and the last prediction, one forward solve per shot each, come on top.
        stop_at: Normalised misfit of all data at which an optimiser stops; None to use all steps or
            the budget.
        is_weighted: Whether to weight mean and std by ``exp(-misfit)``, tempered so that half of
            the members count: for an ensemble of starts, some of which ended in wrong minima. By
            default where a misfit is more than 1.5 times the smallest one (or 1, if that is less).
        device: Where the prior is evaluated and the models live, such as ``"cuda"``; operator and
            prior are moved there if they can be. The wave fields of `Deepwave` follow the models,
            all models and shots in one call unless its ``shots_per_call`` bounds them; Devito's
            stay on the CPU. ``LBFGS`` and ``Adam`` solve for one member after another.
        checkpoint: File to which the run is stored after each step, and from which it is resumed
            if it exists; a file of another run is refused. A fit that comes first has the file of
            this name with ``.fit`` until it is done.
        progress: Whether to show a progress bar.

    Returns:
        A Dataset with ``velocity (realization, z, x)``, ``mean``, ``std``, ``data_misfit
        (realization)`` (1 is expected), ``shot_misfit (realization, shot)``, ``misfit_history
        (realization, iteration)``, ``solves (iteration)``, ``weight (realization)`` and provenance
        attributes, ``invdiff_forward_solves`` and ``invdiff_adjoint_solves`` of all members among
        them, at most these where line searches differ. The history of ``Adam`` and ``REDDiffusion``
        is that of the models before each step.

    Raises:
        ShapeError: Traces, start, weights or prior that do not fit the operator.
        NonFiniteError: NaN or Inf in start or weights, Inf in the traces, or NaN inside of them.
        InputError: A start out of bounds, all traces dead, a budget too small, or a checkpoint of
            another run.
        NoiseLevelError: No noise level, or one that is not positive.
        UnsupportedError: A method that needs a prior without one, or objects of the wrong kind.

    Warns:
        DataWarning: Dead traces, amplitudes of data and prediction that differ, a start that is
            cycle-skipped.
        DataFitWarning: A data misfit far from 1, or members that fit much worse than the others.

    Examples:
        A step in depth, from a constant start and without a prior:

        >>> import numpy as np
        >>> import torch
        >>> import invdiff
        >>> from invdiff.fwi import LBFGS
        >>> from invdiff.operators.seismic import Acoustic, Boundary, Survey, ricker
        >>> receivers = [(10.0, 20.0 * i) for i in range(11)]
        >>> survey = Survey([(10.0, 100.0)], receivers, ricker(15.0, 0.002, 150), 0.002)
        >>> axes = {dim: 10.0 * np.arange(21) for dim in ("z", "x")}
        >>> domain = invdiff.Grid(("z", "x"), (21, 21), torch.float32, axes, "m s-1")
        >>> operator = Acoustic(survey, domain, bounds=(1400.0, 3000.0), boundary=Boundary(10))
        >>> truth = torch.full((21, 21), 2000.0)
        >>> truth[12:] = 2200.0
        >>> traces = operator(truth[None])[0]
        >>> y = operator.range.to_dataarray(traces, "pressure", attrs={"noise_std": 0.001})
        >>> start = domain.to_dataarray(torch.full((21, 21), 2000.0), "velocity")
        >>> method = LBFGS(steps=4)
        >>> models = invdiff.invert(
        ...     y, operator, start=start, seed=0, method=method, realizations=1
        ... )
        >>> bool(models["misfit_history"][0, -1] < 0.9 * models["misfit_history"][0, 0])
        True
    """
    members, seed = member_numbers(realizations), as_integer("seed", seed, least=0)
    stop_at = None if stop_at is None else as_number("stop_at", stop_at)
    where = as_device(device)
    given = given_traces(y, operator, prior, weights=weights)
    waves = moved(cast(WaveOperator, given.operator), where)
    prior = None if prior is None else moved(prior, where)
    n_shots = waves.range.shape[0]
    max_solves = as_integer("max_solves", SOLVES * n_shots if max_solves is None else max_solves)
    method = method or default_method(prior, max_solves // n_shots)
    if stop_at is not None and isinstance(method, AnnealedPosterior):
        raise UnsupportedError(
            "draws end at their last noise level, not at a misfit",
            got=f"stop_at={stop_at:g}",
            expected="stop_at=None, or an optimiser such as AnnealedMode()",
            hint="Fewer solves: max_solves.",
        )
    _check_method(method, prior, waves)
    _check_misfit(misfit)
    traces = given_data(y, given, noise_std, device=where)
    starts = given_starts(given.start if start is None else start, waves, members).to(where)
    objective = Objective.gaussian(
        waves, traces.data, traces.noise_std, misfit=misfit, weights=traces.weights
    )
    noted = traces.notes | check_start(
        waves, starts[0], traces.data, noise_std=traces.noise_std, weights=traces.weights,
        frequency=first_band(method), misfit=objective.misfit,
    )  # fmt: skip
    setting = Setting(objective, prior, starts, NoiseField(seed), members)
    states = descend(
        method,
        setting,
        max_solves=max_solves,
        stop_at=stop_at,
        checkpoint=None if checkpoint is None else as_path("checkpoint", checkpoint),
        run=_identity(method, setting, traces),
    )
    state = _last(states, method.steps * objective.n_shots, max_solves, is_shown=progress)
    return labelled_result(
        method, setting, state, traces=traces, is_weighted=is_weighted, noted=noted
    ).assign_attrs(invdiff_device=str(device))


def default_method(
    prior: Prior | None, n_gradients: int, *, bands: tuple[float, ...] = ()
) -> Method:
    """The method of `invert` when none is named, for verb and command line alike.

    Args:
        prior: with one, ``AnnealedPosterior``; None for ``LBFGS``.
        n_gradients: that the budget pays for, per member: forward solves over shots.
        bands: frequencies in Hz, rising, below which data are inverted first.
    """
    if prior is None:
        return LBFGS(steps=max(n_gradients, 1), bands=bands)
    return AnnealedPosterior.within(n_gradients, bands=bands)


def _last(
    states: Iterator[InversionState], n_solves: int, max_solves: int, *, is_shown: bool
) -> InversionState:
    """Run to the end, with a progress bar over the start and ``n_solves`` of the steps."""
    with tqdm(disable=not is_shown, unit="solve") as bar:

        def work(state: InversionState) -> int:
            bar.total = bar.total or min(max_solves, state.solves + n_solves)
            bar.set_postfix(misfit=f"{float(state.misfit[:, -1].mean()):.3f}", refresh=False)
            return state.solves

        return to_the_end(states, bar, work)


def _identity(method: Method, setting: Setting, traces: Traces) -> dict[str, str]:
    """What identifies the run."""
    objective = setting.objective
    return identity(
        {
            "data": traces.data,
            "weights": traces.weights,
            "noise_std": traces.noise_std,
            "start": setting.start,
            "operator": objective.operator,
            "prior": setting.prior,
            "method": method,
            "misfit": objective.misfit,
            "members": list(setting.members),
            "seed": setting.noise.seed,
        }
    )


def _check_method(method: Any, prior: Prior | None, operator: WaveOperator) -> None:
    is_method = all(hasattr(method, name) for name in ("step", "cost", "needs_prior"))
    if isinstance(method, str | type) or not is_method:
        raise UnsupportedError(
            "this is not a method of inversion",
            got=repr(method),
            expected="an object such as LBFGS(steps=100)",
            hint="Methods are objects of invdiff.fwi; leave it out for the default.",
        )
    if prior is None and method.needs_prior:
        raise UnsupportedError(
            f"{type(method).__name__} needs a prior",
            got="none",
            expected="such as invdiff.load_prior('velocity-2d', grid=operator.domain)",
            hint="Without one use LBFGS() or Adam().",
        )
    domain = operator.domain
    if prior is not None and not _is_on(prior, domain):
        raise ShapeError(
            "the prior is on another grid than the operator's models",
            got=_described(prior.grid),
            expected=_described(domain),
            hint="Put it on their grid: prior.on(operator.domain).",
        )


def _is_on(prior: Prior, domain: Grid) -> bool:
    """Whether a prior is on a grid; its coordinates count where both have them."""
    own = prior.grid
    if (own.dims, own.shape) != (domain.dims, domain.shape):
        return False
    both = own.coords.keys() & domain.coords.keys()
    return all(_is_equal(np.asarray(own.coords[d]), np.asarray(domain.coords[d])) for d in both)


def _is_equal(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether coordinates agree to a hundredth of their step."""
    step = float(np.abs(np.diff(second)).min()) if len(second) > 1 else 1.0
    return bool(np.abs(first - second).max() <= 0.01 * step)


def _described(grid: Grid) -> str:
    ends = ", ".join(f"{d} {v[0]:g} to {v[-1]:g}" for d, v in grid.coords.items())
    return f"{grid.dims} of shape {grid.shape}{', ' if ends else ''}{ends}"


def _check_misfit(misfit: object) -> None:
    if misfit is not None and (isinstance(misfit, str | type) or not hasattr(misfit, "shots")):
        raise UnsupportedError(
            "this is not a misfit of traces",
            got=repr(misfit),
            expected="an object such as L2(noise_std)",
            hint="Misfits are objects of invdiff.fwi; your own derives from invdiff.fwi.Misfit.",
        )
