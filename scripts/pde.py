"""Partial differential equations solved by networks: heat, Poisson, wave, Burgers, Allen-Cahn.

One call of `pinn.pde` solves each equation: networks with a frozen hidden layer stand on elements
in space and windows in time, and Gauss-Newton finds their readouts from the equation's residual.
The truth is a closed form for the first three equations and the Cole-Hopf transform for Burgers.
For Allen-Cahn it is the method of lines by Diffrax, compared with itself on twice the points.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import numpy as np
from _equations import Equation, allen_cahn, burgers, heat, lines, poisson, wave

from physml import experiment, pinn, plots
from physml.experiment import TIMES, Run


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/pde")
    seed: int = 0
    """Recorded; nothing here is drawn at random."""
    quick: bool = False
    """Looser tolerances and a shorter time for Allen-Cahn."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    cahn = allen_cahn(0.1 if config.quick else 1.0)
    equations = {"heat": heat(), "poisson": poisson(), "wave": wave(), "burgers": burgers()}
    with Run(config.out, config) as run:
        for name, equation in (equations | {"allen_cahn": cahn}).items():
            solve(run, name, equation, config.quick)
        run.table(
            run.take_rows(),
            {"name": "equation", "rel_l2": "relative L2", "estimate": "estimate"}
            | {"residual": "residual", "windows": "windows", "elements": "elements"} | TIMES,
            title="Networks on elements and windows against the truth, float64",
        )  # fmt: skip
        return run.metrics({})


def solve(run: Run, name: str, equation: Equation, quick: bool) -> None:
    """One equation: its figures, and a picture of the solution and its error."""
    options: Any = equation.options | ({"rtol": 1e-6} if quick else {})
    first, second = equation.domain
    sizes = (257, 51) if quick else (513, 101)
    a, b = (np.linspace(*ab, n) for ab, n in zip(equation.domain.values(), sizes, strict=True))
    x, other = np.meshgrid(a, b, indexing="ij")

    def solved() -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """The values, the estimated error, and figures: a solution holds functions of ours."""
        with run.timed() as timing:
            arguments = equation.residual, equation.domain, equation.conditions
            kept = run.checkpoint(name) if second == "t" else None
            solution = jax.block_until_ready(pinn.pde(*arguments, **options, checkpoint=kept))
        stats, times = solution.stats, (timing.seconds, timing.compile_seconds)
        figures = {"residual": max(stats["residuals"]), "windows": stats["num_windows"]}
        figures |= {"elements": max(stats["num_elements"]), **dict(zip(TIMES, times, strict=True))}
        return (
            np.asarray(solution(x, other)),
            np.asarray(solution.error_estimate(x, other)),
            figures,
        )

    with run.row(name) as row:
        values, estimate, figures = run.part(name, solved)
        truth = run.part(f"{name}.truth", lambda: np.asarray(equation.truth(x, other)))
        error = values - truth
        row["rel_l2"] = np.linalg.norm(error) / np.linalg.norm(truth)
        row["estimate"] = np.linalg.norm(estimate) / np.linalg.norm(truth)
        row.metrics(figures)
        if name == "allen_cahn" and not quick:
            doubt = lines(a, b, num_points=8 * (len(a) - 1)) - truth
            row["truth_rel_l2"] = np.linalg.norm(doubt) / np.linalg.norm(truth)
    if second == "t":
        figure = plots.field_and_error(b, a, values.T, error.T, names=("t", first))
    else:
        figure = plots.field_and_error(a, b, values, error, names=(first, second))
    run.figure(name, figure)


if __name__ == "__main__":
    experiment.cli(main, Config)
