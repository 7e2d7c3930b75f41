"""The exception tree. A message says what is wrong, what it got and expected, and how to fix it.

InvdiffError
├── InputError (ValueError)         an argument or a datum that cannot be used
│   ├── ShapeError                  dims, shape or coordinates that do not match
│   ├── DTypeError                  real where complex is needed, or the reverse
│   ├── NonFiniteError              NaN or Inf
│   ├── NoiseLevelError             a noise level that is missing or not positive
│   └── UnknownNameError            a prior or operator that nobody registered
├── ChecksumError                   weights that are not those of their card
├── OutputExistsError               an output that would be overwritten
├── UnsupportedError (TypeError)    a method asked for what it cannot do
├── MissingDependencyError (ImportError)
└── DivergedError                   a run that left the finite numbers
"""

__all__ = [
    "CalibrationWarning",
    "ChecksumError",
    "DTypeError",
    "DataFitWarning",
    "DataWarning",
    "DivergedError",
    "DivergedMembersWarning",
    "InputError",
    "InvdiffError",
    "MissingDependencyError",
    "NoiseLevelError",
    "NonFiniteError",
    "OutputExistsError",
    "ShapeError",
    "UnknownNameError",
    "UnsupportedError",
]


class InvdiffError(Exception):
    """Root of all errors raised on purpose by invdiff.

    Args:
        what: What is wrong, in one clause.
        got: The offending value or a description of it.
        expected: What would have been accepted.
        hint: What the caller can do about it.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, hint: str = ""
    ) -> None:
        self.what, self.got, self.expected, self.hint = what, got, expected, hint
        parts = [what]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        message = "; ".join(parts) + "."
        super().__init__(f"{message} {hint}" if hint else message)


class InputError(InvdiffError, ValueError):
    """An argument or a datum that cannot be used."""


class ShapeError(InputError):
    """Dims, shapes or coordinates that do not match."""


class DTypeError(InputError):
    """Real values where complex ones are needed, or the reverse."""


class NonFiniteError(InputError):
    """NaN or Inf in the input."""


class NoiseLevelError(InputError):
    """A noise level that is missing, zero or negative."""


class UnknownNameError(InputError):
    """A prior, operator or method name that nobody registered."""


class ChecksumError(InvdiffError):
    """Weights that do not match the checksum of their card."""


class OutputExistsError(InvdiffError):
    """An output that exists and would be overwritten."""


class UnsupportedError(InvdiffError, TypeError):
    """A method asked for what its assumptions exclude."""


class MissingDependencyError(InvdiffError, ImportError):
    """An optional package or program that is not installed."""


class DivergedError(InvdiffError):
    """A run whose state is no longer finite."""


class CalibrationWarning(UserWarning):
    """A method whose intervals are known to be off."""


class DataWarning(UserWarning):
    """Data that were left out or look wrong, such as dead traces, dead coils or zero padding."""


class DivergedMembersWarning(UserWarning):
    """Members of an ensemble that diverged and were left out, while the others went on."""


class DataFitWarning(UserWarning):
    """An ensemble that does not explain its data to within their noise, or fits the noise."""
