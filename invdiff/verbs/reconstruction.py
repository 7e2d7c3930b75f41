"""The verb ``reconstruct``: data, operator and prior in; a labelled posterior ensemble out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

from invdiff.conditioning import Conditioning
from invdiff.errors import InputError, NoiseLevelError
from invdiff.grid import Grid
from invdiff.likelihood import AxisCovariance, Gaussian, NoiseModel
from invdiff.needs import warn_if_narrow
from invdiff.posterior import Posterior
from invdiff.protocols import Operator, Prior, Sampler, Term
from invdiff.provenance import describe
from invdiff.samplers import Ensemble, default_sampler, ensemble
from invdiff.samplers.base import UsesTerms
from invdiff.samplers.drive import member_numbers

__all__ = ["reconstruct"]


def reconstruct(
    y: xr.DataArray,
    operator: Operator,
    prior: Prior,
    *,
    realizations: int | Sequence[int] = 16,
    seed: int,
    noise_std: NoiseModel | None = None,
    scale: float = 1.0,
    terms: Sequence[Term] = (),
    sampler: Sampler | None = None,
    conditioning: Conditioning | None = None,
    batch_size: int = 8,
    name: str = "image",
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> xr.Dataset:
    """Draw an ensemble from the posterior ``p(x | y)`` for ``y = A(x) + noise``.

    Args:
        y: data on the operator's range.
        operator: forward operator; its domain must be the prior's grid.
        prior: of the field.
        realizations: how many members, or their numbers.
        seed: of all randomness; a member depends on ``seed`` and its own number only.
        noise_std: standard deviation of the noise in the units of ``y`` (for complex data
            ``E|n|^2 = noise_std^2``), or another noise model; default ``y.attrs["noise_std"]``.
        scale: units of ``y`` in which the field has the prior's units; the data are divided by it
            and the result is multiplied by it.
        terms: further terms of the posterior, on fields in the prior's units.
        sampler: default by :func:`invdiff.samplers.default_sampler`: ``TwistedSMC()``, or
            ``Ancestral()`` where weights cannot be had, or ``EnKG()`` for black boxes.
        conditioning: default ``MomentMatching()``, or ``Laplace()`` where the operator is not
            linear; samplers that use the terms by themselves take none.
        batch_size: members drawn together, which bounds the memory; a sampler that couples members
            draws all at once.
        name: of the variable that holds the members.
        device: where to compute; operator and prior must live there.
        progress: show a progress bar.

    Returns:
        A Dataset with ``name`` (realization, *dims), ``mean``, ``std``, ``data_misfit``
        (realization; 1 is expected) and attributes that tell how it was made: ``invdiff_sampler``
        and others, for weighted samplers also ``invdiff_effective_number`` (a share of the
        particles), ``invdiff_log_evidence`` and ``invdiff_weights`` (carried or dropped).

    Raises:
        ShapeError: data, operator and prior that do not live on matching grids.
        DTypeError: real data for a complex operator or the reverse.
        NonFiniteError: NaN or Inf in the data.
        NoiseLevelError: no noise level, or one that is not positive.
        UnsupportedError: a conditioning or sampler that cannot use the operator or a term.

    Warns:
        CalibrationWarning: a method that is known to draw too narrow an ensemble.
    """
    noise = _noise(y, noise_std)
    if not 0 < scale < float("inf"):
        raise InputError(
            "scale is not positive",
            got=scale,
            expected="a finite number > 0",
            hint="For k-space take invdiff.operators.mri.image_scale.",
        )
    members = member_numbers(realizations)
    batch_size = min(batch_size, len(members))
    data = operator.range.to_tensor(y, name=f"data {y.name!r}").to(device) / scale
    likelihood = Gaussian(data, operator, _rescaled(noise, scale))
    posterior = Posterior(prior, likelihood, *terms, conditioning=conditioning)
    sampler = sampler or default_sampler(posterior, device=device)
    warn_if_narrow(sampler, posterior.conditioning)
    drawn = ensemble(
        posterior,
        sampler,
        realizations=members,
        seed=seed,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    fields = drawn.fields
    misfit = torch.cat([likelihood.misfit(part) for part in fields.split(batch_size)])
    settings: dict[str, object] = {
        "seed": seed,
        "sampler": sampler,
        "conditioning": "the sampler's own" if isinstance(sampler, UsesTerms) else posterior.method,
        "operator": operator,
        "noise_std": noise if isinstance(noise, float | int) else type(noise).__name__,
        "scale": scale,
        "batch_size": batch_size,
        "device": str(device),
    }
    attrs = describe(prior, settings | _weighting(drawn))
    # Equal grids may differ in their labels: those of the operator go first.
    grid = replace(prior.grid, coords={**prior.grid.coords, **operator.domain.coords})
    return _dataset(fields * scale, misfit, grid, members=members, name=name, attrs=attrs)


def _weighting(drawn: Ensemble) -> dict[str, object]:
    """What is to be told of a weighted sampler's weights."""
    if drawn.effective_number is None or drawn.log_evidence is None:
        return {}
    return {
        "effective_number": round(drawn.effective_number, 4),
        "log_evidence": drawn.log_evidence,
        "weights": "dropped" if math.isnan(drawn.log_evidence) else "carried",
    }


def _dataset(
    fields: Tensor,
    misfit: Tensor,
    grid: Grid,
    *,
    members: Sequence[int],
    name: str,
    attrs: dict[str, str | int | float],
) -> xr.Dataset:
    std = fields.var(0, correction=1).sqrt() if len(fields) > 1 else fields[0].abs() * torch.nan
    ensemble = grid.to_dataarray(
        fields, name, leading={"realization": members}, attrs={"long_name": "posterior sample"}
    )
    ensemble.realization.attrs = {"standard_name": "realization", "units": "1"}
    return xr.Dataset(
        {
            name: ensemble,
            "mean": grid.to_dataarray(
                fields.mean(0),
                "mean",
                attrs={"long_name": "posterior mean", "cell_methods": "realization: mean"},
            ),
            "std": grid.to_dataarray(
                std,
                "std",
                attrs={
                    "long_name": "posterior standard deviation",
                    "cell_methods": "realization: standard_deviation",
                },
            ),
            "data_misfit": (
                "realization",
                misfit.cpu().numpy(),
                {"long_name": "normalised data misfit, expected 1", "units": "1"},
            ),
        },
        attrs=attrs,
    )


def _noise(y: xr.DataArray, noise_std: NoiseModel | None) -> NoiseModel:
    noise: NoiseModel | None = y.attrs.get("noise_std") if noise_std is None else noise_std
    if noise is None:
        raise NoiseLevelError(
            "the noise level is missing",
            got="None",
            expected="noise_std=... or y.attrs['noise_std']",
            hint="Estimate it, for k-space with invdiff.operators.mri.estimate_noise_std.",
        )
    if isinstance(noise, list):  # one level for each coil, as a file of k-space may tell
        return AxisCovariance(torch.diag(torch.tensor(noise, dtype=torch.float64).square()))
    return noise


def _rescaled(noise: NoiseModel, scale: float) -> NoiseModel:
    """The noise model of data divided by ``scale``."""
    if isinstance(noise, AxisCovariance):
        return AxisCovariance(noise.matrix / scale**2, noise.dim)
    if isinstance(noise, Tensor):
        return noise / scale
    if callable(noise):
        whiten = noise
        return lambda r: whiten(r * scale)
    return float(noise) / scale
