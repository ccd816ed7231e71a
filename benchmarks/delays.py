"""Equations with delays by the plain call, beside jitcdde: error, estimate, seconds.

    python benchmarks/delays.py [--out DIR] [--quick]

`_delays.py` states the problems and their truths. Errors are the largest over the interval, beside
the largest value; the estimate is the largest one of the same solution, and `least_share` the
smallest share of an error that was estimated, where the error is above 1e-14. jitcdde (G. Ansmann,
Chaos 28 (2018) 043116), where it is installed, gets the same equation and a tolerance, and steps on
the breaking points; its seconds are without compiling. Ours are the best of three calls after the
first.
"""

import contextlib
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _delays import Problem, problems
from _each_problem import measure_each

from physml import experiment, pinn, plots, systems
from physml.experiment import TIMES, Run, best_of


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_delays")
    quick: bool = False
    """Two problems, a loose tolerance for jitcdde, a short figure."""
    tolerance: float = 1e-9
    """Of jitcdde, relative and absolute."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    columns = {
        "name": "equation", "error": "error", "estimate": "estimate", **TIMES,
        "jitcdde_error": "jitcdde", "jitcdde_seconds": "its seconds",
    }  # fmt: skip
    title = "pinn.solve_delays with its defaults, float64"
    with Run(config.out, config) as run:
        rows = measure_each(run, config, problems(), measure, columns, title)
        draw(run, 300.0 if config.quick else 1500.0)
        return run.metrics({"least_share": min(row["least_share"] for row in rows)})


def measure(run: Run, name: str, problem: Problem, tolerance: float) -> None:
    """One equation: its row."""
    with run.row(name, problem.label) as row:
        times, truth = problem.truth()

        def ours() -> tuple[jax.Array, jax.Array, jax.Array]:
            solution = pinn.solve_delays(
                problem.system, [problem.history], problem.t1, t0=problem.t0
            )
            windows = solution.stats["num_windows"]
            return solution(times), solution.error_estimate(times), windows

        (values, estimates, windows), row["seconds"], row["compile_seconds"] = best_of(ours, 3)
        size = float(np.abs(truth).max())
        errors = np.abs(np.asarray(values)[:, 0] - truth) / size
        estimates = np.asarray(estimates)[:, 0] / size
        large = errors > 1e-14
        shares = estimates[large] / errors[large]
        row.metrics({
            "error": float(errors.max()), "estimate": float(estimates.max()),
            "least_share": float(shares.min()) if large.any() else 1.0, "windows": int(windows),
        })  # fmt: skip
        row.metrics(beside(problem, times, truth, tolerance))


def beside(
    problem: Problem, times: np.ndarray, truth: np.ndarray, tolerance: float
) -> dict[str, float]:
    """jitcdde's error and seconds; none where it is not installed or does not take the delay."""
    try:
        import jitcdde  # pyright: ignore[reportMissingImports]
        import symengine  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    if problem.jitcdde is None:
        return {}
    tau = float(problem.system.delays[0])  # pyright: ignore[reportArgumentType]
    rate = problem.jitcdde(jitcdde.y(0), jitcdde.y(0, jitcdde.t - tau), symengine)
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # else setuptools takes this project for the one to build
    ):
        warnings.simplefilter("ignore")  # of a constant past
        equation = jitcdde.jitcdde([rate], verbose=False)
        equation.constant_past([problem.history], time=problem.t0)
        equation.set_integration_parameters(rtol=tolerance, atol=tolerance, first_step=1e-3)
        equation.compile_C(simplify=False)
        start = time.perf_counter()
        equation.step_on_discontinuities()
        # It has passed the first breaking points, and answers for later times alone.
        later = times > equation.t
        found = np.array([equation.integrate(t)[0] for t in times[later]])
        seconds = time.perf_counter() - start
    error = float(np.abs(found - truth[later]).max() / np.abs(truth).max())
    return {"jitcdde_error": error, "jitcdde_seconds": seconds}


def draw(run: Run, t1: float) -> None:
    """Mackey and Glass's equation: the motion, and the plane of the state and the delayed state."""
    system = systems.MackeyGlass()
    tau = float(system.tau)
    solution = pinn.solve_delays(system, [0.5], t1)
    times = np.linspace(tau, t1, int(10 * t1))
    now, past = (np.asarray(solution(jnp.asarray(t)))[:, 0] for t in (times, times - tau))
    later = times > min(100.0, t1 / 3)  # on the attractor
    figure = plots.phase_portrait(
        {"Mackey and Glass": np.stack([now[later], past[later]], axis=1)},
        names=("x(t)", "x(t - 17)"),
    )
    run.figure("mackey_glass", figure)


if __name__ == "__main__":
    experiment.cli(main, Config)
