"""What each method needs of the terms of a posterior, and which methods can use given terms."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from enum import Flag, auto
from importlib import import_module
from typing import ClassVar

from invdiff.errors import CalibrationWarning, UnsupportedError
from invdiff.likelihood import Gaussian, Likelihood
from invdiff.protocols import Term

__all__ = ["Needs", "TermMethod", "able", "registered", "require", "suits", "warn_if_narrow"]


class Needs(Flag):
    """Properties that a method needs of every term."""

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

    LINEAR_GAUSSIAN = LINEAR | GAUSSIAN | LIKELIHOOD
    """Linear Gaussian data and nothing else."""


_WORDS = {
    Needs.LINEAR: "a linear operator",
    Needs.GAUSSIAN: "Gaussian noise",
    Needs.GRADIENT: "a differentiable operator",
    Needs.LIKELIHOOD: "likelihoods only (data, operator, noise)",
    Needs.ANALYTIC: "complex data of a complex field, not moduli",
}


class TermMethod:
    """A method that uses the terms of a posterior: a conditioning, or a sampler without one.

    A subclass states its needs and limits as class attributes; subclasses of it inherit them, and
    every concrete subclass is listed where a refusal names the methods that would do.
    """

    kind: ClassVar[str]
    """``"conditionings"`` or ``"samplers"``: under which heading a refusal lists it."""
    needs: ClassVar[Needs] = Needs.NOTHING
    """What it needs of every term."""
    narrow: ClassVar[str] = ""
    """Why its ensembles are known to be too narrow, as measured in ``benchmarks``; or empty."""


def registered(kind: str) -> list[type[TermMethod]]:
    """All concrete methods of a kind by name, including those that users define."""
    # Refusals also list methods that are not imported yet; a plain import would be circular.
    import_module("invdiff.conditioning")
    import_module("invdiff.samplers")
    found = {cls for cls in _subclasses(TermMethod) if cls.kind == kind}
    return sorted(found, key=lambda cls: cls.__name__)


def _subclasses(cls: type[TermMethod]) -> Iterator[type[TermMethod]]:
    for subclass in cls.__subclasses__():
        yield from _subclasses(subclass)
        if not inspect.isabstract(subclass) and not subclass.__name__.startswith("_"):
            yield subclass


def suits(needs: Needs, terms: Sequence[Term]) -> bool:
    """Whether all ``terms`` meet ``needs``."""
    return not any(_missing(term, needs) for term in terms)


def able(kind: str, terms: Sequence[Term]) -> list[str]:
    """Names of the registered methods of a kind that can use all ``terms``."""
    return [cls.__name__ for cls in registered(kind) if suits(cls.needs, terms)]


def require(method: TermMethod, terms: Sequence[Term]) -> None:
    """Refuse terms that ``method`` cannot use.

    Raises:
        UnsupportedError: The message names what is missing and the methods that can use the terms.
    """
    for term in terms:
        missing = _missing(term, method.needs)
        if missing:
            conditionings, samplers = able("conditionings", terms), able("samplers", terms)
            raise UnsupportedError(
                f"{type(method).__name__} cannot use this term",
                got=term,
                expected=" and ".join(_WORDS[need] for need in missing),
                hint=f"These can: conditionings {', '.join(conditionings) or 'none'}; "
                f"samplers {', '.join(samplers) or 'none'}.",
            )


def warn_if_narrow(*methods: object) -> None:
    """Warn of methods whose ensembles are known to be too narrow.

    Warns:
        CalibrationWarning: The message gives the reason, and what to use instead.
    """
    for method in methods:
        reason = getattr(method, "narrow", "")
        if reason:
            warnings.warn(
                f"{method!r} is known to give a wrong spread, mostly too narrow: {reason}. "
                "Leave sampler and conditioning out for the default, whose spread was checked.",
                CalibrationWarning,
                stacklevel=3,
            )


def _missing(term: Term, needs: Needs) -> Needs:
    """Which of the needs a term does not meet."""
    if not isinstance(term, Likelihood):
        # A penalty or a classifier has a gradient, but no operator or noise.
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
