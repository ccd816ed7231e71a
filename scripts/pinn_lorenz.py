"""A PINN on the Lorenz system, far past what is published: its error to t = 35, and its cost.

The starts are (1, 1, 1) and points on the attractor; the truth is computed in double-double
arithmetic. The published benchmark (Wang, Sankaran, Perdikaris 2022) ends at t = 20 with relative
L2 errors of about 1e-2. The cost is compared with Diffrax's Dopri8 at the loosest tolerance that
reaches the PINN's error, or, where no tolerance in float64 does, at its most accurate one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _pinn_cost import DT, LORENZ, grid, measure_cost, worst_component

from physml import dynamics, experiment, pinn, plots, reference
from physml.experiment import Run, error_factors

LAMBDA1 = LORENZ.lambda1  # 1 / LAMBDA1 is a Lyapunov time
ENDS = (20, 30, 35)
PUBLISHED = {"x": 1.14e-2, "y": 1.66e-2, "z": 7.0e-3}  # relative L2 at t = 20, arXiv 2203.07404


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/pinn_lorenz")
    quick: bool = False
    """Four starts on the attractor, a batch of eight."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    starts, batch = (4, 8) if config.quick else (32, 256)
    with Run(config.out, config) as run:
        along_the_benchmark(run)
        on_the_attractor(run, jax.random.key(config.seed), starts)
        measure_cost(run, jax.random.key(config.seed + 1), batch)
        return run.metrics({})


def ratio_p95(estimate: jax.Array, error: jax.Array) -> float:
    """The factor between estimate and error that 95 % of the estimates stay within."""
    return float(np.quantile(error_factors(estimate, error), 0.95))


def along_the_benchmark(run: Run) -> None:
    """The published start: errors at the three ends, and how honest the error estimate is."""
    y0, ts = jnp.ones(3), grid(ENDS[-1])
    truth = run.part("truth", reference.extended_trajectories, LORENZ, y0[None], ts).ys[0]
    solution = run.part("solution", pinn.solve, LORENZ, y0, t1=float(ENDS[-1]))
    dense: Any = solution.dense
    networks = jax.vmap(dense.networks.evaluate)(ts)
    answers = {
        "": ("PINN", solution(ts)),
        "networks": ("PINN before its error is subtracted", networks),
        "diffrax": ("Diffrax Dopri8, rtol 1e-13", reference.solve(LORENZ, y0, ts).ys),
    }
    for name, (label, ys) in answers.items():
        with run.row(name, label) as row:
            errors = dynamics.relative_l2_until(ys, truth, DT, ENDS)
            row.metrics({f"rel_l2_t{end}": error for end, error in errors.items()})
    with run.row("published", "published PINN") as row:
        row["rel_l2_t20"] = max(PUBLISHED.values())
    run.table(
        run.take_rows(),
        {"name": "solver"} | {f"rel_l2_t{end}": f"t = {end}" for end in ENDS},
        title="Relative L2 error on [0, t] from (1, 1, 1), worst component, float64",
    )

    estimate, part = solution.error_estimate(ts), slice(0, len(grid(20)))
    # To t = 20 the solution's own error is rounding; there the error that was subtracted is judged.
    subtracted, error = (networks - solution(ts))[part], (networks - truth)[part]
    own, networks_own = ratio_p95(estimate, solution(ts) - truth), ratio_p95(subtracted, error)
    run.metrics({"error_estimate_ratio_p95": own, "network_error_ratio_p95": networks_own})
    figure = plots.solution_error(
        ts, truth, solution(ts), names=LORENZ.state_names, estimate=estimate, lambda1=LAMBDA1
    )
    run.figure("solution", figure)


def on_the_attractor(run: Run, key: jax.Array, num: int) -> None:
    """Starts on the attractor, where errors grow as exp(0.9 t) from the first step."""
    starts = reference.attractor_starts(LORENZ, key, num)
    ts = grid(20)
    truths = run.part("truths", reference.extended_trajectories, LORENZ, starts, ts).ys
    pairs = enumerate(zip(starts, truths, strict=True))
    errors = [
        worst_component(run.part(f"start_{i}", pinn.solve, LORENZ, y0, t1=20.0)(ts), truth)
        for i, (y0, truth) in pairs
    ]
    low, median, high = np.quantile(errors, [0.05, 0.5, 0.95])
    run.table(
        [[num, low, median, high]],
        ["starts", "5 %", "median", "95 %"],
        title="Relative L2 error on [0, 20] from the attractor, worst component, float64",
    )
    run.metrics({"attractor_median_rel_l2_t20": median, "attractor_starts": num})


if __name__ == "__main__":
    experiment.cli(main, Config)
