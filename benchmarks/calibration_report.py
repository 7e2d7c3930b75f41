"""What the verdict of `report` and the kinds of intervals say of exact and of faulty ensembles.

``python -m benchmarks.calibration_report [--quick]``. Ensembles of 16 members and 200 independent
cases of six laws. ``accused`` is the share of ensembles that are not said to be calibrated: 5 % at
most is right for exact ones, and for the others it is the power of the tests. ``rank_50`` to
``student_90`` are the coverage of intervals between order statistics and of Student's.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.table import markdown, write_table
from invdiff.calibration import RankInterval, StudentInterval, coverage, report
from tests.support.laws import FAULTS, LAWS, SIGN_CHANGES, draws

__all__ = ["row_of"]


def row_of(name: str, fault: str, *, n_trials: int) -> dict[str, object]:
    """A row: how often ensembles of a law with a fault are accused, and their coverage."""
    accused, held = 0, []
    for seed in range(n_trials):
        members, truth = draws(LAWS[name], fault, seed=seed)
        verdict = report(members, truth, levels=[0.9], dim_independent="case").verdict
        accused += not verdict.startswith("The ensemble is calibrated")
        held.append(
            [
                coverage(members, truth, (0.5, 0.9), interval=interval).values
                for interval in (RankInterval(), StudentInterval())
            ]
        )
    (rank_50, rank_90), (student_50, student_90) = np.mean(held, 0).tolist()
    return {
        "case": name,
        "method": fault,
        "accused": accused / n_trials,
        "rank_50": rank_50,
        "rank_90": rank_90,
        "student_50": student_50,
        "student_90": student_90,
        "trials": n_trials,
    }


def main() -> None:
    """Print the table; write it unless quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials; writes no result")
    quick = parser.parse_args().quick
    rows = [
        row_of(name, fault, n_trials=(4 if quick else 200 if fault == "exact" else 40))
        for fault in (*FAULTS, SIGN_CHANGES)
        for name in LAWS
    ]
    print(markdown(rows))
    if not quick:
        write_table(
            "calibration_report",
            rows,
            command="python -m benchmarks.calibration_report",
            notes="200 trials of a rate of 5 % are off by 1.5 % (one standard error).",
        )


if __name__ == "__main__":
    main()
