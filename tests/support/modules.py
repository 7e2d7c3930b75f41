"""The modules of the package, and how a test imports one that may need an extra."""

import importlib
import pkgutil
import types

import pytest

import invdiff

OPTIONAL = {"devito", "deepwave", "segyio", "ismrmrd", "h5py", "nibabel"}

FOUND = [
    info
    for info in pkgutil.walk_packages(invdiff.__path__, "invdiff.")
    if not info.name.rpartition(".")[2].startswith("_")
]
MODULES = sorted(info.name for info in FOUND)
PACKAGES = ["invdiff", *sorted(info.name for info in FOUND if info.ispkg)]


def load(name: str) -> types.ModuleType:
    """Import a module, or skip the test where an extra that it needs is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"{name} needs {error.name}")
        raise
