"""Digests: equal for what computes the same, different for what does not, in any process."""

import datetime
import decimal
import functools
import subprocess
import sys
import threading
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

from invdiff.digest import digest
from invdiff.grid import Grid
from invdiff.operators import Lognormal, Mask
from invdiff.operators.linear import Identity


class Slotted:
    __slots__ = ("__private", "missing", "value")

    def __init__(self, value: object) -> None:
        self.value, self.__private = value, value


class OneSlot:
    __slots__ = "value"

    def __init__(self, value: object) -> None:
        self.value = value


class SlotsAndDict(OneSlot):
    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.other = 1


@dataclass(frozen=True, slots=True)
class Whiten:
    factor: float

    def __call__(self, r: torch.Tensor) -> torch.Tensor:
        return r * self.factor


@dataclass(frozen=True)
class Nested:
    value: object
    hidden: object = field(default=0, compare=False, repr=False)


class Declares:
    """Counts calls, and says that they are none of its settings."""

    def __init__(self, value: object, calls: int = 0) -> None:
        self.value, self.calls = value, calls

    @property
    def settings(self) -> dict[str, object]:
        return {"value": self.value}


class HasSettings:
    """An attribute of that name is not a declaration."""

    def __init__(self, value: object) -> None:
        self.settings, self.value = {"fixed": 1}, value


class Cached:
    def __init__(self, value: float) -> None:
        self.value = value

    @functools.cached_property
    def square(self) -> float:
        return self.value**2


class Network(nn.Module):
    def __init__(
        self, weight: float = 1.0, *, size: object = (3, 3), constant: float = 1.0
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, weight)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer("constant", torch.tensor(constant), persistent=False)
        self.size, self.activation = size, torch.tanh


def holding_itself(value: object) -> list[object]:
    cycle: list[object] = [value]
    cycle.append(cycle)
    return cycle


def closure(value: object) -> Callable[[], object]:
    return lambda: value


def using_a_global(value: object) -> Callable[[float], float]:
    namespace: dict[str, object] = {"FACTOR": value, "__name__": "notebook"}
    exec("def scaled(x):\n    return FACTOR * x\n", namespace)
    return namespace["scaled"]  # type: ignore[return-value]


def named_later(value: float) -> Callable[[], float]:
    def inner() -> float:
        return later + value

    if value > 1e9:
        later = value
    return inner


