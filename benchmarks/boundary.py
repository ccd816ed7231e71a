"""Boundary value problems by the plain call, beside SciPy's solve_bvp: error, estimate, seconds.

    python benchmarks/boundary.py [--out DIR] [--quick]

`_boundary.py` states the problems. Each row is one number of a solution: its relative error, the
error that is estimated for it, and by how much the estimate is off: the larger of the two over the
smaller, both counted as at least one rounding. SciPy's `solve_bvp` gets the same guess on 201
points, a tolerance, and room for 200,000 points; intervals without an end are cut at 10. Seconds
are the best of five calls after the first, for SciPy of one, without compiling.
"""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import numpy as np
from _boundary import Problem, problems
from _each_problem import measure_each

from physml import experiment
from physml.experiment import TIMES, Run, best_of


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_boundary")
    quick: bool = False
    """Two problems, a loose tolerance for SciPy."""
    tolerance: float = 1e-9
    """Of `solve_bvp`; with a tenth of it some problems take minutes."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    columns = {
        "name": "problem", "number": "number", "error": "error", "estimate": "estimate",
        **TIMES, "scipy_error": "solve_bvp", "scipy_seconds": "its seconds",
    }  # fmt: skip
    title = "pinn with its defaults, float64, beside solve_bvp"
    with Run(config.out, config) as run:
        rows = measure_each(run, config, problems(), measure, columns, title)
        return run.metrics({"worst_factor": max(row["factor"] for row in rows)})


def measure(run: Run, name: str, problem: Problem, tolerance: float) -> None:
    """One problem: its row."""
    with run.row(name, problem.label) as row:
        row["number"] = problem.number
        (value, estimate), row["seconds"], row["compile_seconds"] = best_of(problem.ours)
        size, rounding = abs(problem.truth), float(np.finfo(float).eps)
        error = abs(value - problem.truth) / size
        row.metrics({"error": error, "estimate": estimate / size})
        known = sorted(max(x, rounding) for x in (error, estimate / size))
        row["factor"] = known[1] / known[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow on the way
            start = time.perf_counter()
            found = problem.scipy(tolerance)
            row["scipy_seconds"] = time.perf_counter() - start
        row["scipy_error"] = float(abs(found - problem.truth) / size)


if __name__ == "__main__":
    experiment.cli(main, Config)
