"""Plain arguments: exactly what was meant, or a named error."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from invdiff.arguments import as_integer, as_integers, as_number, as_path, as_share
from invdiff.errors import InputError

THREE = [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3])[0]]


@pytest.mark.parametrize("value", THREE)
def test_integers_of_any_library(value: object) -> None:
    assert as_integer("n", value, least=3) == 3
    assert type(as_integer("n", value)) is int


@pytest.mark.parametrize(
    "value",
    [1.5, 3.0, np.float64(3), "3", None, True, np.True_, 3j, [3], np.array([3]), Decimal(3),
     float("nan"), torch.tensor(3.0), torch.tensor(True), np.array(True)],
    ids=repr,
)  # fmt: skip
def test_what_is_not_an_integer_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"^seed is not an integer; got") as caught:
        as_integer("seed", value, least=0)
    assert "expected an integer >= 0" in str(caught.value)


def test_integers_have_a_least() -> None:
    with pytest.raises(InputError, match=r"^n is too small; got 2; expected an integer >= 3"):
        as_integer("n", 2, least=3)
    assert as_integers("n", THREE) == [3] * len(THREE)
    assert as_integer("n", 10**30) == 10**30


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), Decimal(2)])
def test_numbers_of_any_library(value: object) -> None:
    assert as_number("scale", value) == 2
    assert type(as_number("scale", value)) is float


@pytest.mark.parametrize(
    "value",
    ["2", None, True, np.True_, 2j, [2.0], np.array([2.0]), np.ones(2), 0, -1, np.nan, np.inf],
    ids=repr,
)
def test_what_is_not_a_positive_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"^scale is out of range; got"):
        as_number("scale", value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.array(0.5)])
def test_shares(value: object) -> None:
    assert 0 <= as_share("keep", value) <= 1


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, "a", "0.5", None, True, np.ones(2)], ids=repr)
def test_what_is_not_a_share_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"^keep is out of range"):
        as_share("keep", value)


def test_paths() -> None:
    assert as_path("checkpoint", "a/b") == as_path("checkpoint", Path("a/b")) == Path("a/b")
    for value in (3, None, b"a", ["a"]):
        with pytest.raises(InputError, match=r"^checkpoint is not a path"):
            as_path("checkpoint", value)
