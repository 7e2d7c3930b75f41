"""The verb ``invert``: traces, operator and a starting model in; models with error bars out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from invdiff.errors import InputError, NoiseLevelError, ShapeError, UnsupportedError
from invdiff.fwi.annealed import AnnealedPosterior
from invdiff.fwi.classic import LBFGS
from invdiff.fwi.drive import descend
from invdiff.fwi.method import Method, Setting
from invdiff.fwi.misfit import Misfit
from invdiff.fwi.objective import Objective
from invdiff.fwi.state import InversionState
from invdiff.fwi.weighting import misfit_weights
from invdiff.grid import Grid
from invdiff.linalg import squared_norm
from invdiff.noise import NoiseField
from invdiff.protocols import Prior, WaveOperator
from invdiff.provenance import describe
from invdiff.samplers.drive import member_numbers

__all__ = ["invert", "noise_level"]


def invert(
    y: xr.DataArray,
    operator: WaveOperator,
    prior: Prior | None = None,
    *,
    start: xr.DataArray,
    seed: int,
    method: Method | None = None,
    realizations: int | Sequence[int] = 8,
    noise_std: float | None = None,
    misfit: Misfit | None = None,
    weights: xr.DataArray | None = None,
    max_solves: int = 1500,
    stop_at: float | None = None,
    is_weighted: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Full waveform inversion: models that explain traces, and how unsure they are.

    Args:
        y: traces ``(shot, receiver, time)`` on the operator's range.
        operator: such as `invdiff.operators.seismic.Acoustic`.
        prior: of the models, on the operator's domain; None for classical inversion.
        start: model ``(z, x)``, m/s, or one for each member ``(realization, z, x)``.
        seed: of all randomness; a member depends on ``seed`` and its own number only.
        method: default ``AnnealedPosterior()`` with a prior, which draws, ``LBFGS()`` without one.
            Optimisers (``LBFGS``, ``Adam``, ``REDDiffusion``, ``AnnealedMode``) give one model from
            one start: their members are restarts, whose spread is no uncertainty.
        realizations: how many members, or their numbers.
        noise_std: of a sample, the errors of the modelling included; default
            ``y.attrs["noise_std"]``.
        misfit: of the traces instead of the squared residual over the noise.
        weights: of the traces, over any of their dims; 0 leaves out: source, receiver, time mutes.
        max_solves: forward solves a member, each with one adjoint solve. The last prediction, one
            forward solve a shot, comes on top.
        stop_at: normalised misfit at which to stop; None to use all steps or the budget.
        is_weighted: weight mean and std by ``exp(-misfit)``, tempered so that half of the members
            count: for an ensemble of starts, some of which were caught by wrong minima.
        checkpoint: file from which a run goes on, and to which its state is written.
        progress: show a progress bar.

    Returns:
        A Dataset with ``velocity (realization, z, x)``, ``mean``, ``std``, ``data_misfit
        (realization)`` (1 is expected), ``shot_misfit (realization, shot)``, ``misfit_history
        (realization, iteration)``, ``solves (iteration)``, ``weight (realization)`` and attributes
        that tell how it was made, ``invdiff_forward_solves`` and ``invdiff_adjoint_solves`` of all
        members among them.

    Raises:
        ShapeError: traces, start, weights or prior that do not fit the operator.
        NonFiniteError: NaN or Inf among them.
        InputError: a start out of bounds, or a budget too small.
        NoiseLevelError: no noise level, or one that is not positive.
        UnsupportedError: a method that needs a prior without one.
    """
    members = member_numbers(realizations)
    method = method or (LBFGS() if prior is None else AnnealedPosterior())
    _check_prior(method, prior, operator)
    noise = noise_level(y, noise_std)
    data = operator.range.to_tensor(y, name=f"data {y.name!r}")
    mute = None if weights is None else _weights(weights, operator.range)
    objective = Objective.gaussian(operator, data, noise, misfit=misfit, weights=mute)
    setting = Setting(
        objective, prior, _starts(start, operator, members), NoiseField(seed), members
    )
    run = {
        "method": repr(method),
        "members": members,
        "seed": seed,
        "operator": repr(operator),
        "noise_std": noise,
        "misfit": repr(objective.misfit),
        "prior": describe(prior, {})["invdiff_prior"],
        "traces, weights and start": _digest(data, mute, setting.start),
    }
    states = descend(
        method,
        setting,
        max_solves=max_solves,
        stop_at=stop_at,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        run=run,
    )
    state = _last(states, method.steps * objective.n_shots, max_solves, is_shown=progress)
    by_shot, counts = _shot_misfits(state.x, data, operator, noise_std=noise, weights=mute)
    settings = {"seed": seed, "method": method, "operator": operator, "noise_std": noise}
    settings |= {"misfit": objective.misfit, "iterations": state.step}
    solves = _solves(state, len(members), objective.n_shots)
    attrs = describe(prior if method.needs_prior else None, settings | solves)
    return _dataset(
        state, by_shot, counts, operator=operator, members=members, is_weighted=is_weighted,
        attrs=attrs,
    )  # fmt: skip


