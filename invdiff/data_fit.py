"""Verdicts on a run by its own data: the fit of the members, and what it says of the prior."""

from __future__ import annotations

import warnings

from scipy.special import chdtr, chdtrc
from torch import Tensor

from invdiff.errors import CalibrationWarning, DataFitWarning

__all__ = ["fit_verdict", "prior_verdict", "run_verdicts", "warn_of_misfit"]

_FAR = 1.25  # a misfit beyond this, or below its inverse: the spread is not to be trusted
_CHANCE = 3e-5  # unless a chi-square lies beyond it with a larger probability: four sigma
_BAND = 5.0  # a misfit within 1 +- this / sqrt(n) is what the noise makes
_USUAL = (0.5, 3.0)  # factors of the covariance of a prior that knows its fields


def fit_verdict(misfit: Tensor, n_data: float) -> str:
    """The meaning of a data misfit, in a sentence.

    At the truth the sum of the squared residuals over the noise is a chi-square with ``n_data``
    degrees of freedom, or twice as many for complex data; so it is over posterior and data.

    Args:
        misfit: Misfit of the members, ``(realization,)``.
        n_data: Number of data that count.

    >>> import torch
    >>> fit_verdict(torch.tensor([1.01, 0.99]), 10_000)
    'The members explain the data to within their noise: misfit 1.00, 1 is expected.'
    """
    mean = float(misfit.double().mean())
    if not _is_off(mean, n_data):
        return (
            f"The members explain the data to within their noise: misfit {mean:.2f}, 1 is expected."
        )
    if not _is_far(mean, n_data):
        what = f"The data misfit is {mean:.3f}, where 1 +- {_BAND / n_data**0.5:.3f} is expected: "
        if mean > 1:
            return (
                what + "the members do not quite explain the data, and their intervals may be too"
                " narrow. Check the noise level and the operator; more steps may help."
            )
        return (
            what + "the noise level is a little too large for these data, or the members follow"
            " the noise."
        )
    what = f"The data misfit is {mean:.3g}, where 1 is expected: "
    if mean > 1:
        return (
            what + "the members do not explain the data to within their noise, and their spread is"
            f" not to be trusted. Check the noise level ({mean**0.5:.2g} times the stated one would"
            " explain this, if all else is right), that the operator"
            " (mask, sensitivities, wavelet, geometry) is that of the data, and that the prior was"
            " trained on such fields; more steps or solves may help."
        )
    return (
        what + "the noise level is too large for these data, or the members explain the noise, and"
        " their spread is not to be trusted. Check the noise level, and that what was not measured"
        " is left out of the data."
    )


def warn_of_misfit(misfit: Tensor, n_data: float, *, stacklevel: int = 3) -> str:
    """The verdict of :func:`fit_verdict`, with a warning where the misfit is far from 1.

    Args:
        misfit: Normalised data misfit of the members, ``(realization,)``.
        n_data: Number of data that count.
        stacklevel: Place of the user's call on the stack: 3 for the caller of the caller.

    Warns:
        DataFitWarning: The misfit is far from 1; the message is the verdict.
    """
    verdict = fit_verdict(misfit, n_data)
    if _is_far(float(misfit.double().mean()), n_data):
        warnings.warn(verdict, DataFitWarning, stacklevel=stacklevel)
    return verdict


def _is_off(mean: float, n_data: float) -> bool:
    """Whether the misfit is further from 1 than chance takes it."""
    within = abs(mean - 1) <= _BAND / n_data**0.5 or _is_chance(mean, n_data)
    return not within or _is_far(mean, n_data)


def _is_far(mean: float, n_data: float) -> bool:
    """Whether the misfit is so far from 1 that the spread is not to be trusted."""
    return not 1 / _FAR <= mean <= _FAR and not _is_chance(mean, n_data)


def _is_chance(mean: float, n_data: float) -> bool:
    return bool(min(chdtr(n_data, n_data * mean), chdtrc(n_data, n_data * mean)) > _CHANCE)


def prior_verdict(record: Tensor) -> str:
    """What the innovations of a run say of the prior, in a sentence; see `InnovationScale`.

    Args:
        record: Noise level, factor of the covariance, ``|r|^2 / n`` and ``tr S / n`` of each update
            and member, ``(update, 4, realization)``.

    >>> import torch
    >>> levels, factors = torch.tensor([4.0, 1.0]), torch.tensor([2.4, 3.6])
    >>> prior_verdict(torch.stack([levels, factors], 1)[..., None])
    'The prior is too confident here: the data ask for 3.6 times the variance that it states at
    noise level 1 (0.5 to 3 is usual). It was widened accordingly.'
    """
    levels, factors = record.double().mean(-1).T[:2]
    low, high = _USUAL
    span = f"{float(factors.min()):.2g} to {float(factors.max()):.2g}"
    outside = (factors < low) | (factors > high)
    if not bool(outside.any()):
        return (
            f"The prior states its own error well enough: the data ask for {span} times the"
            " variance that it states."
        )
    worst = int((factors.log().abs() * outside).argmax())
    what, where = float(factors[worst]), levels[outside]
    at = f"noise level {float(where[0]):.3g}"
    if len(where) > 1:
        at = f"noise levels {float(where.min()):.3g} to {float(where.max()):.3g}"
    kind, done = ("confident", "widened") if what > 1 else ("cautious", "narrowed")
    return (
        f"The prior is too {kind} here: the data ask for {what:.2g} times the variance that it"
        f" states at {at} ({low:g} to {high:g} is usual). It was {done} accordingly."
    )


def run_verdicts(
    misfit: Tensor, n_data: float, innovations: Tensor | None, *, stacklevel: int = 3
) -> dict[str, object]:
    """What a run says of its data and of its prior, as attributes of the result.

    Args:
        misfit: Normalised data misfit of the members, ``(realization,)``.
        n_data: Number of data that count.
        innovations: Record of the innovations, ``(update, 4, realization)``; None without any.
        stacklevel: Place of the user's call on the stack: 3 for the caller of the caller.

    Warns:
        DataFitWarning: The misfit is far from 1.
        CalibrationWarning: The misfit is further from 1 than the noise explains; or the data ask
            for another variance than the prior states at most noise levels. Where the misfit is off
            there is no warning of the prior: noise level and operator come first.
    """
    mean = float(misfit.double().mean())
    fit = warn_of_misfit(misfit, n_data, stacklevel=stacklevel + 1)
    is_off = _is_off(mean, n_data)
    if is_off and not _is_far(mean, n_data):
        warnings.warn(fit, CalibrationWarning, stacklevel=stacklevel)
    if innovations is None:
        return {"data_fit": fit}
    levels, factors = innovations.double().mean(-1).T[:2]
    verdict = prior_verdict(innovations)
    if not is_off and not _USUAL[0] <= float(factors.median()) <= _USUAL[1]:
        warnings.warn(verdict, CalibrationWarning, stacklevel=stacklevel)
    return {
        "data_fit": fit,
        "prior_fit": verdict,
        "innovation_levels": levels.tolist(),
        "innovation_scales": factors.tolist(),
    }
