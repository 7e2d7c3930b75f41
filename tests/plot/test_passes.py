"""The rows and the picture of accuracy against network passes."""

import json
from pathlib import Path

import pytest

from benchmarks import passes, table

ROWS = [
    {"case": "z=1 lines R=4", "method": "zero-filled", "psnr": 20.0, "chi2": 3.0},
    {"case": "z=1 lines R=4", "method": "invdiff, 4 steps", "psnr": 30.0, "passes": 4},
    {"case": "z=2 lines R=4", "method": "invdiff, 4 steps", "psnr": 32.0, "passes": 4},
    {"case": "z=1 lines R=4", "method": "deepinv DPS", "psnr": 28.0, "passes": 3000},
    {"case": "z=1 lines R=8", "method": "invdiff, 4 steps", "psnr": 25.0, "passes": 4},
    {"case": "z=1 lines R=4", "method": "invdiff DAPS", "psnr": 27.0, "passes": 24},
    {"case": "z=2 lines R=4", "method": "invdiff DAPS", "psnr": 29.0, "passes": 24},
    {"case": "z=3 lines R=4", "method": "invdiff, 4 steps", "psnr": 40.0, "passes": 4},
]


def test_figures_are_means_over_slices_and_say_where_some_are_missing() -> None:
    """A slice on which one method alone ran is left out beside slices that more ran on."""
    assert passes.means(ROWS, "lines R=4", "psnr") == {
        "invdiff, 4 steps": (4.0, 31.0),
        "deepinv DPS (z=1)": (3000.0, 28.0),
        "invdiff DAPS": (24.0, 28.0),
    }
    assert passes.means(ROWS, "lines R=8", "psnr") == {"invdiff, 4 steps": (4.0, 25.0)}
    assert passes.means(ROWS, "lines R=4", "coverage90") == {}


def test_the_picture_of_the_committed_rows(tmp_path: Path) -> None:
    rows = json.loads((table.RESULTS / "mri_simulated.json").read_text())["rows"]
    passes.plot(rows, tmp_path / "passes.png")
    assert (tmp_path / "passes.png").stat().st_size > 10_000
    passes.plot(ROWS[:1], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_rows_that_are_not_made_again_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.kept("some", ROWS) == []
    table.write_table("some", ROWS, command="python -m benchmarks.some")
    assert table.kept("some", [ROWS[1] | {"psnr": 31.0}]) == [ROWS[0], *ROWS[2:]]
