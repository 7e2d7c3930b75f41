"""What a prior must satisfy on held-out fields before it is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from torch import Tensor

from invdiff.errors import InputError
from invdiff.priors.fit import LevelMetrics, power_by_band
from invdiff.priors.network import NetworkPrior

__all__ = ["Bounds", "DrawMetrics", "ReleaseReport", "check_release", "score_draws"]

Range = tuple[float, float]


class DrawMetrics(TypedDict):
    """What `score_draws` finds."""

    power: dict[str, float]
    values: float
    gradients: float


class ReleaseReport(TypedDict):
    """What `check_release` found: an entry of the card of a shipped prior."""

    draws: DrawMetrics
    failures: list[str]


@dataclass(frozen=True)
class Bounds:
    """Bounds of the figures of a prior, all of them on fields it was not trained or fitted on.

    Args:
        error_power: of the error's power over the stated one, in each band of ``|k|`` at each noise
            level, inside the object.
        coverage90: of the share of errors within the 90 % interval, inside the object.
        draw_power: of the power of draws without data over that of held-out fields, in each band.
        distance: largest distance between the distributions of the values, and of the gradients,
            of draws and of held-out fields, in standard deviations of the latter.

    Raises:
        InputError: a range that is reversed, or a distance below zero.
    """

    error_power: Range = (0.75, 1.33)
    coverage90: Range = (0.87, 0.93)
    draw_power: Range = (0.5, 2.0)
    distance: float = 0.2

    def __post_init__(self) -> None:
        for name in ("error_power", "coverage90", "draw_power"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InputError(
                    f"{name} is not a range",
                    got=(low, high),
                    expected="0 <= low <= high",
                    hint="Order the two bounds.",
                )
        if not self.distance >= 0:
            raise InputError("the distance is negative", got=self.distance, expected=">= 0")

    def failures(self, metrics: Sequence[LevelMetrics], draws: DrawMetrics) -> list[str]:
        """Each figure outside of its bounds, in words.

        Args:
            metrics: of the denoised fields, from `validate`.
            draws: from `score_draws`.
        """
        found = []

        def judge(what: str, value: float, bounds: Range) -> None:
            if not bounds[0] <= value <= bounds[1]:
                found.append(f"{what} is {value:.3g}, not within {bounds[0]:g} to {bounds[1]:g}")

        for row in metrics:
            level = f"at ratio {row['ratio']:.3g}"
            judge(f"coverage90 {level}", row["coverage90"], self.coverage90)
            for edge, value in row["error_power"].items():
                judge(f"error_power {level}, |k| up to {edge},", value, self.error_power)
        for edge, value in draws["power"].items():
            judge(f"the power of draws, |k| up to {edge},", value, self.draw_power)
        judge("the distance of the values of draws", draws["values"], (0, self.distance))
        judge("the distance of the gradients of draws", draws["gradients"], (0, self.distance))
        return found


def score_draws(draws: Tensor, fields: Tensor) -> DrawMetrics:
    r"""Compare draws without data with held-out fields, as two samples of the same law.

    ``power`` is the mean of ``|F (x - c)|^2`` over the draws, over that of the fields, summed over
    each of the `BANDS` that has modes, with ``c`` the mean value of the fields. ``values`` and
    ``gradients`` are 1-Wasserstein distances between the distributions over all pixels of ``|x|``
    (of ``x``, where it is real) and of ``|grad x|``, in standard deviations of those of the fields.

    Args:
        draws: ``(n, *shape)``.
        fields: ``(m, *shape)``.

    Raises:
        InputError: no draws, no fields, or other shapes.
    """
    if not (len(draws) and len(fields)) or draws.shape[1:] != fields.shape[1:]:
        raise InputError(
            "draws and fields cannot be compared",
            got=f"shapes {tuple(draws.shape)} and {tuple(fields.shape)}",
            expected="(n, *shape) and (m, *shape), with n and m at least 1",
            hint="Draw from the prior on the grid of the fields.",
        )
    centre = fields.mean()
    drawn, held_out = (power_by_band(x - centre) for x in (draws, fields))
    n = len(draws) / len(fields)
    return {
        "power": {edge: drawn[edge] / held_out[edge] / n for edge in drawn},
        "values": _distance(_values(draws), _values(fields)),
        "gradients": _distance(_gradients(draws), _gradients(fields)),
    }


def check_release(
    prior: NetworkPrior,
    draws: Tensor,
    fields: Tensor,
    *,
    bounds: Bounds | None = None,
    overrule: bool = False,
) -> ReleaseReport:
    """Refuse a prior whose figures lie outside of the bounds.

    Args:
        prior: with ``metrics`` in its card, as `NetworkPrior.fitted` writes them.
        draws: from the prior without data, ``(n, *prior.grid.shape)``.
        fields: held-out fields ``(m, *prior.grid.shape)``.
        bounds: default ``Bounds()``.
        overrule: let it pass with its failures in the report.

    Returns:
        What was found, for the card.

    Raises:
        InputError: figures outside of the bounds, unless overruled; a card without metrics.
    """
    metrics = prior.card.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        raise InputError(
            "the card has no metrics to judge the prior by",
            got=sorted(prior.card),
            expected="the figures of validate",
            hint="Make the prior by NetworkPrior.fitted.",
        )
    bounds = bounds or Bounds()
    scores = score_draws(draws, fields)
    failures = bounds.failures(metrics, scores)
    if failures and not overrule:
        raise InputError(
            "the prior is not fit to be released",
            got="; ".join(failures),
            expected=bounds,
            hint="Train it longer or on other fields, or overrule, which puts this on its card.",
        )
    return {"draws": scores, "failures": failures}


def _values(x: Tensor) -> NDArray[np.float64]:
    """Real numbers of all pixels: magnitudes, where ``x`` is complex."""
    return np.asarray((x.abs() if x.is_complex() else x).double().cpu().numpy().ravel())


def _gradients(x: Tensor) -> NDArray[np.float64]:
    """``|grad x|`` of all pixels, by central differences."""
    parts = torch.stack(torch.gradient(x, dim=list(range(1, x.ndim))))
    return np.asarray(parts.abs().double().square().sum(0).sqrt().cpu().numpy().ravel())


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(wasserstein_distance(a, b) / b.std())
