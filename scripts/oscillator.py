"""The damped driven oscillator: integrators, networks that step it and that solve it, pulses.

The lecture's oscillator x'' + 0.4 x' + x = cos(t / 2), from (1, 0) over 20 time units, is solved by
Diffrax, by the lecture's Runge-Kutta and by two PINNs (readout by Gauss-Newton, all weights by
gradient), and compared with the closed form. An MLP and a GRU with frozen hidden parts learn its
next-step map from many starts and phases, and are tested on others. The Duffing oscillator stands
beside it, as there a linear map is not enough. Last, a train of pulses drives the oscillator: its
response by superposition of a Fourier series is compared with Diffrax.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from _oscillator_maps import compare_maps
from flax import nnx

from physml import dynamics, experiment, nn, pinn, plots, reference, systems
from physml.experiment import TIMES, Run

T1 = 20.0
Y0 = (1.0, 0.0)
WORDS = {
    "rk4": "Runge-Kutta, step 0.001",
    "diffrax": "Diffrax",
    "pinn": "PINN, readout by Gauss-Newton",
    "pinn_adam": "PINN, all weights by gradient",
}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/oscillator")
    harmonics: int = 1000
    """Harmonics of the pulses' Fourier series."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        solvers(run, config)
        compare_maps(run, config.seed, config.quick)
        pulses(run, config)
        return run.metrics({})


def solvers(run: Run, config: Config) -> None:
    """One trajectory by four methods against the closed form."""
    system, y0, ts = systems.DrivenOscillator(), jnp.asarray(Y0), np.linspace(0.0, T1, 2001)
    exact = system.exact(ts, y0)
    network = nn.MLP(1, (32, 32), 2, activation="sin", rngs=nnx.Rngs(config.seed))
    steps = (200, 300) if config.quick else (1000, 3000)
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, steps[0]))
    stages = ((adam, steps[0]), (optax.lbfgs(memory_size=50), steps[1]))
    rk4 = reference.RungeKutta4(system=system, dt=0.001)  # as in the lecture

    def trained() -> jax.Array:
        kept: dict[str, Any] = {"checkpoint": run.checkpoint("pinn_adam"), "progress": True}
        return pinn.train(network, system, y0, T1, stages=stages, **kept).solution(ts)

    methods: dict[str, Callable[[], jax.Array]] = {
        "rk4": lambda: dynamics.rollout(rk4, y0[None], 20_000)[::10],
        "diffrax": lambda: reference.solve(system, y0, ts).ys,
        "pinn": lambda: pinn.solve(system, y0, T1)(ts),
        "pinn_adam": trained,
    }
    paths = {}
    for name, method in methods.items():
        with run.row(name, WORDS[name]) as row:
            ys = row.part(method)
            row["max_err"] = jnp.abs(ys - exact)[:, 0].max()
            row["rel_l2"] = dynamics.relative_l2(ys, exact).max()
        paths[WORDS[name]] = ys[:, 0]
    run.table(
        run.take_rows(),
        {"name": "method", "max_err": "max |x error|", "rel_l2": "relative L2", **TIMES},
        title="Driven oscillator from (1, 0) over 20 time units against the closed form, float64",
    )
    run.figure("solvers", plots.compare_solutions(ts, exact[:, 0], paths))


def pulses(run: Run, config: Config) -> None:
    """The response to a train of pulses, by superposition and in closed form, against Diffrax."""
    pulse, y0, ts = systems.SquareWave(), jnp.asarray(Y0), np.linspace(0.0, T1, 2001)
    truth = reference.solve(systems.DrivenOscillator(forcing=pulse), y0, ts).ys
    series = pulse.fourier_series(config.harmonics)
    ys = systems.DrivenOscillator(forcing=series).exact(ts, y0)
    closed = systems.DrivenOscillator(forcing=pulse).exact(ts, y0)
    error, closed_error = (float(jnp.abs(x - truth)[:, 0].max()) for x in (ys, closed))
    run.metrics({"pulse.max_err": error, "pulse.closed_form_max_err": closed_error})
    run.table(
        [[f"superposition of {config.harmonics} harmonics", error], ["closed form", closed_error]],
        ["pulses of height 2, period 0.2, width 0.1", "max |x error|"],
        title="Response to the pulse train over 20 time units against Diffrax, float64",
    )
    short = np.linspace(0.0, 0.6, 1201)
    sums = {f"up to harmonic {n}": pulse.fourier_series(n)(short) for n in (1, 5, 25)}
    run.figure("pulses", plots.partial_sums(short, pulse(short), sums))
    first = slice(201)  # ten of the hundred pulses
    paths = {"superposition": ys[first, 0], "Diffrax": truth[first, 0]}
    run.figure("pulse_response", plots.compare_solutions(ts[first], closed[first, 0], paths))


if __name__ == "__main__":
    experiment.cli(main, Config)
