"""What step models cost: seconds a member and step, gradients, and their memory with checkpoints.

``seconds`` are those of one step of one member, from a batch of eight in single precision on one
core, medians of the repetitions. In ``gradient`` cases they are of a gradient of the last state by
the first, a step and member; ``ratio`` is over a forward run of the same steps. ``mb`` is how far
that gradient lifts the peak memory of a process over its memory after a gradient of one step;
``mb_state`` is the size of one batch of states. There glibc's allocator returns blocks of 64 kB and
more to the system; by default its heap is fragmented to several times what the tensors take.
Run: ``python -m benchmarks.step_models [--quick]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.table import markdown, write_table
from invdiff.operators.atmosphere import (
    BarotropicVorticity,
    KolmogorovFlow,
    Lorenz63,
    Lorenz96,
    Rollout,
    ShallowWater,
    SphericalHarmonics,
    TwoLayerQG,
    galewsky_jet,
)
from invdiff.protocols import StepModel

T21, T42 = SphericalHarmonics(32), SphericalHarmonics(64)
N_MEMBERS = 8
MODELS: dict[str, StepModel] = {
    "Lorenz-63": Lorenz63(),
    "Lorenz-96, 40 sites": Lorenz96(),
    "Kolmogorov flow 64x64": KolmogorovFlow(64),
    "Kolmogorov flow 128x128": KolmogorovFlow(128, dt=0.005),
    "two-layer QG 64x64": TwoLayerQG(64),
    "two-layer QG 128x128": TwoLayerQG(128, dt=500.0),
    "barotropic vorticity T21, 32x64": BarotropicVorticity(T21),
    "barotropic vorticity T42, 64x128": BarotropicVorticity(T42, dt=1200.0),
    "shallow water T21, 32x64": ShallowWater(T21),
    "shallow water T42, 64x128": ShallowWater(T42),
}
CHECKPOINTS = {"all stored": 0, "default": None, "every state": 1, "every 8th state": 8}
Row = dict[str, object]


def states(model: StepModel) -> Tensor:
    """Members that the model can step: noise of a size that suits it."""
    noise = torch.from_numpy(
        np.random.default_rng(0).standard_normal((N_MEMBERS, *model.grid.shape))
    )
    if isinstance(model, ShallowWater):
        jet = galewsky_jet(model)
        return jet + torch.tensor([0.1, 0.1, 1.0])[:, None, None] * noise.float()
    scale = 1e-6 if model.grid.units == "s-1" else 1.0
    return scale * noise.float()


def run(rollout: Rollout, x: Tensor, *, with_gradient: bool) -> None:
    """The last state, or its gradient by the first."""
    if not with_gradient:
        with torch.no_grad():
            rollout(x)
        return
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(rollout(leaf).square().sum(), leaf)


def median(task: Callable[[], object], n: int) -> float:
    """Median seconds of a task; the first run is not counted."""
    seconds = []
    for turn in range(n + 1):
        start = time.perf_counter()
        task()
        if turn:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def speed(n_steps: int, n: int) -> list[Row]:
    """Seconds of a step and of a gradient, for each model."""
    rows: list[Row] = []
    for name, model in MODELS.items():
        rollout, x = Rollout(model, n_steps, every=n_steps), states(model)
        work = n_steps * N_MEMBERS
        forward, gradient = (
            median(lambda r=rollout, x=x, g=g: run(r, x, with_gradient=g), n) / work
            for g in (False, True)
        )
        rows.append({"case": f"step {name}", "method": "invdiff", "seconds": forward})
        rows.append({"case": f"gradient {name}", "method": "invdiff", "seconds": gradient,
                     "ratio": gradient / forward})  # fmt: skip
    return rows


def memory(names: list[str], n_steps: int) -> list[Row]:
    """Peaks of subprocesses, one for each way to store the trajectory."""
    rows: list[Row] = []
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    for name in names:
        megabytes = 4e-6 * N_MEMBERS * MODELS[name].grid.size
        for way in CHECKPOINTS:
            command = [sys.executable, "-m", "benchmarks.step_models", "--memory", name, way]
            command += [str(n_steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            rows.append({"case": f"memory {name}, {n_steps} steps", "method": f"invdiff, {way}",
                         "mb": float(done.stdout), "mb_state": megabytes})  # fmt: skip
    return rows


def measure_memory(name: str, way: str, n_steps: int) -> None:
    """Print how far a gradient lifts this process's peak over its memory after one step's."""
    model = MODELS[name]
    rollout = Rollout(model, n_steps, every=n_steps, checkpoint=CHECKPOINTS[way])
    x = states(model)
    # Loads what a first backward pass through a checkpoint loads, which are 150 MB of modules.
    run(Rollout(model, 1, checkpoint=1), x, with_gradient=True)
    before = memory_in_mb("VmRSS")
    run(rollout, x, with_gradient=True)
    sys.stdout.write(f"{memory_in_mb('VmHWM') - before:.1f}\n")


def memory_in_mb(which: str) -> float:
    """Of this process, by Linux: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(text.split()[1] for text in lines if text.startswith(which))) * 1024 / 1e6


def main() -> None:
    """Print the table; write it unless quick."""
    options = arguments()
    torch.set_num_threads(1)
    if options.memory:
        name, way, n_steps = options.memory
        measure_memory(name, way, int(n_steps))
        return
    before = os.getloadavg()[0]
    rows = speed(*((4, 1) if options.quick else (10, options.repetitions)))
    names = ["two-layer QG 64x64", "shallow water T21, 32x64"]
    rows += memory(names[:1], 20) if options.quick else memory(names, 100)
    load = f"Load of the machine ({os.cpu_count()} cores): {before:.1f} before, "
    load += f"{os.getloadavg()[0]:.1f} after: timings are of a busy machine where it exceeds 1."
    sys.stdout.write(f"{markdown(rows)}\n{load}\n")
    if not options.quick:
        command = f"python -m benchmarks.step_models --repetitions {options.repetitions}"
        notes = f"{__doc__.split(chr(10) * 2)[1]}\n\n{load}"
        write_table("step_models", rows, command=command, notes=notes)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few steps; writes no result")
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
