"""The house rules that neither ruff, mypy nor import-linter can hold."""

import ast
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60  # without the docstring
MAX_POSITIONAL = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders; the links inside invdiff/ are not followed."""
    found = []
    for folder in folders:
        for parent, _, names in os.walk(ROOT / folder, followlinks=False):
            found += [Path(parent, name) for name in names if name.endswith(".py")]
    return sorted(found)


PACKAGE = python_files("invdiff", "operators", "priors")
EVERYTHING = PACKAGE + python_files("tests", "benchmarks")


def per_file(files: list[Path]) -> pytest.MarkDecorator:
    ids = [path.relative_to(ROOT).as_posix() for path in files]
    return pytest.mark.parametrize("path", files, ids=ids)


def functions(path: Path) -> Iterator[Function]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def public_functions(path: Path) -> Iterator[Function]:
    """Functions and methods that a user can name, so no closures."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for node in itertools.chain.from_iterable(bodies):
        if isinstance(node, Function) and (
            not node.name.startswith("_") or node.name in {"__init__", "__call__"}
        ):
            yield node


def n_code_lines(function: Function) -> int:
    n_lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return n_lines
    docstring = function.body[0]
    return n_lines - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def where(path: Path, function: Function) -> str:
    return f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"


def test_the_package_is_found() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in PACKAGE}
    assert folders == {"invdiff", "operators", "priors"}


@per_file(EVERYTHING)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@per_file(EVERYTHING)
def test_functions_are_short(path: Path) -> None:
    long = {where(path, f): n_code_lines(f) for f in functions(path)}
    assert {name: n for name, n in long.items() if n > MAX_FUNCTION_LINES} == {}


@per_file(PACKAGE)
def test_public_signatures_take_no_kwargs(path: Path) -> None:
    assert [where(path, f) for f in public_functions(path) if f.args.kwarg] == []


@per_file(PACKAGE)
def test_keyword_only_after_the_third_argument(path: Path) -> None:
    crowded = []
    for function in public_functions(path):
        names = [arg.arg for arg in function.args.posonlyargs + function.args.args]
        if names[:1] in (["self"], ["cls"], ["ctx"]):  # ctx: the signature is autograd's
            names = names[1:]
        if len(names) > MAX_POSITIONAL:
            crowded.append(where(path, function))
    assert crowded == []


@per_file(EVERYTHING)
def test_no_mutable_defaults(path: Path) -> None:
    mutable = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    guilty = []
    for function in functions(path):
        defaults = [*function.args.defaults, *function.args.kw_defaults]
        if any(isinstance(default, mutable) for default in defaults):
            guilty.append(where(path, function))
    assert guilty == []


@per_file(PACKAGE)
def test_no_print(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    assert "print" not in names


@pytest.mark.parametrize("name", ["operators", "priors"])
def test_links_are_relative(name: str) -> None:
    link = ROOT / "invdiff" / name
    assert link.is_symlink(), f"{link} must be a link to ../{name}: git config core.symlinks true"
    assert os.readlink(link) == f"../{name}"


@pytest.mark.parametrize("name", ["operators", "priors"])
def test_bare_import_is_refused(name: str) -> None:
    command = [sys.executable, "-c", f"import {name}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "ImportError" in result.stderr
    assert f"invdiff.{name}" in result.stderr
