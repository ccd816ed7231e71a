"""How long a new process waits for its first answers, beside another checkout if one is named.

    python benchmarks/first_answer.py [--before PATH] [--repeats N] [--out DIR]

Every figure is the median of several new processes, and the two checkouts take turns. `first` is
the first call with its compiling, whose data are ready; `CPU` is its processor time, which another
process on the machine hardly changes; `again` is the second call. `cold` is the first call while
JAX's persistent compilation cache is filled, `warm` the first call of the next process, which reads
it. The import is of the rooms that compute, on top of jax, flax.nnx, optax and diffrax.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # as the processes do, so that the run says so

from physml import experiment
from physml.experiment import Run

ROOT = Path(__file__).parents[1]
CALLS = ("reference_solve", "pinn_solve", "fit_readout", "identify")
COLUMNS = {
    "name": "", "seconds": "first", "user_seconds": "CPU", "again_seconds": "again",
    "cold_seconds": "cold", "warm_seconds": "warm", "ratio": "of before",
}  # fmt: skip


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_first_answer")
    quick: bool = False
    """One process for each figure."""
    before: Path | None = None
    """Another checkout of this repository, measured in turn."""
    repeats: int = 5
    """Processes for each figure."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    trees = {"now": ROOT} | ({} if config.before is None else {"before": config.before.resolve()})
    repeats = 1 if config.quick else config.repeats
    with Run(config.out, config) as run:
        run.metrics({"repeats": repeats})
        for tree in trees.values():  # writes bytecode, and fills the file cache
            measure("imports", tree)
        for name in ("imports", *CALLS):
            runs: dict[str, list[dict[str, float]]] = {tree: [] for tree in trees}
            for _ in range(repeats):
                for tree, path in trees.items():
                    runs[tree].append(measure_all(name, path))
            medians = {tree: median(found) for tree, found in runs.items()}
            for tree, figures in medians.items():
                with run.row(f"{tree}.{name}", f"{name}, {tree}") as row:
                    row.metrics(figures)
                    if tree == "now" and "before" in medians:
                        row["ratio"] = figures["seconds"] / medians["before"]["seconds"]
        run.table(run.take_rows(), COLUMNS, title="Seconds, medians")
        return run.metrics({})


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: statistics.median(found[key] for found in runs) for key in runs[0]}


def measure_all(name: str, tree: Path) -> dict[str, float]:
    """The figures of one call: without a cache, with an empty one, and with a full one."""
    figures = measure(name, tree)
    if name in CALLS:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                figures[f"{state}_seconds"] = measure(name, tree, cache)["seconds"]
    return figures


def measure(name: str, tree: Path, cache: str | None = None) -> dict[str, float]:
    """One call in a new process, of the package in a checkout."""
    script = Path(__file__).with_name("_first_answer_row.py")
    names = ("PYTHONDONTWRITEBYTECODE", "JAX_COMPILATION_CACHE_DIR")  # as on a user's machine
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment["PYTHONPATH"] = str(tree)
    if cache is not None:  # switched on by JAX's own variables, because old checkouts have no other
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, str(script), name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    experiment.cli(main, Config)
