"""Partial equations in x and t by the plain call of `pinn.pde`: error, estimate, seconds.

    python benchmarks/partial_equations.py [--out DIR] [--quick]

`_partial_equations.py` states the problems and their truths. Errors and estimates are relative L2
norms on a grid of 257 x 21 points, of the worst unknown. `estimate_ratio` is the estimate over the
error, and `truth_error` how far the truth moves when it is computed once more with twice the modes
and steps, or by another quadrature. Seconds are those of the second call.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import numpy as np
from _each_problem import measure_each
from _partial_equations import Problem, problems

from physml import experiment, pinn, plots
from physml.experiment import TIMES, Run, best_of

_POINTS = 257, 21


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_partial_equations")
    quick: bool = False
    """Two problems with a loose tolerance."""
    tolerance: float = 1e-13
    """`rtol` of `pinn.pde`, which is its default."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    columns = {
        "name": "equation", "error": "error", "estimate": "estimate", "truth_error": "truth",
        "windows": "windows", "elements": "elements", **TIMES,
    }  # fmt: skip
    title = "pinn.pde, float64"
    with Run(config.out, config) as run:
        rows = measure_each(run, config, problems(), measure, columns, title)
        ratios = [row["estimate_ratio"] for row in rows]
        return run.metrics({"least_ratio": min(ratios), "greatest_ratio": max(ratios)})


def measure(run: Run, name: str, problem: Problem, tolerance: float) -> None:
    """One equation: its row, and a picture of the solution and its error."""
    with run.row(name, problem.label) as row:
        x, t = (
            np.linspace(*ends, number)
            for ends, number in zip(problem.domain.values(), _POINTS, strict=True)
        )
        grid = np.meshgrid(x, t, indexing="ij")
        truth, again = (problem.truth(x, t, finer) for finer in (0, 1))

        def ours() -> tuple[jax.Array, jax.Array, dict[str, Any]]:
            solution = pinn.pde(
                problem.residual, problem.domain, problem.conditions,
                rtol=max(tolerance, problem.least_tolerance), **problem.options,
            )  # fmt: skip
            return solution(*grid), solution.error_estimate(*grid), solution.stats

        (values, estimates, stats), row["seconds"], row["compile_seconds"] = best_of(ours, 1)
        error = relative_l2(np.asarray(values) - truth, truth)
        estimate = relative_l2(np.asarray(estimates), truth)
        row.metrics({
            "error": error, "estimate": estimate, "estimate_ratio": estimate / error,
            "truth_error": relative_l2(again - truth, truth),
            "windows": stats["num_windows"], "elements": max(stats["num_elements"]),
        })  # fmt: skip
    first, wrong = (a.reshape(*a.shape[:2], -1)[..., 0].T for a in (values, values - truth))
    run.figure(name, plots.field_and_error(t, x, first, wrong, names=("t", "x")))


def relative_l2(error: np.ndarray, truth: np.ndarray) -> float:
    """The relative L2 norm of the worst unknown."""
    error, truth = (a.reshape(*a.shape[:2], -1) for a in (error, truth))
    return float(np.max(np.linalg.norm(error, axis=(0, 1)) / np.linalg.norm(truth, axis=(0, 1))))


if __name__ == "__main__":
    experiment.cli(main, Config)
