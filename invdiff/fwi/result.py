"""The labelled result of an inversion: models, and how well they explain the traces."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff.data_fit import warn_of_misfit
from invdiff.errors import DataFitWarning
from invdiff.fwi.inputs import Traces
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.misfit.source import with_fitted_source
from invdiff.fwi.objective import Objective
from invdiff.fwi.state import InversionState
from invdiff.fwi.weighting import misfit_weights
from invdiff.linalg import squared_norm
from invdiff.result import ensemble_dataset, provenance

__all__ = ["labelled_result"]

_STRAY = 1.5  # times the least misfit, or 1
_AT_ONCE = 8  # models whose predictions are in memory at the same time


def labelled_result(
    method: Method,
    setting: Setting,
    state: InversionState,
    *,
    traces: Traces,
    is_weighted: bool | None,
    noted: Mapping[str, object],
) -> xr.Dataset:
    """The labelled models, and how well they explain the traces.

    Args:
        method: Method that ran.
        setting: What it worked on.
        state: Its last state.
        traces: Traces, noise level and weights.
        is_weighted: Whether to weight the members by their misfit in mean and std; None where some
            fit much worse than the others.
        noted: Further attributes.

    Warns:
        DataFitWarning: A data misfit far from 1, or members that fit much worse than the others.
    """
    objective, members = setting.objective, setting.members
    by_shot, counts = _shot_misfits(state.x, traces, objective)
    misfit = by_shot.sum(1) / counts.sum()
    strays = _strays(misfit, members)
    is_weighted = bool(strays) if is_weighted is None else is_weighted
    if strays:
        _warn_of_strays(strays, misfit, is_weighted=is_weighted)
    weight = misfit_weights(by_shot.sum(1)) if is_weighted else None
    settings: dict[str, object] = {
        "seed": setting.noise.seed,
        "method": method,
        "operator": objective.operator,
        "noise_std": traces.noise_std,
        "misfit": objective.misfit,
        "iterations": state.step,
        "data_fit": warn_of_misfit(misfit, _effective_number(traces), stacklevel=4),
        **_solves(state, len(members), objective.n_shots),
        **noted,
        **({"strays": strays} if strays else {}),
    }
    result = ensemble_dataset(
        state.x,
        misfit,
        replace(objective.operator.domain, units="m s-1"),
        numbers=members,
        name="velocity",
        long_name="P-wave velocity",
        weight=weight,
        attrs=provenance(setting.prior if method.needs_prior else None, settings),
    )
    return _with_history(result, state, by_shot / counts, weight)


def _strays(misfit: Tensor, members: Sequence[int]) -> list[int]:
    """Numbers of the members that ended in another minimum than the best."""
    limit = _STRAY * max(1.0, float(misfit.min()))
    return [member for member, own in zip(members, misfit.tolist(), strict=True) if own > limit]


def _warn_of_strays(strays: Sequence[int], misfit: Tensor, *, is_weighted: bool) -> None:
    count = "They count less in mean and std" if is_weighted else "They count like the others"
    warnings.warn(
        f"Members {', '.join(map(str, strays))} explain the data much worse than the best: misfits"
        f" up to {float(misfit.max()):.3g}, {float(misfit.min()):.3g} of the best. {count}; more"
        " solves, or bands that begin at a lower frequency, may bring them nearer.",
        DataFitWarning,
        stacklevel=5,
    )


def _solves(state: InversionState, n_members: int, n_shots: int) -> dict[str, object]:
    """Solves of all members, with the check of the start and the last prediction of each."""
    shared = int(state.memory.get("shared_solves", 0))  # of a fit that is made once for all
    adjoint = shared + n_members * (state.solves - shared)
    forward = adjoint + (n_members + 1) * n_shots  # the check of the start is one more
    return {"forward_solves": forward, "adjoint_solves": adjoint}


def _effective_number(traces: Traces) -> float:
    """Of the samples in the misfit: as many that count alike have the same chance variations."""
    if traces.weights is None:
        return float(traces.data.numel())
    squares = traces.weights.double().square().expand(traces.data.shape)
    return float(squares.sum() ** 2 / squares.square().sum())


def _shot_misfits(x: Tensor, traces: Traces, objective: Objective) -> tuple[Tensor, Tensor]:
    """Sums of squared weighted residuals over the noise and numbers of samples, by shot."""
    y = traces.data
    w = torch.ones_like(y[:1, :1, :1]) if traces.weights is None else traces.weights
    sums = []
    with torch.no_grad():
        for models in x.split(_AT_ONCE):
            for predicted in objective.operator(models):
                predicted = with_fitted_source(objective.misfit, predicted, y)
                residual = w * (predicted - y) / traces.noise_std
                sums.append(squared_norm(residual.double()))
    counts = squared_norm(w.expand(y.shape).double())
    return torch.stack(sums), counts


def _with_history(
    result: xr.Dataset, state: InversionState, shot_misfit: Tensor, weight: np.ndarray | None
) -> xr.Dataset:
    """The result with what belongs to an inversion alone."""
    n = result.sizes["realization"]
    equal = np.full(n, 1 / n)
    labels = {"long_name": "normalised data misfit, expected 1", "units": "1"}
    spent = {"long_name": "forward solves per member"}
    return result.assign(
        shot_misfit=(("realization", "shot"), shot_misfit.cpu().numpy(), labels),
        misfit_history=(("realization", "iteration"), state.misfit.cpu().numpy(), labels),
        solves=("iteration", state.spent.cpu().numpy(), spent),
        weight=(
            "realization",
            equal if weight is None else weight,
            {"long_name": "weight in mean and std"},
        ),
    )
