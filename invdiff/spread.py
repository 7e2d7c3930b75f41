"""Where the fields of a prior lie and how far they scatter, and the schedule that follows."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from torch import Tensor

from invdiff.errors import CalibrationWarning, InputError
from invdiff.schedule import VE, Schedule

__all__ = ["Spread"]

_HIDES = 25.0  # ratio_max over the largest deviation: leaves out 0.2 % of the variance
_RESOLVES = 0.002  # ratio_min over the smallest deviation
_DOUBTFUL = 2.5  # a schedule within this factor of a deviation is warned of


@dataclass(frozen=True, eq=False)
class Spread:
    r"""Where the fields of a prior lie and how far they scatter, in its units.

    The default schedule of a prior follows from it, and a given one is checked against it. For a
    mixture of modes with covariances ``C_k`` of ``n`` points, means ``mu_k`` and mean ``mu``::

        smallest = min_k (tr C_k / n)^(1/2)
        largest  = max_k (largest eigenvalue of C_k + |mu_k - mu|^2)^(1/2)

    The noise of each orthonormal direction is ``r``, whatever the number of points, which is why
    `largest` is a deviation along a direction and not one of a point.

    Assumptions: finite second moments. Directions in which a mode scatters far less than its
    average point are not resolved by the schedule.

    Cost: none.

    Args:
        smallest: Root mean square over the points of the deviation from the mean of a mode; 0 where
            the modes have no width of their own.
        largest: Standard deviation along the direction in which the fields scatter most, the
            distance of the modes included.
        centre: Mean of the field, ``(*grid.shape)`` or a number. Samplers start from it.

    Raises:
        InputError: A deviation is negative or not finite.

    Example:
        >>> from invdiff.spread import Spread
        >>> Spread(100.0, 400.0, centre=3000.0).schedule()
        VE(ratio_min=0.2, ratio_max=10000.0, rho=7.0)
    """

    smallest: float
    largest: float
    centre: Tensor | float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.smallest < math.inf and 0 <= self.largest < math.inf):
            raise InputError(
                "these standard deviations are not those of a field",
                got=f"smallest {self.smallest:g}, largest {self.largest:g}",
                expected="two finite numbers >= 0",
                hint="Give them in the units of the field.",
            )

    def schedule(self, given: Schedule | None = None, *, hides: float = _HIDES) -> Schedule:
        """The given schedule, checked, or noise from ``hides * largest`` to ``smallest / 500``.

        A field that is known exactly has no scale; it gets the defaults of `VE`.

        Args:
            given: Schedule that the user chose; None for the default.
            hides: Largest noise over the largest deviation; more where `largest` is known for a
                point alone, because long waves scatter more than a point does.

        Raises:
            InputError: As in `check`.
        """
        if given is not None:
            self.check(given)
            return given
        if self.largest == 0:
            return VE()
        # Modes without a width of their own still need a last level.
        smallest = max(self.smallest, 1e-4 * self.largest)
        return VE(_RESOLVES * smallest, hides * self.largest)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that cannot fit, and warn of one that may not.

        Raises:
            InputError: Its largest noise does not hide the field (``ratio_max < largest``), or its
                smallest does (``ratio_min > smallest``).

        Warns:
            CalibrationWarning: It is within a factor of 2.5 of one of the two.
        """
        hint = f"Leave the schedule out, or take {self.schedule()!r}."
        if self.largest > 0:
            _compare(
                schedule.ratio_max / self.largest,
                "the schedule starts too late: its largest noise does not hide the field",
                got=f"ratio_max={schedule.ratio_max:.4g}",
                expected=f"several times {self.largest:.3g}, the largest deviation of the prior",
                hint=hint,
            )
        if self.smallest > 0:
            _compare(
                self.smallest / schedule.ratio_min,
                "the schedule ends too early: its smallest noise still hides the field",
                got=f"ratio_min={schedule.ratio_min:.4g}",
                expected=f"a fraction of {self.smallest:.3g}, the smallest deviation of the prior",
                hint=hint,
            )


def _compare(factor: float, what: str, *, got: str, expected: str, hint: str) -> None:
    """Refuse a factor below one, and warn of one not far above."""
    error = InputError(what, got=got, expected=expected, hint=hint)
    if factor < 1:
        raise error
    if factor < _DOUBTFUL:
        warnings.warn(str(error), CalibrationWarning, stacklevel=5)
