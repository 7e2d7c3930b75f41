"""Notebooks run from top to bottom; they are stored without outputs."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def _cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    assert all(cell["outputs"] == [] for cell in _cells(path))


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path):
    namespace: dict[str, object] = {}
    for cell in _cells(path):
        exec(compile("".join(cell["source"]), path.name, "exec"), namespace)
    assert 0.8 < float(namespace["curve"].sel(level=0.9)) <= 1
