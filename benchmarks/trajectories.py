"""Batches of Lorenz trajectories: seconds, accuracy and memory, beside two other solvers.

    python benchmarks/trajectories.py [--out DIR] [--quick]

Each row runs in a process of its own, so that the peak of the resident memory belongs to it. A
trajectory has 800 steps of 0.01 from a start in the lecture's box [-15, 15]^3. The one-step error
is the difference between a step and one computed with a tolerance of 1e-14, over up to 200,000
steps of the batch. The other solvers run `peer_num` trajectories; the table scales all seconds to
10,000.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # as in the rows' own processes, for the record

from physml import experiment
from physml.experiment import Run

COLUMNS = {
    "name": "", "num": "num", "seconds": "seconds", "per_10000": "per 10,000",
    "compile_seconds": "compile", "error_max": "err max", "error_rms": "err rms",
    "output_mib": "output MiB", "peak_mib": "peak MiB",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_trajectories")
    quick: bool = False
    """Small batches only."""
    nums: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """Batch sizes."""
    peer_num: int = 100
    """Trajectories of the other solvers."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    jobs = [("physml", num) for num in ((100, 1_000) if config.quick else config.nums)]
    jobs += [(name, config.peer_num) for name in ("odeint", "vmapped Dopri8")]
    script = Path(__file__).with_name("_trajectories_row.py")
    with Run(config.out, config) as run:
        for name, num in jobs:
            command = [sys.executable, str(script), name, str(num)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            with run.row(f"{name.replace(' ', '_')}.{num}", name) as row:
                row.metrics(json.loads(done.stdout.splitlines()[-1]))
                row.shown["per_10000"] = row.figures["us_per_trajectory"] / 100
        run.table(run.take_rows(), COLUMNS)
        return run.metrics({})


if __name__ == "__main__":
    experiment.cli(main, Config)
