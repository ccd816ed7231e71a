"""Partial equations in two coordinates of space by the plain call, and coefficients from data.

    python benchmarks/boxes.py [--out DIR] [--quick]

`_boxes.py` states the problems and their closed forms. The error is the relative L2 error of the
worst component, on a grid of 33 points in each coordinate of space and 9 in time, and the estimate
is the same norm of `error_estimate`; the factor is by how much the estimate is off, the larger over
the smaller. Seconds are those of a second call, without compiling.

The inverse problem is heat in a rod with an unknown diffusivity and an unknown strength of a
source, seen by five sensors at twenty times with noise: the coverage is the share of draws whose
95 % interval holds the truth, and the spread the root mean square error beside the standard
deviation that was said.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _boxes import Problem, inverse_problem, problems

from physml import experiment, pinn
from physml.experiment import TIMES, Run

QUICK, SPACE, TIME = ("heat",), 33, 9


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_boxes")
    quick: bool = False
    """One problem, few draws."""
    draws: int = 200
    """Of the noise, for the coverage of intervals."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    columns = {
        "name": "problem", "error": "error", "estimate": "estimate", "points": "points", **TIMES,
    }  # fmt: skip
    with Run(config.out, config) as run:
        for name, problem in problems().items():
            if not config.quick or name in QUICK:
                measure(run, name, problem)
        rows = run.take_rows()
        run.table(rows, columns, title="pinn.pde with its defaults, float64")
        cover(run, config)
        run.table(run.take_rows(), {"name": "parameter", "coverage": "coverage"}, title="intervals")
        return run.metrics({
            "worst_error": max(row["error"] for row in rows),
            "worst_factor": max(row["factor"] for row in rows),
            "slowest_seconds": max(row["seconds"] for row in rows),
        })  # fmt: skip


def measure(run: Run, name: str, problem: Problem) -> None:
    """One equation: its row."""
    with run.row(name, problem.label) as row:
        start = time.perf_counter()
        problem.solve()
        first = time.perf_counter() - start
        start = time.perf_counter()
        solution = problem.solve()
        seconds = time.perf_counter() - start
        row.metrics({"seconds": seconds, "compile_seconds": first - seconds})
        counts = [TIME if c == "t" else SPACE for c in solution.coordinates]
        ends = np.asarray(solution.domain)
        axes = [np.linspace(low, high, n) for (low, high), n in zip(ends, counts, strict=True)]
        points = np.meshgrid(*axes, indexing="ij")
        truth = np.asarray(problem.truth(*points))
        others = tuple(range(len(points)))

        def norm(values: Any) -> np.ndarray:
            return np.sqrt(np.sum(np.asarray(values) ** 2, axis=others))

        error = norm(np.asarray(solution(*points)) - truth)
        estimate = norm(solution.error_estimate(*points))
        row["factor"] = float(np.max(np.maximum(error / estimate, estimate / error)))
        row["error"] = float(np.max(error / norm(truth)))
        row["estimate"] = float(np.max(estimate / norm(truth)))
        sizes = solution.stats.get("num_points", solution.stats.get("num_elements"))
        row["points"] = int(np.max(sizes))


def cover(run: Run, config: Config) -> None:
    """The intervals of the inverse problem's parameters over draws of the noise."""
    data, draws = inverse_problem(), 5 if config.quick else config.draws
    random = np.random.default_rng(config.seed)
    noise = data.noise * random.standard_normal((draws, *data.truth.shape))

    @jax.jit
    @jax.vmap
    def fit(ys: jax.Array) -> tuple:
        found = pinn.identify(
            data.grid.system, data.times, ys, y0=data.grid.start, t0=0.0, known_start=True,
            free=tuple(data.values), observe=data.grid.at(x=data.sensors), num_windows=2,
            throw=False,
        )  # fmt: skip
        return found.values, found.sd, found.intervals()

    values, sd, intervals = fit(jnp.asarray(data.truth + noise))
    for name, true in data.values.items():
        with run.row(name, name) as row:
            low, high = map(np.asarray, intervals[name])
            row["coverage"] = float(np.mean((low <= true) & (true <= high)))
            rms = np.sqrt(np.mean((np.asarray(values[name]) - true) ** 2))
            row["spread"] = float(rms / np.mean(np.asarray(sd[name])))


if __name__ == "__main__":
    experiment.cli(main, Config)
