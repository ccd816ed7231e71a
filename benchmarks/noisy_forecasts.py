r"""Forecasts from noisy data by one call: Lorenz' and Halvorsen's systems, 1 % noise and more.

    python benchmarks/noisy_forecasts.py [--out DIR] [--seed N] [--quick]

100 trajectories of 800 steps of 0.01 get normal noise, a share of each component's standard
deviation on the attractor, on every row. The network is the same everywhere: 100 frozen units. The
ways to use the rows are

- as they are: the readout by single steps, without the singular values below a cut-off, which is
  chosen by forecasts of trajectories that are left out;
- smoothed: the same on `trajectories.smoothed()`, local polynomials with windows by Mallows' C_p;
- states and map: `surrogate.fit_readout(network, rows, noise="auto")`;
- a next-generation reservoir of order 2 (Gauthier et al. 2021), its ridge chosen on left-out data.

Forecasts are scored from exact starts. The Lyapunov time is that of the exact flow. `states_error`
is the root mean square error of the rows that were learned from, as a share of the noise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
from _baselines import next_generation
from _lorenz import DT, LORENZ, lecture_data
from flax import nnx

from physml import data, dynamics, experiment, nn, reference, surrogate, systems
from physml.experiment import Run
from physml.step_maps import StepMap

CASES = (("lorenz", 0.01), ("lorenz", 0.1), ("halvorsen", 0.01), ("halvorsen", 0.05))
UNITS, SCALE = 100, 0.06
AHEAD = 100  # rows that the validation forecasts
RIDGES = (1e-10, 1e-8, 1e-6, 1e-4)  # of the reservoir
COLUMNS = {
    "system": "system", "noise": "noise", "name": "rows", "vpt_mean": "valid for, Lyapunov times",
    "vpt_median": "median", "vpt_p5": "worst 5 %", "states_error": "error of the rows / noise",
    "seconds": "seconds",
}  # fmt: skip


def halvorsen(t: Any, y: jax.Array, a: float) -> jax.Array:
    """Halvorsen's cyclically symmetric system."""
    following, last = jnp.roll(y, -1), jnp.roll(y, -2)
    return -a * y - 4 * (following + last) - following**2


SYSTEMS = {"lorenz": LORENZ, "halvorsen": systems.from_function(halvorsen, dim=3, args=1.4)}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/noisy_forecasts")
    quick: bool = False
    """One case, a quarter of the data, fewer forecasts."""


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        keys = jax.random.split(jax.random.key(config.seed), 3)
        table = []
        judges = {}
        for name, share in CASES[2:3] if config.quick else CASES:
            if name not in judges:
                judges[name] = Judge(name, keys[0], config.quick)
            judge = judges[name]
            clean = training_data(name, keys[1], 25 if config.quick else 100)
            sigma = share * judge.scale
            draws = np.asarray(jax.random.normal(keys[2], clean.ys.shape))
            rows = data.from_arrays(clean.ts, np.asarray(clean.ys) + sigma * draws)
            for method, fit in methods(rows, SYSTEMS[name]):
                with run.timed() as timing:
                    step_map, states = fit()
                off = np.asarray(states.ys - clean.ys) / sigma
                figures = judge(step_map) | {"states_error": float(np.sqrt((off**2).mean()))}
                figures |= {"seconds": timing.seconds}
                table.append({"system": name, "noise": f"{share:.0%}", "name": method} | figures)
                case = f"{name}_{share:g}"
                run.metrics({f"{method}.{key}_{case}": figures[key] for key in figures})
            run.metrics({f"{name}.lambda1": judge.lambda1, "starts": judge.num})
        run.table(table, COLUMNS, title=f"Forecasts from {judge.num} exact starts, threshold 0.4")
        return run.metrics({})


def training_data(name: str, key: jax.Array, num: int) -> data.Trajectories:
    """Exact rows: the lecture's for Lorenz, starts on the attractor for the other."""
    if name == "lorenz":
        return lecture_data(key, num)
    starts = reference.attractor_starts(SYSTEMS[name], key, num)
    return reference.trajectories_from(SYSTEMS[name], starts, DT * np.arange(801))


class Judge:
    """Scores step maps of one system against the truth."""

    def __init__(self, name: str, key: jax.Array, quick: bool):
        system, self.num = SYSTEMS[name], 20 if quick else 100
        starts = reference.attractor_starts(system, key, self.num)
        self.test = reference.trajectories_from(system, starts, DT * np.arange(1501)).ys
        self.scale = jnp.asarray(data.Standardiser.fit(self.test).std)
        flow = reference.FlowMap(system=system, dt=DT, substeps=1)
        steps = 2000 if quick else 20_000
        found = dynamics.lyapunov_spectrum(flow, self.test[:10, :1], steps, num=1, every=10)
        self.lambda1 = float(np.asarray(found.exponents)[:, 0].mean())

    def __call__(self, step_map: StepMap) -> dict[str, Any]:
        skill = dynamics.forecast_skill(step_map, self.test, scale=self.scale)
        figures = skill.summary(1 / self.lambda1)
        return {key: figures[key] for key in ("vpt_mean", "vpt_median", "vpt_p5")}


Found = tuple[StepMap, data.Trajectories]
"""A step map, and the rows that it was learned from."""


def methods(
    rows: data.Trajectories, system: systems.System
) -> Iterator[tuple[str, Callable[[], Found]]]:
    """The ways to use noisy rows by name, each as a function that fits a map."""
    symmetry = system.symmetry

    def network(part: data.Trajectories) -> nn.MLP:
        inputs = surrogate.network_inputs(part)
        return nn.MLP.frozen(inputs, UNITS, 3, scale=SCALE, rngs=nnx.Rngs(0))

    held = np.arange(len(rows)) % 5 == 4
    ahead = rows[held].ys[:, :800].reshape(-1, AHEAD, 3)
    spread = data.Standardiser.fit(rows.ys).std

    def forecast_error(step_map: StepMap) -> float:
        predicted = dynamics.rollout(step_map, ahead[:, :1], AHEAD - 1)
        errors = np.asarray(dynamics.normalised_error(predicted, ahead, spread))
        return float(np.median(np.sqrt((errors**2).mean(axis=1))))

    def single_steps(part: data.Trajectories) -> Found:
        candidates = []
        for cutoff in 10.0 ** -np.arange(2, 11, 2):
            fitted = surrogate.fit_readout(
                network(part), part[~held], symmetry=symmetry, rcond=cutoff, noise=0.0
            )
            candidates.append(fitted.step_map)
        return min(candidates, key=forecast_error), part

    def together() -> Found:
        fitted = surrogate.fit_readout(network(rows), rows, symmetry=symmetry, noise="auto")
        assert fitted.states is not None
        return fitted.step_map, fitted.states

    yield "reservoir", lambda: (next_generation(rows[~held], rows[held], 2, RIDGES), rows)
    yield "as_they_are", lambda: single_steps(rows)
    yield "smoothed", lambda: single_steps(rows.smoothed())
    yield "together", together


if __name__ == "__main__":
    experiment.cli(main, Config)
