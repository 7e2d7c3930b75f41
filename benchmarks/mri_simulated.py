"""Reconstruction of simulated 8-coil scans of Colin27, which no prior was trained on.

PSNR (dB) and SSIM of magnitudes, of the posterior mean where there is an ensemble; ``coverage90``
of real and imaginary parts within the object; ``chi2`` the data misfit of the members, expected 1;
``seconds`` of a whole ensemble of ``--members``; ``passes`` of the network a member, a vjp counts
two. Run: ``python -m benchmarks.mri_simulated [--quick]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.mri_common import (
    Method,
    Scan,
    colin27_slice,
    diffpir,
    dps,
    l1_wavelet,
    parser,
    scores,
    sense,
    simulate,
    timed,
    total_variation,
    tune,
)
from benchmarks.table import markdown, write_table
from invdiff.operators.mri import poisson_disc, random_lines
from invdiff.priors import hub
from invdiff.protocols import Prior
from invdiff.samplers import DAPS, Ancestral, Heun, SplitGibbs
from invdiff.samplers.base import RatioSampler
from invdiff.verbs import reconstruct

NOISE_STD = 0.02
TUNING_SEED, TEST_SEED = 10, 0
POINT_METHODS: dict[str, tuple[Method, tuple[float, ...]]] = {
    "SENSE": (sense, (0.001, 0.003, 0.01, 0.03, 0.1)),
    "sigpy L1-wavelet": (l1_wavelet, (0.0015, 0.003, 0.006, 0.012, 0.025)),
    "sigpy TV": (total_variation, (0.003, 0.006, 0.012, 0.025, 0.05)),
}
DPS_WEIGHTS = (100.0, 300.0, 1000.0, 3000.0)
DIFFPIR_SETTINGS = tuple((lam, zeta) for lam in (2.0, 7.0, 20.0) for zeta in (0.1, 0.6))
# Of deepinv's methods while tuning: DPS diverges at strong guidance if its steps are few.
DPS_TUNING_STEPS, DIFFPIR_TUNING_STEPS = 150, 40


def masks(shape: tuple[int, ...], seed: int, *, quick: bool) -> dict[str, Tensor]:
    """The three ways of sampling; phase encoding along the last axis."""
    n = shape[-1]
    poisson = {"Poisson R=8": poisson_disc(shape, 8, calibration=16, seed=seed)}
    if quick:
        return poisson
    return {
        "lines R=4": random_lines(shape, 4, calibration=round(0.08 * n), seed=seed),
        "lines R=8": random_lines(shape, 8, calibration=round(0.04 * n), seed=seed),
        **poisson,
    }


def image_of(z: int, *, quick: bool) -> Tensor:
    """A slice; its central part for a quick look."""
    image = colin27_slice(z)
    return image[48:144, 40:120] if quick else image


class Peers:
    """Settings of the peers for one mask, tuned on another slice and another draw of the mask."""

    def __init__(
        self, options: argparse.Namespace, prior: Prior, case: tuple[Scan, Tensor]
    ) -> None:
        self.options, self.prior = options, prior
        self.chosen = {
            name: tune(method, grid, [case]) for name, (method, grid) in POINT_METHODS.items()
        }
        steps = min(DPS_TUNING_STEPS, options.dps_steps)

        def guided(scan: Scan, weight: float) -> Tensor:
            return dps(scan, prior, weight, n=1, steps=steps, seed=5)[0]

        def split(scan: Scan, setting: float) -> Tensor:
            strength, zeta = DIFFPIR_SETTINGS[int(setting)]
            steps = min(DIFFPIR_TUNING_STEPS, options.diffpir_steps)
            return diffpir(scan, prior, strength, n=1, steps=steps, zeta=zeta, seed=5)[0]

        self.weight = tune(guided, DPS_WEIGHTS, [case])
        self.strength, self.zeta = DIFFPIR_SETTINGS[
            int(tune(split, range(len(DIFFPIR_SETTINGS)), [case]))
        ]

    def points(self, scan: Scan) -> Iterator[tuple[str, dict[str, object], Callable[[], Tensor]]]:
        """Name, settings and run of each method that gives one image."""
        yield "zero-filled", {}, lambda: scan.operator.adjoint(scan.y[None])
        for name, (method, _) in POINT_METHODS.items():
            value = self.chosen[name]
            yield name, {"setting": f"lambda={value}"}, partial(_one, method, scan, value)

    def samplers(self, scan: Scan) -> Iterator[tuple[str, dict[str, object], Callable[[], Tensor]]]:
        """Name, settings and run of deepinv's samplers."""
        o = self.options
        yield (
            "deepinv DiffPIR",
            {
                "passes": o.diffpir_steps,
                "setting": f"lambda={self.strength}, zeta={self.zeta}, {o.diffpir_members} members",
            },
            partial(
                diffpir,
                scan,
                self.prior,
                self.strength,
                n=o.diffpir_members,
                steps=o.diffpir_steps,
                zeta=self.zeta,
                seed=0,
            ),
        )
        yield (
            "deepinv DPS",
            {
                "passes": 3 * o.dps_steps,
                "setting": f"weight={self.weight}, {o.dps_members} members",
            },
            partial(dps, scan, self.prior, self.weight, n=o.dps_members, steps=o.dps_steps, seed=0),
        )


def _one(method: Method, scan: Scan, value: float) -> Tensor:
    return method(scan, value)[None]


