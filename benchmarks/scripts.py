"""How long the scripts take, each in a process of its own, once their programs are compiled.

    python benchmarks/scripts.py [--programs DIR] [--only NAME ...] [--out DIR]

Every script runs twice with `--quick`, and the main job, `scripts/lorenz.py`, twice in full: first
to fill JAX's persistent compilation cache, then to be timed from the start of Python to its end.
The main job is also timed with nothing compiled before.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physml import experiment
from physml.experiment import Run

ROOT = Path(__file__).parents[1]
MAIN_JOB = "lorenz"
TOOLS = ("runs",)  # reads the folders of runs, and has no `--quick`
COLUMNS = {"name": "", "warm_seconds": "s, compiled before", "cold_seconds": "s, compiled anew"}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_scripts")
    programs: Path | None = None
    """Folder of what an earlier run of this benchmark compiled; then nothing runs to fill it."""
    only: tuple[str, ...] = ()
    """Names of scripts, all unless given."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    every = sorted(path.stem for path in (ROOT / "scripts").glob("[a-z]*.py"))
    names = [name for name in every if name not in TOOLS and name in (config.only or every)]
    with tempfile.TemporaryDirectory() as folder, Run(config.out, config) as run:
        kept = Path(folder) / "programs" if config.programs is None else config.programs.absolute()
        filled = kept.is_dir() and any(kept.iterdir())
        jobs = {name: [name, "--quick"] for name in names} | {"main_job": [MAIN_JOB]}
        if not filled:
            for words in jobs.values():
                seconds(words, kept, folder)
        for name, words in jobs.items():
            with run.row(name, " ".join(words)) as row:
                row["warm_seconds"] = seconds(words, kept, folder)
                if name == "main_job":
                    row["cold_seconds"] = seconds([*words, "--no-cache"], None, folder)
        rows = run.take_rows()
        run.table(rows, COLUMNS, title="Seconds from the start of Python to its end")
        return run.metrics({"quick.slowest_seconds": max(row["warm_seconds"] for row in rows[:-1])})


def seconds(words: list[str], cache: Path | None, folder: str) -> float:
    """The wall time of one run of a script, which must end well."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment["PYTHONPATH"] = str(ROOT)
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    name, *options = words
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *options]
    command += ["--out", tempfile.mkdtemp(dir=folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


if __name__ == "__main__":
    experiment.cli(main, Config)
