"""Classic training of one network on one equation: optimizers, conditions, weights and points.

The lecture's oscillator x'' + 0.4 x' + x = cos(t / 2), from (1, 0) over 20 time units: two layers
of sine units, all their weights trained on the equation's residual at 200 times. Adam, Adam and
then L-BFGS, and Gauss-Newton with the last layer projected out; with the initial condition built in
or as a term of the loss; with weights of the terms and points that adapt; behind random Fourier
features. The error is that against the closed form; beside it the one that the solution estimates
itself, from the residual alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from physml import dynamics, fit, nn, pinn, plots, systems
from physml.experiment import Run

T1 = 20.0
Y0 = (1.0, 0.0)


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/pinn_training")
    """Folder for the table, metrics, figures and models."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """A small network, few steps and two of the methods: a look, most of it compiling."""


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    system, y0, ts = systems.DrivenOscillator(), jnp.asarray(Y0), np.linspace(0.0, T1, 2001)
    exact = system.exact(ts, y0)
    rows, curves, trained = [], {}, {}
    with Run(config.out, config) as run:
        for name, (network, options) in methods(config).items():
            key = jax.random.key(config.seed)
            training = pinn.train(network, system, y0, T1, key=key, progress=True, **options)
            solution, fits = training.solution, training.fits
            errors = jnp.abs(solution(ts) - exact)
            figures = {
                "rel_l2": float(dynamics.relative_l2(solution(ts), exact).max()),
                "max_err": float(errors.max()),
                "estimated_max_err": float(solution.error_estimate(ts).max()),
                "seconds": sum(stage.seconds for stage in fits),
                "compile_seconds": sum(stage.compile_seconds for stage in fits),
            }
            run.metrics(figures, prefix=name)
            rows.append([name, sum(stage.step for stage in fits), *figures.values()])
            curves[name] = curve(training)
            trained[name] = solution.dense
        run.save_model("networks", trained)
        run.table(
            rows,
            ["method", "steps", "relative L2", "max error", "estimated", "seconds", "compiling"],
            title="Driven oscillator from (1, 0) to t = 20 against the closed form, float64",
        )
        ylabel = "residual's mean square, smallest yet"
        run.figure("convergence", plots.convergence(curves, ylabel=ylabel))
        return run.metrics({})


def methods(config: Config) -> dict[str, tuple[nnx.Module, dict[str, Any]]]:
    """The network and the options of `pinn.train` by the method's name."""
    width = 12 if config.quick else 32
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
        return nn.MLP(num_inputs, (width, width), 2, activation="sin", rngs=rngs)

    features = nn.FourierFeatures(1, width // 2, scale=1.0, rngs=nnx.Rngs(config.seed + 1))
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
            nnx.Sequential(features, network(2 * (width // 2))),
            {"points": even, "stages": both},
        ),
        "gauss_newton_soft": (network(), soft | {"stages": gauss_newton}),
        "gauss_newton_resampled": (
            network(),
            {"points": pinn.Resampled(num_points, every=10), "stages": gauss_newton},
        ),
    }


def curve(training: pinn.Training) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, seconds and the smallest mean square yet; each stage's seconds in equal parts."""
    seconds = np.concatenate(
        [np.full(stage.step, stage.seconds / stage.step) for stage in training.fits]
    )
    losses = np.minimum.accumulate(training.losses)
    return np.arange(1, losses.size + 1), np.cumsum(seconds), losses


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