def _last(
    states: Iterator[InversionState], n_solves: int, max_solves: int, *, is_shown: bool
) -> InversionState:
    """Run to the end, with a progress bar over the start and ``n_solves`` of the steps."""
    with tqdm(disable=not is_shown, unit="solve") as bar:
        for state in states:
            bar.total = bar.total or min(max_solves, state.solves + n_solves)
            bar.update(state.solves - bar.n)
            bar.set_postfix(misfit=f"{float(state.misfit[:, -1].mean()):.3f}", refresh=False)
    return state


def _solves(state: InversionState, n_members: int, n_shots: int) -> dict[str, object]:
    """Solves of all members, the last prediction of each included."""
    shared = int(state.memory.get("shared_solves", 0))  # of a fit that is made once for all
    adjoint = shared + n_members * (state.solves - shared)
    return {"forward_solves": adjoint + n_members * n_shots, "adjoint_solves": adjoint}


def _check_prior(method: Method, prior: Prior | None, operator: WaveOperator) -> None:
    if prior is None and method.needs_prior:
        raise UnsupportedError(
            f"{type(method).__name__} needs a prior",
            got="none",
            expected="such as hub.load_prior('velocity-2d', grid=operator.domain)",
            hint="Without one take LBFGS() or Adam().",
        )
    if prior is not None and prior.grid.shape != operator.domain.shape:
        raise ShapeError(
            "the prior is of other models than the operator's",
            got=prior.grid.shape,
            expected=operator.domain.shape,
            hint="Put it on their grid: prior.on(operator.domain).",
        )


def noise_level(y: xr.DataArray, noise_std: float | None) -> float:
    """``noise_std``, or that of the traces.

    Raises:
        NoiseLevelError: neither is given, or it is not positive.
    """
    noise = y.attrs.get("noise_std") if noise_std is None else noise_std
    if noise is None or not 0 < float(noise) < np.inf:
        raise NoiseLevelError(
            "no usable noise level",
            got=noise,
            expected="noise_std=... or y.attrs['noise_std'], in the units of the traces, > 0",
            hint="For data without noise give the error of the modelling, a few percent of their"
            " standard deviation.",
        )
    return float(noise)


def _weights(weights: xr.DataArray, grid: Grid) -> Tensor:
    """As a tensor that broadcasts to the traces."""
    unknown = set(map(str, weights.dims)) - set(grid.dims)
    sizes = dict(zip(grid.dims, grid.shape, strict=True))
    if unknown or any(weights.sizes[d] != sizes[str(d)] for d in weights.dims):
        raise ShapeError(
            "weights do not fit the traces", got=dict(weights.sizes), expected=f"some of {sizes}"
        )
    absent = {d: 1 for d in grid.dims if d not in weights.dims}
    full = weights.expand_dims(absent).transpose(*grid.dims)
    return torch.from_numpy(np.array(full.values)).to(grid.dtype)


