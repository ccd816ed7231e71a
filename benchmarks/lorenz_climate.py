"""The climate of Lorenz surrogates: 20 rollouts of 100,000 steps beside the truth's.

    python benchmarks/lorenz_climate.py [--out DIR] [--seed N] [--quick]

A forecast ends after some thirty Lyapunov times; whether a surrogate's trajectories stay on the
attractor and visit it as the truth's do is another question. The truth is the flow by steps of
order 8 from 40 independent starts on the attractor: 20 to compare with, 20 more so that the
distance of the truth from itself is known. A distance is as good as perfect if it is below the
99th percentile of those of random halves of the 40. Intervals of exponents are 95 % intervals of a
block bootstrap over time and rollouts, five blocks of each rollout (shorter ones would overstate
them: the leading exponent's fluctuations fall faster than 1 / sqrt(T)).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import baselines
import numpy as np
import recipes
import tyro

from physml import data, dynamics, plots, reference, systems
from physml.experiment import Run
from physml.step_maps import StepMap

DT = 0.01
HISTORY = 101  # true rows before each rollout; a recurrent network is warmed up on them
NUM = 20  # rollouts
BLOCKS = 5  # of each, for the bootstrap
LORENZ = systems.Lorenz()
EXPONENTS: Any = LORENZ.lyapunov_exponents


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    out: Path = Path("results/lorenz_climate")
    """Folder for the table, metrics and figure."""
    seed: int = 0
    """Seed of everything drawn at random."""
    quick: bool = False
    """Rollouts of 10,000 steps."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    num_steps = 10_000 if config.quick else 100_000
    keys = jax.random.split(jax.random.key(config.seed), 4)
    train = reference.trajectories(LORENZ, keys[0], 100, DT * np.arange(801))
    starts = reference.attractor_starts(LORENZ, keys[1], 3 * NUM)
    rows = reference.trajectories_from(LORENZ, starts, DT * np.arange(2001)).ys
    low, high = np.asarray(rows.min(axis=(0, 1))), np.asarray(rows.max(axis=(0, 1)))
    margin = 0.05 * (high - low)

    def measure(step_map: StepMap, history: jax.Array) -> dynamics.Climate:
        bounds = low - margin, high + margin
        return dynamics.measure_climate(
            step_map, history, num_steps, bounds=bounds, chunk=min(20_000, num_steps)
        )

    with Run(config.out, config) as run:
        run.metrics({"rollouts": NUM, "steps": num_steps, "dt": DT})
        with run.timed() as timing:
            # One step of order 8 makes an error of 5e-10 at most: no statistic sees it.
            truth = measure(
                reference.FlowMap(system=LORENZ, dt=DT, substeps=1), rows[: 2 * NUM, :1]
            )
        run.metrics({"truth.seconds": timing.seconds})
        floor = dynamics.climate_floor(truth, keys[2], samples=400)
        climates = {"truth": truth[NUM:]}
        for name, step_map in surrogates(train, config.seed).items():
            with run.timed() as timing:
                climates[name] = measure(step_map, rows[2 * NUM :, :HISTORY])
            run.metrics({f"{name}.seconds": timing.seconds})
        report(run, truth, climates, floor, keys[3])
        fluctuations(run, truth)
        shown = {name: climate for name, climate in climates.items() if name != "truth"}
        run.figure("climate", plots.climate(truth, shown, names=LORENZ.state_names))
        return run.metrics({})


