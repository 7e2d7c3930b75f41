"""Examples in the documentation: those of docstrings, and the code blocks of Markdown pages."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE  # as in pyproject.toml, for pytest

SHELL = {"sh", "bash", "shell", "console"}
PROGRAMS = {
    "invdiff",
    "make",
    "pip",
    "python",
}  # a block without a language that begins so is shell

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Docstring:
    """A docstring that holds examples.

    Attributes:
        module: The module to import.
        name: The object in it, dotted; empty for the module itself.
        text: The docstring as it stands in the file.
        path: The file.
        line: The line of the file, from 1, on which the docstring begins.
    """

    module: str
    name: str
    text: str
    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".rstrip(".")

    def failures(self, namespace: dict[str, Any]) -> str:
        """Run the examples; the report of those that fail, empty if none does."""
        parser = doctest.DocTestParser()
        test = parser.get_doctest(self.text, namespace, str(self), str(self.path), self.line - 1)
        report: list[str] = []
        doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=report.append)
        return "".join(report)


def docstrings(path: Path, module: str) -> Iterator[Docstring]:
    """The docstrings of a file that hold examples; the file is read, not imported."""

    def walk(node: Documented, names: tuple[str, ...]) -> Iterator[Docstring]:
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            text = first.value.value
            if isinstance(text, str) and ">>> " in text:
                yield Docstring(module, ".".join(names), text, path, first.lineno)
        for child in node.body:
            if isinstance(child, Documented):
                yield from walk(child, (*names, child.name))

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), ())


def package_docstrings() -> list[Docstring]:
    """All docstrings of the package that hold examples, in the order of the files."""
    found: list[Docstring] = []
    for folder in ("invdiff", "operators", "priors"):
        for path in sorted((ROOT / folder).rglob("*.py")):  # links are not followed
            names = path.relative_to(ROOT).with_suffix("").parts
            names = names if names[0] == "invdiff" else ("invdiff", *names)
            module = ".".join(names).removesuffix(".__init__")
            found += docstrings(path, module)
    return found


@dataclass(frozen=True)
class Block:
    """A fenced block of code in a Markdown page.

    Attributes:
        page: The name of the page.
        section: The heading above the block.
        language: The word after the fence; "shell" for shell, empty for none.
        text: The code.
        line: The line of the page, from 1, on which the code begins.
    """

    page: str
    section: str
    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command of a shell block, without comments and prompts."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "shell" else []
        words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
        return [command for command in words if command]

    def run(self, namespace: dict[str, Any]) -> None:
        """Execute a block of Python; a traceback shows the line of the page."""
        code = "\n" * (self.line - 1) + self.text
        exec(compile(code, self.page, "exec"), namespace)


def blocks(text: str, page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    section, language, code = "", None, []
    for number, line in enumerate(text.splitlines(), start=1):
        if language is None and (heading := re.fullmatch(r"#+ (.+)", line)):
            section = heading[1]
        elif language is None and (fence := re.match(r"```\s*(\w*)", line)):
            language, code, begins = fence[1], [], number + 1
        elif language is not None and line.startswith("```"):
            begins_as_shell = not language and code and code[0].split()[:1][0] in PROGRAMS
            if language in SHELL or begins_as_shell:
                language = "shell"
            found.append(Block(page, section, language, "\n".join(code) + "\n", begins))
            language = None
        elif language is not None:
            code.append(line)
    return found


def sections(found: Iterable[Block]) -> dict[str, list[Block]]:
    """Blocks by page and section, in the order of the page."""
    grouped: dict[str, list[Block]] = {}
    for block in found:
        grouped.setdefault(f"{block.page}: {block.section}", []).append(block)
    return grouped
