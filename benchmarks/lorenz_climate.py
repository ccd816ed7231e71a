"""The climate of Lorenz surrogates: 20 rollouts of 100,000 steps, compared with the truth's.

    python benchmarks/lorenz_climate.py [--out DIR] [--seed N] [--quick]

A forecast ends after some thirty Lyapunov times. This benchmark asks whether the surrogate's
trajectories stay on the attractor afterwards, and visit its parts as often as the truth does. The
truth is the flow by steps of order 8 from 40 independent starts on the attractor: 20 are compared
with the surrogates, and the other 20 show how far the truth is from itself. A distance counts as
inside if it is below the 99th percentile of the distances between random halves of the 40.
Intervals of exponents are 95 % intervals of a block bootstrap over time and rollouts, with five
blocks of each rollout (shorter blocks would make them too wide, because the leading exponent's
fluctuations fall faster than 1 / sqrt(T)).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import _baselines as baselines
import _recipes as recipes
import numpy as np
from _lorenz import DT, HISTORY, LORENZ, lecture_data, measure_climate

from physml import data, dynamics, experiment, plots, reference
from physml.experiment import Run
from physml.step_maps import StepMap

NUM = 20  # rollouts
BLOCKS = 5  # of each, for the bootstrap
EXPONENTS: Any = LORENZ.lyapunov_exponents
KNOWN: dict[str, float] = dict(zip(("lambda1", "lambda2", "lambda3"), EXPONENTS, strict=True))
KNOWN["kaplan_yorke"] = 2 + (EXPONENTS[0] + EXPONENTS[1]) / -EXPONENTS[2]

WORDS = {
    "mlp_frozen": "MLP, frozen",
    "rnn_frozen": "RNN, frozen",
    "polynomial_10": "polynomials of degree 10",
}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/lorenz_climate")
    quick: bool = False
    """Rollouts of 10,000 steps."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    num_steps = 10_000 if config.quick else 100_000
    keys = jax.random.split(jax.random.key(config.seed), 4)
    train = lecture_data(keys[0])
    starts = reference.attractor_starts(LORENZ, keys[1], 3 * NUM)
    rows = reference.trajectories_from(LORENZ, starts, DT * np.arange(2001)).ys
    measure = partial(measure_climate, num_steps=num_steps, rows=rows)
    with Run(config.out, config) as run:
        run.metrics({"rollouts": NUM, "steps": num_steps, "dt": DT})
        run.metrics(KNOWN, prefix="known")
        with run.row("truth") as row:
            # One step of order 8 makes an error of at most 5e-10, which no statistic sees.
            flow = reference.FlowMap(system=LORENZ, dt=DT, substeps=1)
            truth = row.time(measure, flow, rows[: 2 * NUM, :1])
        floor = dynamics.climate_floor(truth, keys[2], samples=400)
        climates = {"truth": truth[NUM:]}
        for name, step_map in surrogates(train, config.seed).items():
            with run.row(name) as row:
                climates[name] = row.time(measure, step_map, rows[2 * NUM :, :HISTORY])
        report(run, truth, climates, floor, keys[3])
        fluctuations(run, truth)
        shown = {WORDS[name]: climate for name, climate in climates.items() if name != "truth"}
        run.figure("climate", plots.climate(truth, shown, names=LORENZ.state_names))
        return run.metrics({})


def surrogates(train: data.Trajectories, seed: int) -> dict[str, StepMap]:
    """The step maps that are measured.

    The third exponent of a recurrent network may belong to its memory. On accurate data the memory
    is a function of the state, so the data do not determine how the readout answers to any other
    memory. The memory's own directions then decay at rates that depend on the network's random
    weights, and a rate slower than the attractor's third exponent takes its place. Random weights
    also decide whether the map stays on the attractor; the one-step error does not show either.
    """
    return {
        "mlp_frozen": recipes.mlp(train, train, seed),
        "rnn_frozen": recipes.rnn(train, train, seed),
        "polynomial_10": baselines.polynomial(train, 10, signs=(-1.0, -1.0, 1.0)),
    }


