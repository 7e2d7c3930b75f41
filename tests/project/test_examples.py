"""The examples of the documentation run: those of docstrings, and the code blocks of the pages."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from invdiff.cli import app
from invdiff.errors import MissingDependencyError
from tests.support.examples import ROOT, Block, Docstring, blocks, package_docstrings, sections
from tests.support.modules import load
from tests.support.page_files import GIVEN, make_files

UsageError = typer.BadParameter.__mro__[1]  # click's, or that of the click inside typer

DOCSTRINGS = package_docstrings()
# Packages of which each public class and function shows an example.
SHOWN = [
    "invdiff.calibration",
    "invdiff.covariance",
    "invdiff.fwi.misfit",
    "invdiff.operators",
    "invdiff.terms",
    "invdiff.verification",
]

PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
PAGES += sorted((ROOT / "docs").glob("**/*.md"))
BLOCKS = [
    block
    for path in PAGES
    for block in blocks(path.read_text("utf-8"), str(path.relative_to(ROOT)))
]
SECTIONS = {
    name: found
    for name, found in sections(BLOCKS).items()
    if {"python", "shell"} & {block.language for block in found}
}
COMMANDS = [(block, words) for block in BLOCKS for words in block.commands]

# Options that make a command of a page cheap; None: its words are checked, but it does not run.
CHEAPER: dict[str, list[str] | None] = {
    "demo": None,
    "invert": ["--max-solves", "40", "-n", "1", "--absorbing", "10"],
    "names": [],
    "reconstruct": [],
}
# Sections that do not run, and why.
NOT_RUN: dict[str, str] = {}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, and no figures left open."""
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    yield tmp_path
    pyplot.close("all")


@pytest.mark.parametrize("found", DOCSTRINGS, ids=str)
def test_docstring(found: Docstring, folder: Path) -> None:
    namespace = dict(vars(load(found.module)))
    if report := found.failures(namespace):
        pytest.fail(report, pytrace=False)


@pytest.mark.parametrize("package", SHOWN)
def test_each_public_name_shows_an_example(package: str) -> None:
    module = load(package)
    inside = [found for found in DOCSTRINGS if f"{found.module}.".startswith(f"{package}.")]
    named = {found.name.partition(".")[0] for found in inside}  # an example of a method counts
    offered = [name for name in module.__all__ if callable(getattr(module, name))]
    assert [name for name in offered if name not in named] == []


# The runs are too short, and the files too small, for members that fit their data.
@pytest.mark.filterwarnings("ignore::invdiff.errors.DataFitWarning")
@pytest.mark.parametrize("name", SECTIONS)
def test_section_of_a_page(name: str, folder: Path) -> None:
    if name in NOT_RUN:
        pytest.skip(NOT_RUN[name])
    found = SECTIONS[name]
    text = "".join(block.text for block in found)
    names = {node.id for block in found for node in used(block)}
    namespace = {key: make() for key, make in GIVEN.items() if key in names}
    try:
        make_files(text, folder)
        for block in found:
            if block.language == "python":
                block.run(namespace)
            for words in block.commands:
                run(words)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{b.page}:{b.line} {w[0]}" for b, w in COMMANDS]
)
def test_command_exists(block: Block, words: list[str]) -> None:
    program, *arguments = words
    if program == "invdiff":
        parse(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert [name for name in arguments if name not in targets and "=" not in name] == []
    elif program == "python":
        assert arguments[0] == "-m"
        assert find_spec(arguments[1]) is not None
    else:
        assert program in {"git", "pip", "cd"}, f"{block.page}: {words}"


def test_the_pages_are_found() -> None:
    assert {block.page for block in BLOCKS} >= {"README.md"}
    assert any(words[:2] == ["invdiff", "reconstruct"] for _, words in COMMANDS)
    assert DOCSTRINGS
    assert set(NOT_RUN) <= set(SECTIONS)


def used(block: Block) -> Iterator[ast.Name]:
    """Names in a block of Python."""
    if block.language == "python":
        yield from (n for n in ast.walk(ast.parse(block.text)) if isinstance(n, ast.Name))


def parse(arguments: list[str]) -> None:
    """Parse arguments of ``invdiff`` without running the command.

    Raises:
        UsageError: there is no such command or option, or a value is of another type.
    """
    group: Any = typer.main.get_command(app)
    with group.make_context("invdiff", list(arguments)) as context:
        _, command, rest = group.resolve_command(context, list(arguments))
        command.make_context(arguments[0], rest)


def run(words: list[str]) -> None:
    """Run a command of ``invdiff``, unless it is too long; other programs are not run."""
    program, *arguments = words
    if program != "invdiff" or CHEAPER[arguments[0]] is None:
        return
    done = CliRunner().invoke(app, [*arguments, *(CHEAPER[arguments[0]] or [])])
    if isinstance(done.exception, SystemExit) and "MissingDependencyError" in done.stderr:
        pytest.skip(done.stderr)
    assert done.exit_code == 0, (words, done.output, done.exception)


# --- the machinery itself ------------------------------------------------------------------------

PAGE = """# Title
```python
x = 1
```
## Use
Text with `code`.
```python
import invdiff
y = members.size
```
```
<xarray.Dataset>
```
```bash
# a comment
$ invdiff reconstruct a.npz \\
    b.zarr --prior brain-t1  # more
make test
```
```python
z = y + 1 / 0
```
"""


def test_blocks_of_a_page() -> None:
    found = blocks(PAGE, "page.md")
    assert [(b.section, b.language, b.line) for b in found] == [
        ("Title", "python", 3),
        ("Use", "python", 8),
        ("Use", "", 12),
        ("Use", "shell", 15),
        ("Use", "python", 21),
    ]
    assert list(sections(found)) == ["page.md: Title", "page.md: Use"]
    assert found[3].commands == [
        ["invdiff", "reconstruct", "a.npz", "b.zarr", "--prior", "brain-t1"],
        ["make", "test"],
    ]
    assert [b.commands for b in found if b.language != "shell"] == [[]] * 4
    assert {node.id for node in used(found[1])} == {"y", "members"}


def test_a_failing_block_shows_its_line() -> None:
    *_, failing = blocks(PAGE, "page.md")
    with pytest.raises(ZeroDivisionError) as caught:
        failing.run({"y": 1})
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno) == ("page.md", 20)  # from 0


def test_a_failing_docstring_is_reported() -> None:
    wrong = Docstring("invdiff", "f", ">>> 1 + 1\n3\n", Path("f.py"), 7)
    assert re.search(
        r'File "f.py", line 7, in invdiff\.f.*Expected:\s+3\s+Got:\s+2',
        wrong.failures({}),
        re.DOTALL,
    )
    right = Docstring(
        "invdiff", "f", ">>> print('a   b')\na b\n>>> [1, 2, 3]\n[1, ...]\n", Path(), 1
    )
    assert right.failures({}) == ""


@pytest.mark.parametrize(
    "arguments",
    [["reconstruct", "a.npz", "b.zarr"], ["reconstruct", "a", "b", "--prior", "p", "--no-such"],
     ["no-such"], ["invert", "a", "b", "--start", "c", "-n", "x"]],
    ids=["missing option", "unknown option", "unknown command", "wrong type"],
)  # fmt: skip
def test_wrong_commands_are_found(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(arguments)
