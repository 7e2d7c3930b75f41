"""What the package offers is what `__all__` says, documented."""

import inspect
import pkgutil
import types

import pytest

import invdiff
from tests.support.modules import MODULES, PACKAGES, load

MAX_ROOT_NAMES = 30


def test_root_all_is_the_public_names() -> None:
    def is_submodule(name: str) -> bool:
        value = getattr(invdiff, name)
        return isinstance(value, types.ModuleType) and value.__name__ == f"invdiff.{name}"

    public = {name for name in dir(invdiff) if not name.startswith("_")}
    offered = {name for name in invdiff.__all__ if not name.startswith("_")}
    assert offered <= public
    assert {name for name in public - offered if not is_submodule(name)} == set()


def test_root_is_small() -> None:
    assert len(invdiff.__all__) == len(set(invdiff.__all__)) <= MAX_ROOT_NAMES


@pytest.mark.parametrize("name", invdiff.__all__)
def test_root_names_have_docstrings(name: str) -> None:
    value = getattr(invdiff, name)
    if not isinstance(value, str):
        assert inspect.getdoc(value)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = invdiff.no_such_name


def test_modules_are_found() -> None:
    assert {"invdiff.errors", "invdiff.grid", "invdiff.operators", "invdiff.priors"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_offer(name: str) -> None:
    module = load(name)
    assert module.__doc__, f"{name} has no docstring"
    assert len(module.__all__) == len(set(module.__all__))
    for offered in module.__all__:
        value = getattr(module, offered)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{offered} has no docstring"


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_is_that_of_a_module_of_its_own_package(name: str) -> None:
    """`import package.thing` would replace the function `package.thing` by the module."""
    package = load(name)
    modules = {info.name for info in pkgutil.iter_modules(package.__path__)}
    # A package may offer a package of its own (`invdiff.priors.recipes`): the name is one object.
    functions = {
        offered
        for offered in package.__all__
        if not isinstance(getattr(package, offered), types.ModuleType)
    }
    assert functions & modules == set()
