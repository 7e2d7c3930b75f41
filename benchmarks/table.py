"""Write the rows of a benchmark as JSON, and as a Markdown table beside it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

__all__ = ["kept", "markdown", "write_table"]

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "numpy", "deepinv", "azula", "sigpy")

Row = Mapping[str, object]


def write_table(name: str, rows: Sequence[Row], *, command: str, notes: str = "") -> Path:
    """Write ``results/NAME.json`` and ``results/NAME.md``; return the former.

    Args:
        name: of the benchmark.
        rows: one mapping a row, ``case`` and ``method`` first; a key may be missing in some rows.
        command: what makes these files again.
        notes: Markdown under the table.
    """
    if not rows:
        raise ValueError(f"benchmark {name!r} has no rows")
    versions = {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}
    date = datetime.now(UTC).date().isoformat()
    result = {"rows": [dict(row) for row in rows], "versions": versions} | {
        "command": command,
        "date": date,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    listed = ", ".join(f"{package} {number}" for package, number in versions.items())
    text = f"# {name}\n\n`{command}`, {date}; {listed}.\n\n{markdown(rows)}\n"
    path.with_suffix(".md").write_text(f"{text}\n{notes}\n" if notes else text, encoding="utf-8")
    return path


def kept(name: str, rows: Sequence[Row]) -> list[dict[str, object]]:
    """Rows of ``results/NAME.json`` whose case and method are not among ``rows``."""
    path = RESULTS / f"{name}.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    again = {(row["case"], row["method"]) for row in rows}
    return [row for row in stored if (row["case"], row["method"]) not in again]


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table; columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
