"""The damped driven oscillator: integrators, networks that step it and that solve it, pulses.

The lecture's oscillator x'' + 0.4 x' + x = cos(t / 2), from (1, 0) over 20 time units, by Diffrax,
by the lecture's Runge-Kutta and by two PINNs (readout by Gauss-Newton, all weights by gradient),
against the closed form. An MLP and a GRU with frozen hidden parts learn its next-step map from many
starts and phases, and are tested on others, with the Duffing oscillator beside it, where a linear
map is not enough. A train of pulses drives it at last: the Fourier series' response, by
superposition, against Diffrax.
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
import tyro
from flax import nnx

from physml import data, dynamics, nn, pinn, plots, reference, surrogate, systems
from physml.experiment import Run

T1 = 20.0
Y0 = (1.0, 0.0)
DT = 0.05  # of the next-step maps
STEPS = 400  # of theirs in 20 time units
WARMUP = 31  # true rows that a recurrent network sees before a forecast


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/oscillator")
    """Folder for the table, metrics, figures and models."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """Smaller networks and shorter training: a look, most of it compiling."""
    harmonics: int = 1000
    """Harmonics of the pulses' Fourier series."""


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        solvers(run, config)
        next_step_maps(run, config)
        pulses(run, config)
        return run.metrics({})


def solvers(run: Run, config: Config) -> None:
    """One trajectory by four methods against the closed form."""
    system, y0, ts = systems.DrivenOscillator(), jnp.asarray(Y0), np.linspace(0.0, T1, 2001)
    exact = system.exact(ts, y0)
    network = nn.MLP(1, (32, 32), 2, activation="sin", rngs=nnx.Rngs(config.seed))
    steps = (200, 300) if config.quick else (1000, 3000)
    stages = (
        (optax.adam(optax.cosine_decay_schedule(3e-3, steps[0])), steps[0]),
        (optax.lbfgs(memory_size=50), steps[1]),
    )
    rk4 = reference.RungeKutta4(system=system, dt=0.001)  # as in the lecture
    methods: dict[str, Callable[[], jax.Array]] = {
        "rk4": lambda: dynamics.rollout(rk4, y0[None], 20_000)[::10],
        "diffrax": lambda: reference.solve(system, y0, ts).ys,
        "pinn": lambda: pinn.solve(system, y0, T1)(ts),
        "pinn_adam": lambda: pinn.train(
            network, system, y0, T1, stages=stages, progress=True
        ).solution(ts),
    }
    rows, paths = [], {}
    for name, method in methods.items():
        with run.timed() as timing:
            ys = jax.block_until_ready(method())
        figures = {
            "max_err": float(jnp.abs(ys - exact)[:, 0].max()),
            "rel_l2": float(dynamics.relative_l2(ys, exact).max()),
            "seconds": timing.seconds,
            "compile_seconds": timing.compile_seconds,
        }
        run.metrics(figures, prefix=name)
        rows.append([name, *figures.values()])
        paths[name] = ys[:, 0]
    run.table(
        rows,
        ["method", "max |x error|", "relative L2", "seconds", "compiling"],
        title="Driven oscillator from (1, 0) over 20 time units against the closed form, float64",
    )
    run.figure("solvers", plots.compare_solutions(ts, exact[:, 0], paths))


def next_step_maps(run: Run, config: Config) -> None:
    """Maps learned from many starts and phases, rolled out from starts and phases never seen."""
    keys = jax.random.split(jax.random.key(config.seed), 4)
    width = 300 if config.quick else 600
    driven, duffing = systems.DrivenOscillator(), systems.Duffing()
    problems: dict[str, tuple[Any, tuple[data.Trajectories, ...]]] = {
        "driven": (driven, many(driven, *keys[:2])),
        "duffing": (duffing, many(duffing, *keys[:2])),
    }
    rngs = nnx.Rngs(keys[2])
    fits = {
        "linear": ("driven", lambda x: nn.MLP(4, (), 2, rngs=rngs)),
        "mlp": ("driven", lambda x: nn.MLP.frozen(x, 200, 2, scale=0.01, rngs=rngs)),
        "gru": (
            "driven",
            lambda x: nn.RNN.frozen("gru", x, 60, 2, scale=0.005, spectral_radius=0.3, rngs=rngs),
        ),
        "duffing_linear": ("duffing", lambda x: nn.MLP(4, (), 2, rngs=rngs)),
        "duffing_mlp": ("duffing", lambda x: nn.MLP.frozen(x, width, 2, scale=0.03, rngs=rngs)),
    }
    rows, models, portraits = [], {}, {}
    for name, (problem, make) in fits.items():
        system, (train, test) = problems[problem]
        period = float(system.period)
        warmup = WARMUP - 1 if name == "gru" else 0
        with run.timed() as timing:
            network = make(surrogate.network_inputs(train, period=period))
            step_map = surrogate.fit_readout(network, train, period=period, warmup=warmup).step_map
            jax.block_until_ready(step_map)
        start = test.t0s + (WARMUP - 1) * DT
        truth = test.ys[:, WARMUP - 1 :]
        ys = dynamics.rollout(step_map, test.ys[:, :WARMUP], STEPS, t0=start)
        worst = jnp.abs(ys - truth)[..., 0].max(axis=1)
        figures = {"max_err": worst.max(), "median_err": jnp.median(worst)}
        run.metrics(figures | {"seconds": timing.seconds}, prefix=name)
        models[name] = step_map
        rows.append([name, *map(float, figures.values()), timing.seconds, timing.compile_seconds])
        if problem == "duffing":
            portraits |= {"truth": truth[0], name: ys[0]}
    run.save_model("maps", models)
    run.table(
        rows,
        ["map", "max |x error|", "median", "seconds", "compiling"],
        title="Next-step maps, hidden part frozen and readout by least squares,\n"
        "over 20 time units from 50 starts and phases never seen, float64",
    )
    run.figure("duffing", plots.phase_portrait(portraits))


def many(system: Any, key: jax.Array, split_key: jax.Array) -> tuple[data.Trajectories, ...]:
    """Trajectories from starts in [-2, 2]^2 at any phase of the drive: 200 to fit, 50 to test."""
    ts, box = DT * np.arange(STEPS + WARMUP), ((-2.0, -2.0), (2.0, 2.0))
    trajectories = reference.driven_trajectories(system, key, 250, ts, box=box)
    return data.split(trajectories, (0.8, 0.2), split_key)


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
    paths = {"superposition": ys[:, 0], "Diffrax": truth[:, 0]}
    run.figure("pulse_response", plots.compare_solutions(ts, closed[:, 0], paths))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