def _digest(*tensors: Tensor | None) -> str:
    arrays = [t.numpy() for t in tensors if t is not None]
    return sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def _starts(start: xr.DataArray, operator: WaveOperator, members: Sequence[int]) -> Tensor:
    """``(batch, nz, nx)`` within the bounds."""
    if "realization" in start.dims:
        if start.sizes["realization"] != len(members):
            raise ShapeError(
                "starts and members differ in number",
                got=start.sizes["realization"],
                expected=len(members),
            )
        ordered = start.transpose("realization", ...)
        models = [operator.domain.to_tensor(s, name="start") for s in ordered]
        x = torch.stack(models)
    else:
        one = operator.domain.to_tensor(start, name="start")
        x = one.expand(len(members), *one.shape).clone()
    low, high = float(x.min()), float(x.max())
    if low < operator.bounds[0] or high > operator.bounds[1]:
        raise InputError(
            "the starting model is out of bounds",
            got=f"{low:g} to {high:g}",
            expected=f"{operator.bounds[0]:g} to {operator.bounds[1]:g} m/s",
            hint="It looks like km/s: multiply it by 1000." if high < 20 else "Clip it yourself.",
        )
    return x


def _shot_misfits(
    x: Tensor, y: Tensor, operator: WaveOperator, *, noise_std: float, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums of squared weighted residuals over the noise and numbers of samples, by shot."""
    w = torch.ones((), dtype=y.dtype) if weights is None else weights
    sums = []
    with torch.no_grad():
        for model in x:
            residual = w * (operator(model[None])[0] - y) / noise_std
            sums.append(squared_norm(residual.double()))
    counts = squared_norm(w.expand(y.shape).double())
    return torch.stack(sums), counts


def _dataset(
    state: InversionState,
    by_shot: Tensor,
    counts: Tensor,
    *,
    operator: WaveOperator,
    members: Sequence[int],
    is_weighted: bool,
    attrs: dict[str, Any],
) -> xr.Dataset:
    grid = replace(operator.domain, units="m s-1")
    models = grid.to_dataarray(
        state.x, "velocity", leading={"realization": members},
        attrs={"long_name": "P-wave velocity"},
    )  # fmt: skip
    models.realization.attrs = {"standard_name": "realization", "units": "1"}
    misfit = by_shot.sum(1) / counts.sum()
    n = len(members)
    weight = misfit_weights(by_shot.sum(1)) if is_weighted else np.full(n, 1 / n)
    weighted = models.weighted(xr.DataArray(weight, dims="realization"))
    mean = weighted.mean("realization")
    # Unbiased for equal weights; the effective number takes the place of n for others.
    effective = 1 / float(np.square(weight).sum())
    correction = effective / (effective - 1) if effective > 1 + 1e-9 else np.nan
    std = (weighted.var("realization") * correction) ** 0.5
    labels = {"long_name": "normalised data misfit, expected 1", "units": "1"}
    return xr.Dataset(
        {
            "velocity": models,
            "mean": mean.assign_attrs(
                units="m s-1", long_name="mean velocity", cell_methods="realization: mean"
            ),
            "std": std.assign_attrs(
                units="m s-1",
                long_name="standard deviation of the velocity",
                cell_methods="realization: standard_deviation",
            ),
            "data_misfit": ("realization", misfit.numpy(), labels),
            "shot_misfit": (("realization", "shot"), (by_shot / counts).numpy(), labels),
            "misfit_history": (("realization", "iteration"), state.misfit.numpy(), labels),
            "solves": ("iteration", state.spent.numpy(), {"long_name": "forward solves a member"}),
            "weight": ("realization", weight, {"long_name": "weight in mean and std"}),
        },
        attrs=attrs,
    )
