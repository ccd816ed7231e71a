"""Classic training of one network on one equation: optimizers, conditions, weights and points.

The lecture's oscillator x'' + 0.4 x' + x = cos(t / 2), from (1, 0) over 20 time units, is solved by
two layers of sine units, all their weights trained on the equation's residual at 200 times. The
methods are Adam, Adam and then L-BFGS, and Gauss-Newton with the last layer projected out; with the
initial condition built in or as a term of the loss; with weights of the terms and points that
adapt; behind random Fourier features. The table compares the error against the closed form with the
error that the solution itself estimates from the residual alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import dynamics, experiment, fit, nn, pinn, plots, systems
from physml.experiment import TIMES, Run

T1 = 20.0
Y0 = (1.0, 0.0)


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/pinn_training")
    quick: bool = False
    """A small network, few steps and two of the methods: a look, most of it compiling."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    system, y0, ts = systems.DrivenOscillator(), jnp.asarray(Y0), np.linspace(0.0, T1, 2001)
    exact = system.exact(ts, y0)
    curves, trained = {}, {}
    with Run(config.out, config) as run:
        for name, (network, options) in methods(config).items():
            key = jax.random.key(config.seed)
            with run.row(name, WORDS[name]) as row:
                options |= {"key": key, "checkpoint": run.checkpoint(name), "progress": True}
                training = run.part(name, pinn.train, network, system, y0, T1, **options)
                solution, fits = training.solution, training.fits
                row["rel_l2"] = dynamics.relative_l2(solution(ts), exact).max()
                row["max_err"] = jnp.abs(solution(ts) - exact).max()
                row["estimated_max_err"] = solution.error_estimate(ts).max()
                row["seconds"] = sum(stage.seconds for stage in fits)
                row["compile_seconds"] = sum(stage.compile_seconds for stage in fits)
                row.shown["steps"] = sum(stage.step for stage in fits)
            curves[WORDS[name]] = curve(training)
            trained[name] = solution.dense
        run.save_model("networks", trained)
        title = "Driven oscillator from (1, 0) to t = 20 against the closed form, float64"
        run.table(run.take_rows(), COLUMNS, title=title)
        ylabel = "residual's mean square, smallest yet"
        run.figure("convergence", plots.convergence(curves, ylabel=ylabel))
        return run.metrics({})


COLUMNS = {
    "name": "method", "steps": "steps", "rel_l2": "relative L2", "max_err": "max error",
    "estimated_max_err": "estimated", **TIMES,
}  # fmt: skip
WORDS = {
    "adam_lbfgs": "Adam, then L-BFGS",
    "gauss_newton": "Gauss-Newton",
    "adam": "Adam alone",
    "soft": "Adam, L-BFGS, soft start",
    "gradient_norm": "Adam, L-BFGS, gradient norms",
    "random_lookback": "Adam, L-BFGS, random lookback",
    "resampled": "Adam, L-BFGS, new points",
    "fourier": "Adam, L-BFGS, Fourier features",
    "gauss_newton_soft": "Gauss-Newton, soft start",
    "gauss_newton_resampled": "Gauss-Newton, new points",
}


def methods(config: Config) -> dict[str, tuple[nnx.Module, dict[str, Any]]]:
    """The network and the options of `pinn.train` by the method's name."""
    units = 12 if config.quick else 32
    num_points = 100 if config.quick else 200
    short, long, newton = (200, 200, 20) if config.quick else (1000, 3000, 60)
    even = pinn.Even(num_points)
    rate = fit.scheduled(optax.adam, learning_rate=fit.Cosine(3e-3, short))
    slow = fit.scheduled(optax.adam, learning_rate=fit.Cosine(3e-3, short + long))
    both = ((rate, short), (optax.lbfgs(memory_size=50), long))
    gauss_newton = ((fit.VariableProjection(), newton),)
    soft = {"condition": "soft", "points": even, "stages": both}

    def network(num_inputs: int = 1) -> nn.MLP:
        rngs = nnx.Rngs(config.seed)
        return nn.MLP(num_inputs, (units, units), 2, activation="sin", rngs=rngs)

    features = nn.FourierFeatures(1, units // 2, scale=1.0, rngs=nnx.Rngs(config.seed + 1))
    chosen: dict[str, tuple[nnx.Module, dict[str, Any]]] = {
        "adam_lbfgs": (network(), {"points": even, "stages": both}),
        "gauss_newton": (network(), {"points": even, "stages": gauss_newton}),
    }
    if config.quick:
        return chosen
    return chosen | {
        "adam": (network(), {"points": even, "stages": ((slow, short + long),)}),
        "soft": (network(), soft),
        "gradient_norm": (network(), soft | {"weights": pinn.GradientNorm()}),
        "random_lookback": (network(), soft | {"weights": pinn.RandomLookback()}),
        "resampled": (network(), {"points": pinn.Resampled(num_points), "stages": both}),
        "fourier": (
            nnx.Sequential(features, network(2 * (units // 2))),
            {"points": even, "stages": both},
        ),
        "gauss_newton_soft": (network(), soft | {"stages": gauss_newton}),
        "gauss_newton_resampled": (
            network(),
            {"points": pinn.Resampled(num_points, every=10), "stages": gauss_newton},
        ),
    }


def curve(training: pinn.Training) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, seconds (a stage's in equal parts) and the smallest mean square yet."""
    seconds = np.concatenate(
        [np.full(stage.step, stage.seconds / stage.step) for stage in training.fits]
    )
    losses = np.minimum.accumulate(training.losses)
    return np.arange(1, losses.size + 1), np.cumsum(seconds), losses


if __name__ == "__main__":
    experiment.cli(main, Config)
