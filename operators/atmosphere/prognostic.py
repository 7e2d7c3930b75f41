"""Models of earth2studio's prognostic protocol, such as learned forecasts, as step models."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from invdiff.arguments import as_integer
from invdiff.errors import InputError, ShapeError, UnsupportedError
from invdiff.grid import Grid
from invdiff.operators.inputs import describe

__all__ = ["Prognostic", "PrognosticModel"]

_SECOND = np.timedelta64(1, "s")


@runtime_checkable
class PrognosticModel(Protocol):
    """What earth2studio asks of a model (``earth2studio.models.px.PrognosticModel``), as used here.

    A coordinate system is an ordered dict from the names of the dims to their coordinates.
    """

    def __call__(
        self, x: Tensor, coords: OrderedDict[str, np.ndarray]
    ) -> tuple[Tensor, OrderedDict[str, np.ndarray]]:
        """Fields and their coordinates, one time step later."""
        ...

    def input_coords(self) -> OrderedDict[str, np.ndarray]:
        """Coordinates of the input; ``batch`` and ``time`` are empty, lead times end with 0."""
        ...

    def output_coords(
        self, input_coords: OrderedDict[str, np.ndarray]
    ) -> OrderedDict[str, np.ndarray]:
        """Coordinates of the output for those of an input."""
        ...


@dataclass(frozen=True)
class Prognostic:
    """A model that follows earth2studio's prognostic protocol, as a step model.

    The state has the dims ``(variable, lat, lon)`` of the model's input or, where the model looks
    back in time, ``(lead_time, variable, lat, lon)`` with its last states, oldest first: a step
    appends the new state and drops the oldest. Lead times are in seconds, as is ``dt``. Models that
    depend on the date are given ``time``, and the lead time grows with the steps.

    The gradient is the model's own. Many models of earth2studio run in torch's inference mode,
    which has none: then a gradient is refused, and the model can be used by methods that evaluate
    it alone. Nothing of earth2studio is imported. Cost: one call of the model a step.

    Args:
        model: any `PrognosticModel` that predicts all of its input variables, one step at a time.
        time: date and time of the initial state, for models that have the dim ``time``.
        units: of the fields, for the grid; models often hold variables of several.
        dtype: of the states.

    Raises:
        InputError: something else than such a model, a date that is missing or not read, or
            coordinates in another order than ``batch, [time,] lead_time, variable, ...``.
        UnsupportedError: a model that does not predict all of its input, or several steps at once.

    References:
        https://github.com/NVIDIA/earth2studio 0.18, ``models/px/base.py`` and ``models/batch.py``.

    Examples:
        Persistence, written as earth2studio's models are:

        >>> from collections import OrderedDict
        >>> import numpy as np
        >>> import torch
        >>> from invdiff.operators.atmosphere import Prognostic, Rollout
        >>> class Persistence:
        ...     def input_coords(self):
        ...         return OrderedDict(
        ...             batch=np.empty(0), lead_time=np.array([np.timedelta64(0, "h")]),
        ...             variable=np.array(["t2m"]), lat=np.linspace(90, -90, 5),
        ...             lon=np.arange(0, 360, 60),
        ...         )
        ...     def output_coords(self, input_coords):
        ...         lead_time = input_coords["lead_time"][-1:] + np.timedelta64(6, "h")
        ...         return OrderedDict(input_coords, lead_time=lead_time)
        ...     def __call__(self, x, coords):
        ...         return x[:, -1:], self.output_coords(coords)
        >>> model = Prognostic(Persistence())
        >>> model.dt, model.grid.dims, model.grid.shape
        (21600.0, ('variable', 'lat', 'lon'), (1, 5, 6))
        >>> Rollout(model, 4, every=2)(torch.ones(3, 1, 5, 6)).shape
        torch.Size([3, 2, 1, 5, 6])
    """

    model: PrognosticModel
    time: np.datetime64 | None = None
    units: str = "1"
    dtype: torch.dtype = torch.float32
    n_taken: int = field(default=0, kw_only=True)
    """Steps taken before, which move the lead time; set by `at`."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, PrognosticModel) or isinstance(self.model, type):
            raise InputError(
                "this is not a prognostic model",
                got=describe(self.model),
                expected="an object with input_coords(), output_coords(coords) and a call",
                hint="Load a model of earth2studio first: model.load_model(package).",
            )
        object.__setattr__(self, "n_taken", as_integer("n_taken", self.n_taken, least=0))
        coords = self.model.input_coords()
        leading = ["batch", "time"] if self._has_time else ["batch"]
        expected = [*leading, "lead_time", "variable"]
        if list(coords)[: len(expected)] != expected or len(coords) == len(expected):
            raise InputError(
                "the coordinates of the model are in another order",
                got=list(coords),
                expected="batch, time (if any), lead_time, variable, and the dims of the fields",
            )
        if self.time is not None:
            object.__setattr__(self, "time", _date(self.time))
        if self._has_time and self.time is None:
            raise InputError(
                "the model depends on the date, which is missing",
                got="time=None",
                expected="the date and time of the initial state",
                hint='Pass time=np.datetime64("2026-01-01T00:00").',
            )
        self._check_output()

    @cached_property
    def grid(self) -> Grid:
        """Grid of the states: ``([lead_time,] variable, ...)`` as the model's input."""
        coords = {name: np.asarray(c) for name, c in self.model.input_coords().items()}
        if self._n_past == 1:
            del coords["lead_time"]
        else:
            coords["lead_time"] = coords["lead_time"] / _SECOND
        coords = {name: c for name, c in coords.items() if name not in ("batch", "time")}
        shape = tuple(len(c) for c in coords.values())
        return Grid(tuple(coords), shape, self.dtype, coords, self.units)

    @cached_property
    def dt(self) -> float:
        """Time step, s: from the last lead time of the input to that of the output."""
        coords = self.model.input_coords()
        after = self.model.output_coords(coords)["lead_time"]
        return float((after[-1] - coords["lead_time"][-1]) / _SECOND)

    def at(self, n: int) -> Self:
        """The model ``n`` steps after its ``time``."""
        return replace(self, n_taken=n)

    def to(self, device: torch.device | str) -> Self:
        """The same model on another device; as torch does, the model itself is moved."""
        move: Any = getattr(self.model, "to", None)
        return self if move is None else replace(self, model=move(device))

    def step(self, state: Tensor) -> Tensor:
        """States ``(batch, *grid.shape)`` one time step later.

        Raises:
            UnsupportedError: a gradient that the model does not record.
            ShapeError: output of another shape than the model's coordinates say.
        """
        self.grid.check(state, name="state")
        past = state[:, None] if self._n_past == 1 else state
        x = past[:, None] if self._has_time else past
        output, _ = self.model(x, self._coords(len(state)))
        found = self._output_variables
        expected = (*x.shape[: x.ndim - past.ndim + 1], 1, len(found), *past.shape[3:])
        if tuple(output.shape) != expected:
            raise ShapeError(
                "the output of the model is not what its coordinates say",
                got=tuple(output.shape),
                expected=expected,
            )
        if torch.is_grad_enabled() and state.requires_grad and not output.requires_grad:
            raise UnsupportedError(
                "the model records no gradient",
                got="an output without one",
                expected="a model that torch can differentiate",
                hint="Its call probably runs in torch.inference_mode or no_grad, as many of "
                "earth2studio do: call the network without it, or use a method without gradients, "
                "under torch.no_grad().",
            )
        output = output.clone() if output.is_inference() else output
        wanted = [found.index(name) for name in self._variables]
        new = (output[:, 0] if self._has_time else output)[:, :, wanted]
        return new[:, 0] if self._n_past == 1 else torch.cat([past[:, 1:], new], 1)

    def __repr__(self) -> str:
        time = "" if self.time is None else f", time={str(self.time)!r}"
        return f"Prognostic({type(self.model).__name__}(...){time}, dt={self.dt:g} s)"

    @property
    def _has_time(self) -> bool:
        return "time" in self.model.input_coords()

    @cached_property
    def _n_past(self) -> int:
        """States that the input holds, the present one included."""
        return len(self.model.input_coords()["lead_time"])

    @cached_property
    def _variables(self) -> list[str]:
        return [str(name) for name in self.model.input_coords()["variable"]]

    @cached_property
    def _output_variables(self) -> list[str]:
        coords = self.model.output_coords(self.model.input_coords())
        return [str(name) for name in coords["variable"]]

    def _coords(self, n: int) -> OrderedDict[str, np.ndarray]:
        """Coordinates of an input of ``n`` members, at the present lead time."""
        coords = OrderedDict(self.model.input_coords())
        coords["batch"] = np.arange(n)
        if self._has_time:
            coords["time"] = np.array([self.time])
        taken = np.timedelta64(round(self.n_taken * self.dt), "s")
        coords["lead_time"] = coords["lead_time"] + taken
        return coords

    def _check_output(self) -> None:
        coords = self.model.output_coords(self.model.input_coords())
        missing = sorted(set(self._variables) - set(self._output_variables))
        if missing:
            raise UnsupportedError(
                "the model does not predict all of its input variables",
                got=f"no {', '.join(missing)}",
                expected="output variables that include those of the input",
                hint="Wrap it in a model that supplies them, such as forcings.",
            )
        if len(coords["lead_time"]) != 1 or not self.dt > 0:
            raise UnsupportedError(
                "the model does not take one step at a time",
                got=f"lead times {coords['lead_time']}",
                expected="one lead time, later than those of the input",
            )


def _date(time: object) -> np.datetime64:
    """A date in the precision that earth2studio uses."""
    try:
        return np.datetime64(time, "ns")  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError) as error:
        raise InputError(
            "time is not a date", got=describe(time), expected='such as "2026-01-01T06:00"'
        ) from error