def draw(scan: Scan, prior: Prior, sampler: RatioSampler, *, members: int) -> Tensor:
    """An ensemble of ours."""
    posterior = reconstruct(
        scan.operator.range.to_dataarray(scan.y, "kspace"),
        scan.operator,
        prior,
        realizations=members,
        seed=0,
        noise_std=scan.noise_std,
        sampler=sampler,
    )
    return torch.from_numpy(posterior["image"].values)


def main() -> None:
    """Print the table; write it unless quick."""
    options = arguments()
    torch.set_num_threads(options.threads)
    tuning_image = image_of(options.tuning_slice, quick=options.quick)
    shape = tuple(tuning_image.shape)
    rows = []
    for kind, tuning_mask in masks(shape, TUNING_SEED, quick=options.quick).items():
        tuning = simulate(tuning_image, tuning_mask, noise_std=NOISE_STD, seed=TUNING_SEED)
        prior = hub.load_prior(options.prior, grid=tuning.operator.domain)
        peers = Peers(options, prior, (tuning, tuning_image))
        mask = masks(shape, TEST_SEED, quick=options.quick)[kind]
        for i, z in enumerate(options.slices):
            image = image_of(z, quick=options.quick)
            scan = simulate(image, mask, noise_std=NOISE_STD, seed=z)
            for row in judge(scan, image, peers, with_dps=i < options.dps_slices):
                rows.append({"case": f"z={z} {kind}", **row})
                print(markdown(rows[-1:]).splitlines()[-1], flush=True)
    print(markdown(rows))
    if not options.quick:
        write_table("mri_simulated", rows, command=command(options), notes=notes(options))


def judge(
    scan: Scan, image: Tensor, peers: Peers, *, with_dps: bool
) -> Iterator[dict[str, object]]:
    """Rows of one scan."""
    o = peers.options
    for name, settings, run in peers.points(scan):
        found, seconds = timed(run)
        yield {"method": name, **scores(found, scan, image), "seconds": seconds, **settings}
    gibbs = SplitGibbs(o.gibbs_steps, rho_max=1.0, rho_min=NOISE_STD, calls=6)
    ours: list[tuple[str, RatioSampler, int, int]] = [
        ("invdiff", Ancestral(o.steps), o.steps, o.members),
        ("invdiff DAPS", DAPS(o.steps), o.steps, o.members),
        ("invdiff SplitGibbs", gibbs, gibbs.steps * gibbs.calls, o.members // 2),
    ]
    if o.heun:
        ours.append(("invdiff Heun", Heun(o.steps), 2 * o.steps - 1, o.members // 2))
    for name, sampler, passes, members in ours:
        found, seconds = timed(partial(draw, scan, peers.prior, sampler, members=members))
        seconds *= o.members / members
        row = {"seconds": seconds, "passes": passes, "setting": f"{members} members"}
        yield {"method": name, **scores(found, scan, image), **row}
    for name, settings, run in peers.samplers(scan):
        if with_dps or name != "deepinv DPS":
            found, seconds = timed(run)
            seconds *= o.members / len(found)
            yield {"method": name, **scores(found, scan, image), "seconds": seconds, **settings}


def arguments() -> argparse.Namespace:
    """The options; a quick run makes everything small."""
    options = parser(__doc__)
    options.add_argument("--slices", type=int, nargs="+", default=[60, 80])
    options.add_argument("--tuning-slice", type=int, default=95)
    options.add_argument(
        "--dps-slices", type=int, default=1, help="of the slices, how many DPS runs on"
    )
    options.add_argument("--heun", action="store_true", help="run our Heun sampler too")
    options.add_argument("--gibbs-steps", type=int, default=12, help="sweeps of split Gibbs")
    options.add_argument("--dps-steps", type=int, default=1000)
    options.add_argument("--dps-members", type=int, default=2)
    options.add_argument("--diffpir-steps", type=int, default=100)
    options.add_argument("--diffpir-members", type=int, default=2)
    parsed = options.parse_args()
    if parsed.tuning_slice in parsed.slices:
        raise SystemExit("the tuning slice is among the test slices")
    if parsed.quick:
        parsed.slices, parsed.members, parsed.steps = parsed.slices[:1], 4, 8
        parsed.dps_steps, parsed.diffpir_steps, parsed.diffpir_members = 12, 10, 2
        parsed.gibbs_steps = 4
    return parsed


def command(options: argparse.Namespace) -> str:
    """What makes the table again."""
    slices = " ".join(map(str, options.slices))
    return (
        f"python -m benchmarks.mri_simulated --slices {slices} --members {options.members} "
        f"--steps {options.steps} --dps-steps {options.dps_steps} "
        f"--dps-members {options.dps_members} --dps-slices {options.dps_slices} "
        f"--threads {options.threads}" + (" --heun" if options.heun else "")
    )


def notes(options: argparse.Namespace) -> str:
    """What a reader must know."""
    return (
        f"Colin27 T1, 191 x 161, smooth phase, 8 birdcage coils, complex noise {NOISE_STD}. "
        f"Settings of peers were tuned on slice {options.tuning_slice} with another draw of the "
        f"mask (those of DPS at {DPS_TUNING_STEPS} steps, of DiffPIR at {DIFFPIR_TUNING_STEPS}). "
        "Methods of deepinv have the same prior; for them (and for invdiff SplitGibbs and Heun) "
        f"`seconds` of an ensemble of {options.members} is extrapolated from the members that "
        "`setting` tells. "
        "DPS starts at the prior's largest noise level and is not clipped; DiffPIR's inner solves "
        "stop at ten iterations (deepinv's default is 50, too slow here)."
    )


if __name__ == "__main__":
    main()