def surrogates(train: data.Trajectories, seed: int) -> dict[str, StepMap]:
    """The step maps that are measured.

    A recurrent network's third exponent may belong to its memory: on accurate data the memory is a
    function of the state, so that nothing in them says how the readout should answer to a memory
    that is not. Its own directions then decay at rates that depend on the draw, and one slower than
    the attractor's third takes its place. Draws differ in this, and
    some in whether they stay on the attractor; the one-step error does not show it.
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
    """A row for each statistic, with what is known of it, and a column for each map."""
    x, y, z = LORENZ.state_names
    limits = flat(floor, (x, y, z))
    known = dict(zip(("lambda1", "lambda2", "lambda3"), EXPONENTS, strict=True))
    known |= {"kaplan_yorke": 2 + (EXPONENTS[0] + EXPONENTS[1]) / -EXPONENTS[2]}
    expected = {name: f"{value:.4f}" for name, value in known.items()}
    expected |= {"maxima_mean": "38.11", "maxima_sd": "3.04", "diverged": "0"}
    cells: dict[str, list[str]] = {name: [] for name in (*expected, *limits)}
    for name, limit in limits.items():
        low, high = np.percentile(limit, [1, 99])
        expected[name] = f"{low:.2g} .. {high:.2g}"
        run.metrics({f"floor.{name}_p1": low, f"floor.{name}_p99": high})
    for label, climate in climates.items():
        kept = climate.survivors
        figures: dict[str, Any] = {"diverged": float(climate.diverged.mean())}
        if len(kept):
            samples = kept.lyapunov.bootstrap(key, blocks=BLOCKS)
            samples = np.column_stack([samples, dynamics.kaplan_yorke_dimension(samples)])
            exponents = np.asarray(kept.lyapunov.exponents).mean(axis=0)
            figures["exponents_sum"] = exponents.sum()
            values = [*exponents, dynamics.kaplan_yorke_dimension(jax.numpy.asarray(exponents))]
            for name, value, sample in zip(known, values, samples.T, strict=True):
                low, high = np.percentile(sample, [2.5, 97.5])
                figures |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
                cells[name].append(f"{value:.4f} [{low:.4f}, {high:.4f}]")
            figures["maxima_mean"] = np.nanmean(kept.maxima)
            figures["maxima_sd"] = np.nanstd(kept.maxima)
        else:
            for name in known:
                cells[name].append("-")
        for name in ("maxima_mean", "maxima_sd"):
            cells[name].append(f"{figures[name]:.3f}" if name in figures else "-")
        cells["diverged"].append(f"{figures['diverged']:.2g}")
        apart = flat(dynamics.climate_distances(climate, truth[:NUM]), (x, y, z))
        for name, value in apart.items():
            inside = bool(value <= np.percentile(limits[name], 99))
            figures |= {name: value, f"{name}_inside": inside}
            cells[name].append(f"{value:.2g}{'' if inside else ' outside'}")
        run.metrics(figures, prefix=label)
    table = [[name, expected[name], *values] for name, values in cells.items()]
    title = f"{NUM} rollouts of {truth.num_steps} steps of {DT}, float64"
    run.table(table, ["statistic", "known or truth from truth", *climates], title=title)


def flat(distances: dynamics.Distances, names: tuple[str, ...]) -> dict[str, Any]:
    """Distances by name, each with its axis of samples if it has one."""
    parts = {f"divergence_{name}": distances.divergence[..., i] for i, name in enumerate(names)}
    parts["divergence_joint"] = distances.joint
    parts |= {f"spectrum_{name}": distances.spectrum[..., i] for i, name in enumerate(names)}
    return parts | {"return_map": distances.return_map}


def fluctuations(run: Run, truth: dynamics.Climate) -> None:
    """How much the leading exponent of a finite time fluctuates, by the truth's rollouts."""
    rates = np.asarray(truth.lyapunov.rates)[..., 0]
    total = truth.num_steps * truth.dt
    rows = []
    for time in (10.0, 50.0, 100.0, 1000.0):
        blocks = round(total / time)
        if blocks < 1:
            continue
        means = rates.reshape(len(rates), blocks, -1).mean(axis=2)
        sd = float(means.std(ddof=1))
        rows.append([time, sd, sd * time**0.5])
        run.metrics({f"truth.lambda1_sd_t{time:.0f}": sd})
    error = rows[-1][1] / NUM**0.5
    run.table(
        rows,
        ["T", "sd of lambda1(T)", "times sqrt(T)"],
        title=f"The truth's lambda1 over T time units; {NUM} rollouts: +- {error:.1e}",
    )
    run.metrics({"truth.lambda1_se": error})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