def report(
    run: Run,
    truth: dynamics.Climate,
    climates: dict[str, dynamics.Climate],
    floor: dynamics.Distances,
    key: jax.Array,
) -> None:
    """A row for each statistic, with its known value, and a column for each map."""
    expected = {name: f"{value:.4f}" for name, value in KNOWN.items()}
    expected |= {"maxima_mean": "38.11", "maxima_sd": "3.04", "diverged": "0"}
    limits = {}
    for name, limit in by_name(floor).items():
        low, limits[name] = np.percentile(limit, [1, 99])
        expected[name] = f"{low:.2g} .. {limits[name]:.2g}"
        run.metrics({f"floor.{name}_p1": low, f"floor.{name}_p99": limits[name]})
    lines = {name: {"name": name, "known": text} for name, text in expected.items()}
    for label, climate in climates.items():
        figures, cells = statistics(climate, key)
        distances = by_name(dynamics.climate_distances(climate, truth[:NUM]))
        for name, value in distances.items():
            inside = bool(value <= limits[name])
            figures |= {name: value, f"{name}_inside": inside}
            cells[name] = f"{value:.2g}{'' if inside else ' outside'}"
        run.metrics(figures, prefix=label)
        for name, cell in cells.items():
            lines[name][label] = cell
    columns = {"name": "statistic", "known": "known or truth from truth"}
    title = f"{NUM} rollouts of {truth.num_steps} steps of {DT}, float64"
    run.table(list(lines.values()), columns | {label: label for label in climates}, title=title)


def statistics(climate: dynamics.Climate, key: jax.Array) -> tuple[dict[str, Any], dict[str, str]]:
    """Exponents and maxima of the rollouts that stay on the attractor: metrics, and cells."""
    kept = climate.survivors
    figures: dict[str, Any] = {"diverged": float(climate.diverged.mean())}
    cells = {"diverged": f"{figures['diverged']:.2g}"}
    if len(kept):
        samples = kept.lyapunov.bootstrap(key, blocks=BLOCKS)
        samples = np.column_stack([samples, dynamics.kaplan_yorke_dimension(samples)])
        exponents = np.asarray(kept.lyapunov.exponents).mean(axis=0)
        figures["exponents_sum"] = exponents.sum()
        values = [*exponents, dynamics.kaplan_yorke_dimension(jax.numpy.asarray(exponents))]
        for name, value, sample in zip(KNOWN, values, samples.T, strict=True):
            low, high = np.percentile(sample, [2.5, 97.5])
            figures |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
            cells[name] = f"{value:.4f} [{low:.4f}, {high:.4f}]"
        maxima = {"maxima_mean": np.nanmean(kept.maxima), "maxima_sd": np.nanstd(kept.maxima)}
        figures |= maxima
        cells |= {name: f"{value:.3f}" for name, value in maxima.items()}
    return figures, cells


def by_name(distances: dynamics.Distances) -> dict[str, Any]:
    """Distances by name, each with its axis of samples if it has one."""
    names = list(enumerate(LORENZ.state_names))
    parts = {f"divergence_{name}": distances.divergence[..., i] for i, name in names}
    parts["divergence_joint"] = distances.joint
    parts |= {f"spectrum_{name}": distances.spectrum[..., i] for i, name in names}
    return parts | {"return_map": distances.return_map}


def fluctuations(run: Run, truth: dynamics.Climate) -> None:
    """How much the leading exponent over a finite time fluctuates, from the truth's rollouts."""
    rates = np.asarray(truth.lyapunov.rates)[..., 0]
    total, rows = truth.num_steps * truth.dt, []
    for time in (10.0, 50.0, 100.0, 1000.0):
        blocks = round(total / time)
        if blocks >= 1:
            sd = float(rates.reshape(len(rates), blocks, -1).mean(axis=2).std(ddof=1))
            rows.append([time, sd, sd * time**0.5])
            run.metrics({f"truth.lambda1_sd_t{time:.0f}": sd})
    error = rows[-1][1] / NUM**0.5
    title = f"The truth's lambda1 over T time units; {NUM} rollouts: +- {error:.1e}"
    run.table(rows, ["T", "sd of lambda1(T)", "times sqrt(T)"], title=title)
    run.metrics({"truth.lambda1_se": error})


if __name__ == "__main__":
    experiment.cli(main, Config)
