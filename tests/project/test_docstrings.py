"""`help` teaches: what the docstrings of methods state, and how short one may be."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from invdiff import fwi, likelihood, samplers, schedule
from invdiff.needs import registered
from tests.support.examples import ROOT

METHODS = [
    cls
    for kind in ("samplers", "conditionings")
    for cls in registered(kind)
    if cls.__module__.startswith("invdiff.")  # and not from another test
]
METHODS += [samplers.Ancestral, samplers.DDIM, samplers.DPMSolver, samplers.Heun, samplers.MALA]
METHODS += [samplers.SDEDPMSolver, samplers.TwistedSMC, samplers.ULA]
METHODS += [fwi.AnnealedMode, fwi.AnnealedPosterior, fwi.REDDiffusion, fwi.LBFGS, fwi.Adam]
LIKELIHOODS = [likelihood.Gaussian, likelihood.Poisson, likelihood.Rician, likelihood.StudentT]

FILES = sorted(
    path for folder in ("invdiff", "operators", "priors") for path in (ROOT / folder).rglob("*.py")
)
# The tree of errors is read as a whole; recipes are read as a page.
PAGES = {"invdiff/errors.py", "priors/recipes/brain_t1.py", "priors/recipes/velocity_2d.py"}
# A method that is a limit of another one refers to it.
PAPER = re.compile(
    r"(19|20)\d\d.{0,40}(arXiv|doi|ICLR)|https://|`AnnealedPosterior` without", re.DOTALL
)


def own(cls: type) -> str:
    """The docstring of a class itself: an inherited one describes another method."""
    return inspect.cleandoc(cls.__dict__["__doc__"] or "")


@pytest.mark.parametrize("cls", METHODS + LIKELIHOODS)
def test_a_method_states_formula_assumptions_and_cost(cls: type) -> None:
    text = own(cls)
    for part in ("Assumptions: ", "Cost: ", "::\n\n"):
        assert part in text, part


@pytest.mark.parametrize("cls", METHODS)
def test_a_method_names_its_paper(cls: type) -> None:
    assert PAPER.search(own(cls))


@pytest.mark.parametrize("cls", [schedule.VE, schedule.VP, schedule.Cosine, schedule.RectifiedFlow])
def test_a_schedule_states_levels_and_paper(cls: type) -> None:
    assert "alpha = " in own(cls)
    assert "arXiv" in own(cls)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_sentences(path: Path) -> None:
    assert too_short(path.read_text("utf-8")) == []


def too_short(source: str) -> list[str]:
    """Names of what has a docstring of one or two words."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    texts = {node: ast.get_docstring(node) for node in nodes}
    return [getattr(n, "name", "module") for n, text in texts.items() if text and is_short(text)]


def is_short(text: str) -> bool:
    return len(text.split()) < 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_one_line(path: Path) -> None:
    if path.name == "__init__.py" or str(path.relative_to(ROOT)) in PAGES:
        pytest.skip("this module describes more than its classes do")
    text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert text
    assert "\n" not in text


def test_a_short_docstring_is_found() -> None:
    source = '"""All of it."""\ndef f():\n    """Yes."""\nclass C:\n    """As the sampler."""\n'
    assert too_short(source) == ["f"]
