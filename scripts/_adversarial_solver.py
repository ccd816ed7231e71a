"""Two equations solved by a network: by Adam, by a critic of the residual, by Gauss-Newton."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import dynamics, fit, nn, pinn, plots, reference, systems
from physml.experiment import TIMES, Run

COLUMNS = {
    "name": "solver", "steps": "steps", "rel_l2": "relative L2", "estimated": "estimated", **TIMES,
}  # fmt: skip

WORDS = {
    "adam": "Adam",
    "adversarial": "with a critic of the residual",
    "gauss_newton": "Gauss-Newton",
}


def compare_solvers(run: Run, key: jax.Array, quick: bool) -> None:
    """Errors of the solvers for the driven oscillator and Lotka-Volterra, in two tables."""
    problems = {
        "oscillator": (systems.DrivenOscillator(), [1.0, 0.0], 20.0),
        "lotka_volterra": (systems.LotkaVolterra(), [1.0, 1.0], 5.0),
    }
    worst = []
    for name, (system, y0, t1) in problems.items():
        ts = np.linspace(0.0, t1, 2001)
        exact = reference.solve(system, jnp.asarray(y0), ts).ys
        curves = {}
        for method, stages in methods(200 if quick else 4000).items():
            prefix = f"solver.{name}.{method}"
            with run.row(prefix, f"{name.replace('_', ' ')}, {WORDS[method]}") as row:
                network = nn.MLP(1, (32, 32), 2, activation="sin", rngs=nnx.Rngs(key))
                options = {"stages": stages, "key": key, "progress": True, "throw": False}
                options["checkpoint"] = run.checkpoint(prefix)
                training = run.part(prefix, pinn.train, network, system, y0, t1, **options)
                row["rel_l2"] = dynamics.relative_l2(training.solution(ts), exact).max()
                row["estimated"] = training.solution.error_estimate(ts).max()
                row["seconds"] = sum(stage.seconds for stage in training.fits)
                row["compile_seconds"] = sum(stage.compile_seconds for stage in training.fits)
                row.shown["steps"] = sum(stage.step for stage in training.fits)
            losses = np.minimum.accumulate(training.losses)
            steps = np.arange(1, losses.size + 1)
            curves[WORDS[method]] = (steps, training.fits[0].seconds * steps / losses.size, losses)
            if method == "adversarial":
                worst.append(row.figures["rel_l2"])
        ylabel = "residual's mean square, smallest yet"
        run.figure(f"solver_{name}", plots.convergence(curves, ylabel=ylabel))
    run.metrics({"solver.rel_l2": max(worst)})
    run.table(run.take_rows(), COLUMNS, title="Equations solved by one network, float64")


def methods(steps: int) -> dict[str, Any]:
    """The stages of `pinn.train` by the method's name."""
    adam, slow = (
        fit.scheduled(optax.adam, learning_rate=fit.Cosine(rate, steps)) for rate in (3e-3, 1e-3)
    )
    critic = nn.MLP(2, (32, 32), 1, activation="silu", rngs=nnx.Rngs(0))
    return {
        "adam": ((adam, steps),),
        "adversarial": ((pinn.Adversarial(critic, adam, slow, noise=0.3), steps),),
        "gauss_newton": ((fit.VariableProjection(), max(10, steps // 50)),),
    }
