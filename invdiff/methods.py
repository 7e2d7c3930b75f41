"""What each method asks of the terms of a posterior, and who can do what is asked.

One table, so that a refusal names the methods that would do.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import Flag, auto

from invdiff.errors import CalibrationWarning, UnsupportedError
from invdiff.likelihood import Gaussian, Likelihood
from invdiff.protocols import Term

__all__ = ["CONDITIONINGS", "NARROW", "SAMPLERS", "Needs", "able", "require", "warn_if_narrow"]


class Needs(Flag):
    """What a method needs of every term."""

    NOTHING = 0
    LINEAR = auto()
    """Linear operators."""
    GAUSSIAN = auto()
    """Gaussian noise."""
    GRADIENT = auto()
    """Terms that torch can differentiate."""
    LIKELIHOOD = auto()
    """Likelihoods: a density of data given predictions, no other terms."""
    ANALYTIC = auto()
    """Complex data of complex fields: moduli and real parts have no complex-linear derivative."""


_LINEAR = Needs.LINEAR | Needs.GAUSSIAN | Needs.LIKELIHOOD

CONDITIONINGS: dict[str, Needs] = {
    "MomentMatching": Needs.LINEAR | Needs.GAUSSIAN,  # other terms enter to first order
    "JacobianFree": Needs.LINEAR | Needs.GAUSSIAN,
    "MMPS": _LINEAR,
    "TMPD": _LINEAR,
    "PiGDM": _LINEAR,
    "Laplace": Needs.GRADIENT | Needs.ANALYTIC,
    "DPS": Needs.GRADIENT,
}
"""Methods for ``Posterior(conditioning=...)``, to go with any sampler of priors."""

SAMPLERS: dict[str, Needs] = {
    "DDRM": _LINEAR,
    "DDNM": _LINEAR,
    "MCGDiff": _LINEAR,
    "DiffPIR": Needs.GRADIENT | Needs.ANALYTIC,
    "DAPS": Needs.GRADIENT | Needs.ANALYTIC,
    "SplitGibbs": Needs.GRADIENT | Needs.ANALYTIC,
    "AnnealedGibbs": Needs.GRADIENT | Needs.ANALYTIC | Needs.LIKELIHOOD,
    "REDDiff": Needs.GRADIENT,
    "TDS": Needs.GRADIENT,
    "EnKG": Needs.GAUSSIAN | Needs.LIKELIHOOD,
    "EKI": Needs.GAUSSIAN | Needs.LIKELIHOOD,
}
"""Samplers that use the terms of a posterior by themselves, without a conditioning."""


NARROW: dict[str, str] = {
    "DDNM": "its data projections leave no spread",
    "DDRM": "coordinates that were not seen learn late of the others",
    "DiffPIR": "its data step is a point estimate",
    "REDDiff": "it seeks modes",
    "DPS": "it leaves out the spread of x_0 given x_t",
    "PiGDM": "it leaves out the spread of x_0 given x_t",
}
"""Methods known to draw too narrow ensembles, by what was measured in ``benchmarks``."""


def warn_if_narrow(*methods: object) -> None:
    """Warn of methods that are known to under-disperse.

    Warns:
        CalibrationWarning: with the reason, and what to take instead.
    """
    for method in methods:
        reason = NARROW.get(type(method).__name__)
        if reason is not None:
            warnings.warn(
                f"{method!r} is known to misjudge the spread, mostly as too narrow: {reason}. "
                "Leave sampler and conditioning out for the default, whose spread was checked.",
                CalibrationWarning,
                stacklevel=3,
            )


def able(terms: Sequence[Term], needs: dict[str, Needs]) -> list[str]:
    """Names of the methods of a table that can use all ``terms``."""
    return [name for name, wanted in needs.items() if all(not _missing(t, wanted) for t in terms)]


def require(method: str, terms: Sequence[Term]) -> None:
    """Refuse terms that ``method`` cannot use.

    Raises:
        UnsupportedError: with what is missing, and the list of methods that can.
    """
    needs = (CONDITIONINGS | SAMPLERS)[method]
    for term in terms:
        missing = _missing(term, needs)
        if missing:
            names = {
                Needs.LINEAR: "a linear operator",
                Needs.GAUSSIAN: "Gaussian noise",
                Needs.GRADIENT: "a differentiable operator",
                Needs.LIKELIHOOD: "likelihoods only (data, operator, noise)",
                Needs.ANALYTIC: "complex data of a complex field, no moduli",
            }
            conditionings, samplers = able(terms, CONDITIONINGS), able(terms, SAMPLERS)
            raise UnsupportedError(
                f"{method} cannot use this term",
                got=term,
                expected=" and ".join(names[need] for need in missing),
                hint=f"These can: conditionings {', '.join(conditionings) or 'none'}; "
                f"samplers {', '.join(samplers) or 'none'}.",
            )


def _missing(term: Term, needs: Needs) -> Needs:
    """What of the needs a term does not meet."""
    if not isinstance(term, Likelihood):
        # A penalty or a classifier has no operator or noise to be judged, but a gradient.
        return needs & Needs.LIKELIHOOD
    missing = Needs.NOTHING
    if not term.is_linear:
        missing |= Needs.LINEAR
    if not isinstance(term, Gaussian):
        missing |= Needs.GAUSSIAN
    if not term.is_differentiable:
        missing |= Needs.GRADIENT | Needs.LINEAR
    if term.operator.domain.is_complex and not term.y.is_complex():
        missing |= Needs.ANALYTIC
    return missing & needs
