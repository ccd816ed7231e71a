"""PINNs as solvers: nine equations by the plain call, and error over time beside Diffrax.

    python benchmarks/pinn.py [--out DIR] [--quick]

The first table solves each equation with the defaults. The truth of quadratic equations is a Taylor
series in double-double arithmetic at 1024 even times. The truth of the others is Gauss collocation
in NumPy's long double (19 digits where the platform has them), on halves of the PINN's windows and
at their ends, with right-hand sides written anew. The error estimate is judged where the true error
is above 1e-12 and above ten times the difference of two truths, on halves and on quarters: the
table has the share of estimates within a factor 3. The networks' own error, before it is
subtracted, is judged in the same way.

The second table is error against time, on the lecture's oscillator and on Lorenz, both to t = 20:
the PINN and Diffrax's Dopri8 at several tolerances, and classic training of one network. Seconds
are the best of five calls after the first (classic training: of its one run), without compiling.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from _pinn_truth import EQUATIONS, Equation, true_values
from flax import nnx

from physml import dynamics, experiment, nn, pinn, plots, reference
from physml.experiment import TIMES, Run, best_of, error_factors, slug
from physml.results import RESULTS


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_pinn")
    quick: bool = False
    """Three of the equations, few tolerances, short training."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        equations(run, list(EQUATIONS)[: 3 if config.quick else None])
        error_against_time(run, config)
        return run.metrics({})


def equations(run: Run, names: list[str]) -> None:
    """Solve each equation by the plain call, and compare it with the truth."""
    for name in names:
        equation = EQUATIONS[name]
        with run.row(slug(name.replace("-", " ")), name) as row:
            row["t1"] = equation.t1
            solution, row["seconds"], row["compile_seconds"] = best_of(
                lambda equation=equation: pinn.solve(equation.system, equation.y0, equation.t1)
            )
            ts, truth, doubt = true_values(equation, solution)
            dense: Any = solution.dense
            networks = np.asarray(jax.jit(jax.vmap(dense.networks.evaluate))(ts))
            ys = np.asarray(solution(ts))
            error = ys - truth
            relative = np.linalg.norm(error, axis=0) / np.linalg.norm(truth, axis=0)
            row.metrics({"windows": float(solution.stats["num_windows"]), "rel_l2": relative.max()})
            estimates = {
                "estimate_coverage": (solution.error_estimate(ts), error),
                "network_coverage": (networks - ys, networks - truth),
            }
            for key, (estimate, true) in estimates.items():
                factors = error_factors(estimate, true, np.maximum(1e-12, 10 * doubt))
                if factors.size:
                    row[key] = float(np.mean(factors < 3))
    columns = {
        "name": "equation", "t1": "t1", "windows": "windows", "rel_l2": "rel. L2",
        "estimate_coverage": "within 3x", "network_coverage": "networks", **TIMES,
    }  # fmt: skip
    title = "pinn.solve with its defaults, float64; '-': no error above 1e-12 to estimate"
    run.table(run.take_rows(), columns, title=title)


def error_against_time(run: Run, config: Config) -> None:
    """Compare the PINN, Diffrax and classic training on two equations."""
    for name in ("driven oscillator", "Lorenz"):
        equation = EQUATIONS[name]._replace(t1=20.0)
        ts, truth, _ = true_values(equation, pinn.solve(equation.system, equation.y0, equation.t1))
        rows = [
            [method, setting, float(dynamics.relative_l2(ys, jnp.asarray(truth)).max()), *cost]
            for method, setting, ys, *cost in answers(equation, ts, config)
        ]
        columns = ["method", "setting or verdict", "rel. L2", *TIMES.values()]
        run.table(rows, columns, title=f"{name} to t = 20: error against time, float64")
        system = slug(name)
        points: dict[str, list[tuple[float, float]]] = {}
        for method, _, error, seconds, _ in rows:
            points.setdefault(method, []).append((seconds, error))
        for method, pairs in points.items():
            seconds, error = min(pairs, key=lambda pair: pair[1])
            prefix = f"{system}.{slug(method.replace('-', ' '))}"
            run.metrics({"seconds": seconds, "rel_l2": error}, prefix=prefix)
        run.figure(f"{system}_error_against_time", plots.work_precision(points, title=name))


def answers(equation: Equation, ts: np.ndarray, config: Config) -> Iterator[list[Any]]:
    """Each method with its setting: states at `ts`, seconds, and seconds of compiling."""
    system, y0 = equation.system, equation.y0
    tolerances = (1e-4, 1e-8) if config.quick else (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
    for rtol in tolerances:
        solution, *cost = best_of(
            lambda rtol=rtol: pinn.solve(system, y0, equation.t1, ts=ts, rtol=rtol)
        )
        yield ["PINN", f"rtol {rtol:.0e}", solution.ys, *cost]
    start, times = jnp.asarray(y0), jnp.asarray(ts)
    tolerances = (1e-8,) if config.quick else (1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
    for rtol in tolerances:
        ys, *cost = best_of(lambda rtol=rtol: reference.dopri8(system, start, times, rtol))
        yield ["Diffrax Dopri8", f"rtol {rtol:.0e}", ys, *cost]
    for method, stages in classic(config).items():
        network = nn.MLP(1, (32, 32), len(y0), activation="sin", rngs=nnx.Rngs(0))
        options = {"ts": ts, "stages": stages, "throw": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the table has the verdict
            training = pinn.train(network, system, y0, equation.t1, **options)
        good = training.solution.result == RESULTS.successful
        costs = [sum(getattr(stage, key) for stage in training.fits) for key in TIMES]
        yield [method, "trusted" if good else "suspect", training.solution.ys, *costs]


def classic(config: Config) -> dict[str, Any]:
    """The stages of classic training by the method's name."""
    adam, lbfgs = (100, 100) if config.quick else (1000, 3000)
    rate = optax.cosine_decay_schedule(3e-3, adam)
    descent = (optax.adam(rate), adam), (optax.lbfgs(memory_size=50), lbfgs)
    return {"classic, Gauss-Newton": None, "classic, Adam and L-BFGS": descent}


if __name__ == "__main__":
    experiment.cli(main, Config)