def of_a_notebook(body: str) -> object:
    """An instance of a class that was defined, and perhaps defined again, in a notebook."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(f"class Mine:\n    {body}\n", namespace)
    return namespace["Mine"]()  # type: ignore[operator]


def looked_up(index: pd.Index) -> pd.Index:
    index.get_loc(1)  # fills a cache
    return index


def seen(cached: Cached) -> Cached:
    assert cached.square
    return cached


def labelled(values: list[float], x: list[int]) -> xr.DataArray:
    return xr.DataArray(values, dims="x", coords={"x": x})


EYE = torch.eye(3)
DIFFERENT: dict[str, tuple[object, object]] = {
    "numbers": (1, 2),
    "kinds of numbers": (1, 1.0),
    "text": ("a", "b"),
    "dtypes": (torch.ones(2), torch.ones(2, dtype=torch.float64)),
    "shapes": (np.ones((2, 3)), np.ones((3, 2))),
    "bfloat16": (torch.ones(2).bfloat16(), torch.zeros(2).bfloat16()),
    "float8": (torch.ones(2).to(torch.float8_e5m2), torch.zeros(2).to(torch.float8_e5m2)),
    "sparse": (EYE.to_sparse(), 2 * EYE.to_sparse()),
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1.0, 2.0], mask=[0, 0])),
    "structured": (np.zeros(2, [("a", "f4")]), np.ones(2, [("a", "f4")])),
    "objects": (np.array([OneSlot(1)]), np.array([OneSlot(2)])),
    "dates": (datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
    "times": (np.datetime64("2020"), np.datetime64("2021")),
    "decimals": (decimal.Decimal(1), decimal.Decimal(2)),
    "ranges": (range(3), range(4)),
    "queues": (deque([1]), deque([2])),
    "labels": (labelled([1.0, 2.0], [0, 1]), labelled([1.0, 2.0], [0, 2])),
    "labelled values": (labelled([1.0, 2.0], [0, 1]), labelled([1.0, 3.0], [0, 1])),
    "slots": (Slotted(1), Slotted(2)),
    "a slot": (OneSlot(1), OneSlot(2)),
    "slots below a dict": (SlotsAndDict(1), SlotsAndDict(2)),
    "callables with slots": (Whiten(1.0), Whiten(2.0)),
    "dataclasses": (Nested(1), Nested(2)),
    "fields that do not compare": (Nested(1, 1), Nested(1, 2)),
    "objects in objects": (Nested([Nested(1)]), Nested([Nested(2)])),
    "declared": (Declares(1), Declares(2)),
    "an attribute called settings": (HasSettings(1), HasSettings(2)),
    "cell sizes": (
        Grid(("x",), (3,), coords={"x": np.arange(3.0)}),
        Grid(("x",), (3,), coords={"x": 2 * np.arange(3.0)}),
    ),
    "masks": (Mask(Grid(("x",), (2,)), [1, 0]), Mask(Grid(("x",), (2,)), [0, 1])),
    "weights": (Network(), Network(2.0)),
    "settings of modules": (Network(), Network(size=(5, 5))),
    "buffers that are not stored": (Network(), Network(constant=2.0)),
    "closures": (closure(1), closure(2)),
    "closures over arrays": (closure(np.zeros(2)), closure(np.ones(2))),
    "constants": (lambda: 1, lambda: 2),
    "globals": (using_a_global(1.0), using_a_global(2.0)),
    "defaults": (lambda x=1: x, lambda x=2: x),
    "partials": (functools.partial(max, 1), functools.partial(max, 2)),
    "partials by name": (functools.partial(Whiten, factor=1), functools.partial(Whiten, factor=2)),
    "ufuncs": (np.sin, np.cos),
    "functions of torch": (torch.sin, torch.cos),
    "methods of torch": (torch.Tensor.abs, torch.Tensor.exp),
    "modules": (np, torch),
    "classes": (Slotted, OneSlot),
    "bound methods": (Whiten(1.0).__call__, Whiten(2.0).__call__),
    "attributes of a class": (of_a_notebook("k = 2"), of_a_notebook("k = 3")),
    "code of a class": (
        of_a_notebook("def f(self): return 1"), of_a_notebook("def f(self): return 2"),
    ),
    "properties of a class": (
        of_a_notebook("f = property(lambda s: 1)"), of_a_notebook("f = property(lambda s: 2)"),
    ),
}  # fmt: skip

EQUAL: dict[str, tuple[object, object]] = {
    "NaN": (float("nan"), float("nan")),
    "arrays of NaN": (np.array([np.nan]), np.array([np.nan])),
    "numbers of numpy": (np.float64(1), 1.0),
    "big-endian": (np.arange(3.0).astype(">f8"), np.arange(3.0)),
    "not contiguous": (np.arange(6.0)[::2], np.array([0.0, 2.0, 4.0])),
    "conjugates": (torch.tensor([1 + 1j]).conj(), torch.tensor([1 - 1j])),
    "that want a gradient": (torch.ones(2, requires_grad=True), torch.ones(2)),
    "sparse": (
        torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,), check_invariants=True),
        torch.sparse_coo_tensor([[0]], [3.0], (2,), check_invariants=True),
    ),
    "sets": ({1, 2, "a"}, {"a", 2, 1}),
    "mappings in another order": ({1: 2, "a": 3}, {"a": 3, 1: 2}),
    "cycles": (holding_itself(1), holding_itself(1)),
    "cached properties": (seen(Cached(2.0)), Cached(2.0)),
    "counters that are not declared": (Declares(1, calls=0), Declares(1, calls=9)),
    "caches of indexes": (looked_up(pd.Index([1, 2])), pd.Index([1, 2])),
    "modules in evaluation": (Network().eval(), Network()),
    "locks": (threading.Lock(), threading.Lock()),
    "cells without contents": (named_later(1.0), named_later(1.0)),
    "mappings that are read only": (types.MappingProxyType({"a": 1}),) * 2,
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_computes_something_else_has_another_digest(name: str) -> None:
    one, other = DIFFERENT[name]
    assert digest(one) != digest(other)
    assert digest(one) == digest(one)


@pytest.mark.parametrize("name", EQUAL)
def test_what_computes_the_same_has_the_same_digest(name: str) -> None:
    one, other = EQUAL[name]
    assert digest(one) == digest(other)


def test_a_cycle_is_not_followed_and_what_it_holds_counts() -> None:
    assert digest(holding_itself(1)) != digest(holding_itself(2))


def test_a_class_that_is_changed_is_another() -> None:
    class Mine:
        factor = 1.0

    before = digest(Mine())
    Mine.factor = 2.0
    assert digest(Mine()) != before


PROGRAM = """
import threading, numpy as np, torch
from invdiff.digest import digest
from invdiff.grid import Grid
from invdiff.operators import Lognormal
from invdiff.operators.linear import Identity
things = [torch.sin, torch.Tensor.abs, np.sin, np, threading.Lock(), {"a", "b", "c"}, object(),
          np.array([object()]), lambda x: x, Lognormal(Identity(Grid(("x",), (3,))))]
print([digest(thing) for thing in things])
"""


def test_another_process_has_the_same_digests() -> None:
    """No addresses, no order of hashes: a run is resumed by another process."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
    assert digest(Lognormal(Identity(Grid(("x",), (3,))))) in outputs.pop()
