"""Differential-algebraic equations by the plain call, beside SciPy's Radau on what is left of them.

    python benchmarks/constraints.py [--out DIR] [--quick]

`_constraints.py` states the problems. The error is that of the worst component, relative to its
largest value at the times at which the solution is known (for published digits the end), and so is
the estimate. The factor is by how much the estimate is off: the larger of the two over the smaller,
both counted as at least one rounding. SciPy solves no algebraic equations: it gets the differential
equation that is left when they are solved for by hand. Seconds are the best of five calls after the
first, for SciPy of one, without compiling.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import numpy as np
from _constraints import Problem, problems
from _each_problem import measure_each
from scipy.integrate import solve_ivp

from physml import experiment, pinn
from physml.experiment import TIMES, Run, best_of


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_constraints")
    quick: bool = False
    """Two problems, a loose tolerance for SciPy."""
    tolerance: float = 1e-10
    """Relative, of SciPy's Radau."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    columns = {
        "name": "problem", "error": "error", "estimate": "estimate", "num_windows": "windows",
        **TIMES, "scipy_error": "Radau", "scipy_seconds": "its seconds",
    }  # fmt: skip
    title = "pinn with its defaults, float64, beside Radau, reduced"
    with Run(config.out, config) as run:
        rows = measure_each(run, config, problems(), measure, columns, title)
        return run.metrics({"worst_factor": max(row["factor"] for row in rows)})


def measure(run: Run, name: str, problem: Problem, tolerance: float) -> None:
    """One problem: its row."""
    times, truth = problem.times, problem.truth
    size, rounding = np.max(np.abs(truth), axis=0), float(np.finfo(float).eps)

    def ours() -> Any:
        return jax.block_until_ready(
            pinn.solve_constrained(problem.system, problem.y0, times[-1], dy0=problem.dy0)
        )

    with run.row(name, problem.label) as row:
        solution, row["seconds"], row["compile_seconds"] = best_of(ours)
        known = truth.shape[1]
        error = np.max(np.abs(np.asarray(solution(times))[:, :known] - truth) / size)
        estimate = np.max(np.asarray(solution.error_estimate(times))[:, :known] / size)
        row.metrics({"error": float(error), "estimate": float(estimate)})
        least, most = sorted(max(float(x), rounding) for x in (error, estimate))
        row["factor"] = most / least
        row["num_windows"] = int(solution.stats["num_windows"])
        reduced, start = problem.reduced, time.perf_counter()
        found = solve_ivp(
            reduced.rates, (0.0, times[-1]), reduced.start, "Radau", t_eval=times,
            rtol=tolerance, atol=tolerance * np.asarray(reduced.atol),
        )  # fmt: skip
        row["scipy_seconds"] = time.perf_counter() - start
        states = reduced.whole(times, found.y.T)
        row["scipy_error"] = float(np.max(np.abs(states - truth) / size))


if __name__ == "__main__":
    experiment.cli(main, Config)
