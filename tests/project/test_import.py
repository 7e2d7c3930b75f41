"""Importing invdiff is cheap: what is heavy or optional comes with the function that needs it."""

import importlib
import json
import subprocess
import sys

import pytest

HEAVY = ["dask", "deepinv", "deepwave", "devito", "distributed", "matplotlib", "sigpy", "zarr"]


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in `sys.modules` of a fresh interpreter that ran the statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


def test_import_is_light() -> None:
    assert loaded_after("import invdiff") & {*HEAVY, "torch", "xarray"} == set()


@pytest.mark.parametrize("package", ["operators", "priors"])
def test_operators_and_priors_load_nothing_optional(package: str) -> None:
    assert loaded_after(f"import invdiff.{package}") & set(HEAVY) == set()


@pytest.mark.parametrize("package", ["invdiff", "invdiff.operators"])
def test_names_of_a_stub_are_loaded_on_first_use(package: str) -> None:
    assert "torch" not in loaded_after(f"import {package}")
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        found = getattr(module, name)
        assert found is getattr(sys.modules[found.__module__], name)


def test_the_check_can_fail() -> None:
    assert "matplotlib" in loaded_after("import matplotlib")
