"""What a result says of itself where prior or noise level do not fit the data.

``python -m benchmarks.hard_cases [--quick]``. Simulated 8-coil scans, Poisson R = 8: a head as the
prior expects it, a photograph in its place, and the head with its noise stated as half and as twice
what it is. ``psnr`` and ``coverage90`` (Student's) as in `benchmarks.mri_simulated`; ``misfit`` by
the stated noise, 1 where the members explain the data; ``verdicts`` are those in the attributes of
the result of `reconstruct` with its defaults.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.mri_common import (
    Scan,
    colin27_slice,
    parser,
    scores,
    simulate,
    timed,
    with_smooth_phase,
)
from benchmarks.table import markdown, write_table
from invdiff.errors import CalibrationWarning, DataFitWarning
from invdiff.operators.mri import poisson_disc
from invdiff.priors import load_prior
from invdiff.samplers import Ancestral
from invdiff.verbs import reconstruct

NOISE_STD, SLICE = 0.02, 60


def photograph(shape: tuple[int, ...]) -> Tensor:
    """The centre of scikit-image's cameraman, two pixels in one."""
    from skimage import data, measure

    whole = data.camera().astype(np.float32)
    top, left = ((n - 2 * m) // 2 for n, m in zip(whole.shape, shape, strict=True))
    centre = whole[top : top + 2 * shape[0], left : left + 2 * shape[1]]
    return with_smooth_phase(measure.block_reduce(centre, 2, np.mean).astype(np.float32))


def cases(*, quick: bool) -> Iterator[tuple[str, Tensor, float]]:
    """Name, image, and the stated noise over the true one."""
    head = colin27_slice(SLICE)
    head = head[48:144, 40:120] if quick else head
    yield "head, noise as it is", head, 1.0
    yield "photograph, noise as it is", photograph(tuple(head.shape)), 1.0
    yield "head, noise stated half", head, 0.5
    yield "head, noise stated twice", head, 2.0


def row_of(
    name: str, image: Tensor, factor: float, *, prior: str, members: int, steps: int
) -> dict[str, object]:
    """The figures of a case, and what its result says."""
    shape = tuple(image.shape)
    mask = poisson_disc(shape, 8, calibration=16, seed=0)
    scan = simulate(image, mask, noise_std=NOISE_STD, seed=SLICE)
    stated = Scan(scan.operator, scan.y, factor * NOISE_STD)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, seconds = timed(
            lambda: reconstruct(
                scan.operator.range.to_dataarray(scan.y, "kspace"),
                scan.operator,
                load_prior(prior, grid=scan.operator.domain),
                realizations=members,
                seed=0,
                noise_std=stated.noise_std,
                sampler=Ancestral(steps),
            )
        )
    kinds = {w.category for w in caught} & {CalibrationWarning, DataFitWarning}
    return (
        {"case": name, "method": f"invdiff, {steps} steps"}
        | scores(torch.from_numpy(found["image"].values), stated, image)
        | {"warnings": ", ".join(sorted(kind.__name__ for kind in kinds))}
        | {"verdicts": f"{found.attrs['invdiff_data_fit']} {found.attrs['invdiff_prior_fit']}"}
        | {"members": members, "seconds": seconds}
    )


def main() -> None:
    """Print the table; write it unless quick."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    members, steps = (4, 4) if options.quick else (options.members, options.steps)
    rows = []
    for name, image, factor in cases(quick=options.quick):
        rows.append(row_of(name, image, factor, prior=options.prior, members=members, steps=steps))
        print(markdown(rows[-1:]), flush=True)
    if not options.quick:
        write_table(
            "hard_cases",
            rows,
            command=f"python -m benchmarks.hard_cases --members {members} --steps {steps} "
            f"--threads {options.threads}",
            notes="The photograph is scikit-image's `camera` (CC0).",
        )


if __name__ == "__main__":
    main()
