"""The Dataset that the verbs return: the labelled ensemble, its statistics and its provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from invdiff.grid import Grid
from invdiff.protocols import Prior

__all__ = ["ensemble_dataset", "provenance"]

Attribute = str | int | float | list[float]


def ensemble_dataset(
    members: Tensor,
    misfit: Tensor,
    grid: Grid,
    *,
    numbers: Sequence[int],
    name: str,
    long_name: str = "posterior sample",
    weight: np.ndarray | None = None,
    attrs: Mapping[str, object],
) -> xr.Dataset:
    """The Dataset that every verb returns.

    Args:
        members: Fields of the members, ``(realization, *grid.shape)``.
        misfit: Normalised data misfit of each member, ``(realization,)``.
        grid: Labels and units of the fields.
        numbers: Numbers of the realizations.
        name: Name of the variable that holds the members.
        long_name: Long name of that variable.
        weight: Weight of each member in mean and standard deviation, ``(realization,)``, summing to
            one; None for equal weights.
        attrs: Attributes of the Dataset.

    Returns:
        ``name (realization, *dims)``, ``mean``, ``std`` (NaN for a single member) and
        ``data_misfit (realization)``.
    """
    mean, std = _moments(members, weight)
    labels = {"long_name": long_name}
    ensemble = grid.to_dataarray(members, name, leading={"realization": numbers}, attrs=labels)
    ensemble.realization.attrs = {"standard_name": "realization", "units": "1"}
    labels = {"long_name": "posterior mean", "cell_methods": "realization: mean"}
    spread = {
        "long_name": "posterior standard deviation",
        "cell_methods": "realization: standard_deviation",
    }
    misfit_labels = {"long_name": "normalised data misfit, expected 1", "units": "1"}
    return xr.Dataset(
        {
            name: ensemble,
            "mean": grid.to_dataarray(mean, "mean", attrs=labels),
            "std": grid.to_dataarray(std, "std", attrs=spread),
            "data_misfit": ("realization", misfit.cpu().numpy(), misfit_labels),
        },
        attrs=dict(attrs),
    )


def _moments(members: Tensor, weight: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation; for weighted members n is their effective number."""
    if weight is None:
        mean = members.mean(0)
        if len(members) == 1:
            return mean, members[0].abs() * torch.nan
        return mean, members.var(0, correction=1).sqrt()
    w = torch.from_numpy(weight).reshape(-1, *(1,) * (members.ndim - 1)).to(members.device)
    mean = (w * members).sum(0)
    effective = 1 / float(np.square(weight).sum())
    correction = effective / (effective - 1) if effective > 1 + 1e-9 else np.nan
    variance = (w * (members - mean).abs().square()).sum(0) * correction
    return mean.to(members.dtype), variance.sqrt().to(members.dtype.to_real())


def provenance(prior: Prior | None, settings: Mapping[str, object]) -> dict[str, Attribute]:
    """CF and provenance attributes of a result.

    Args:
        prior: Prior, named by its card and the checksum of its weights, otherwise by its repr; None
            for no prior.
        settings: Settings by name, stored as ``invdiff_<name>``: text, numbers and lists of numbers
            as they are, others by their repr.
    """
    card = getattr(prior, "card", {})
    name = f"{card['name']}@sha256:{card['sha256']}" if "sha256" in card else _named(prior)
    attrs: dict[str, Attribute] = {
        "Conventions": "CF-1.11",
        "source": f"invdiff {version('invdiff')}",
        "invdiff_prior": "none" if prior is None else name,
    }
    for key, value in settings.items():
        attrs[f"invdiff_{key}"] = _attribute(value)
    attrs["versions"] = ", ".join(f"{p} {version(p)}" for p in ("torch", "numpy", "xarray"))
    return attrs


def _attribute(value: object) -> Attribute:
    """Text, finite numbers and lists of them as they are; stores of results hold no others."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list) and all(isinstance(v, float) and math.isfinite(v) for v in value):
        return value
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _named(value)


def _named(value: object) -> str:
    """The repr of an object, without the address that differs from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
