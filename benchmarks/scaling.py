"""How memory and seconds grow: with the number of trajectories, and with the number of devices.

    python benchmarks/scaling.py [--out DIR] [--quick]

The climate of up to a million Lorenz trajectories of 800 steps is pooled a thousand at a time. Its
memory should not grow, nor the cost of a trajectory. Then the same trajectories are made on 1, 2, 4
and 8 devices (strong scaling), and 512 on each (weak scaling). A CPU stands for eight devices only
by name: they share its cores, so that the figures show what dividing the work costs, not what it
gains. Each row runs in a process of its own, so that the peak of the resident memory belongs to it.
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

CLIMATE = {
    "name": "trajectories", "seconds": "seconds", "us_per_trajectory": "us each",
    "cpu_us_per_trajectory": "CPU us each", "peak_gib": "peak GiB",
}  # fmt: skip
DEVICES = {
    "name": "devices", "strong_seconds": "4096 trajectories", "weak_seconds": "512 on each",
    "forecast_seconds": "4096 forecasts",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_scaling")
    seed: int = 0
    """Recorded; the rows draw by keys of their own."""
    quick: bool = False
    """Up to ten thousand trajectories, and two devices."""
    nums: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Trajectories of each climate; multiples of 1000."""
    counts: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    nums, counts = (config.nums[:2], config.counts[:2]) if config.quick else all_of(config)
    with Run(config.out, config) as run:
        climates = [measured(run, "climate", num) for num in nums]
        run.table(run.take_rows(), CLIMATE, title="Climate of Lorenz trajectories of 800 steps")
        wall, cpu = ([row[f"{name}us_per_trajectory"] for row in climates] for name in ("", "cpu_"))
        figures: dict[str, Any] = {
            "climate.peak_gib": max(row["peak_gib"] for row in climates),
            "climate.cost_ratio": max(cpu) / min(cpu),
            "climate.wall_ratio": max(wall) / min(wall),
        }
        print(f"cost of a trajectory: largest / smallest {figures['climate.cost_ratio']:.2f}")
        rows = [measured(run, "devices", count) for count in counts]
        run.table(run.take_rows(), DEVICES, title="Seconds on several devices")
        for row in rows:
            for name in ("strong", "weak", "forecast"):
                ratio = rows[0][f"{name}_seconds"] / row[f"{name}_seconds"]
                figures[f"devices.{row['count']}.{name}_gain"] = ratio
        figures["simulated"] = jax.default_backend() == "cpu"
        return run.metrics(figures)


def all_of(config: Config) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All that the options ask for; of accelerators, no more than there are."""
    there = 8 if jax.default_backend() == "cpu" else jax.device_count()
    return config.nums, tuple(count for count in config.counts if count <= there)


def measured(run: Run, kind: str, number: int) -> dict[str, float]:
    """The figures of a row, from a process of its own."""
    script = Path(__file__).with_name("_scaling_row.py")
    command = [sys.executable, str(script), kind, str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    with run.row(f"{kind}.{number}", f"{number:,}") as row:
        row.metrics(figures)
    return figures


if __name__ == "__main__":
    experiment.cli(main, Config)
