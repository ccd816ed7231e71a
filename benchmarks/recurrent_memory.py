"""Recurrent Lorenz surrogates at each stage of their training, and what their memory is worth.

    python benchmarks/recurrent_memory.py [--out DIR] [--seed N] [--seeds N] [--cells ...] [--quick]

The networks are trained on the lecture's data (a tenth of the trajectories is kept for validation)
and scored on starts on the attractor against truth computed in double-double. Each network
forecasts three times: with its memory warmed up on 100 true steps, with an empty memory, and with
its memory emptied again before every step. `_recurrent` says what the stages are.

The second table says what training does: the root-mean-square residual over validation windows of
8 true steps, in units of the increments' spread, and the distance of the hidden weights from their
first values, relative to the norm of these.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import _recurrent as recurrent
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from _lorenz import DT, HISTORY, LAMBDA1, LORENZ, lecture_data
from jaxtyping import Array, Float

from physml import data, dynamics, experiment, reference, residuals, surrogate
from physml.experiment import TIMES, Run
from physml.nn import Cell
from physml.step_maps import StepMap

MEMORIES = ("warm", "cold", "zeroed")
FIGURES = {"eps1": "eps1", "vpt_mean": "mean", "diverged": "diverged"}
FORECASTS = {"cell": "cell", "stage": "stage"} | {
    f"{way}.{key}": f"{way} {word}" for way in MEMORIES for key, word in FIGURES.items()
}
TRAINING = {
    "loss_untrained": "residual before",
    "loss_adam": "residual after Adam",
    "moved_input": "W moved",
    "moved_recurrent": "U moved",
    **TIMES,
}


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/recurrent_memory")
    quick: bool = False
    """Smaller networks, shorter training, fewer starts, one seed."""
    seeds: int = 3
    """Networks of each kind."""
    cells: tuple[Cell, ...] = ("simple", "gru", "lstm")
    """Which networks."""


class Forgetful(StepMap):
    """A recurrent step map whose memory is emptied before every step."""

    dt: float = eqx.field(static=True)
    stepper: surrogate.Stepper

    def init(self, history: Float[Array, "time dim"], t0: Any) -> surrogate.StepperState:
        return self.stepper.init(history[-1:], t0)

    def step(self, state: surrogate.StepperState) -> surrogate.StepperState:
        state = self.stepper.step(state)
        return eqx.tree_at(lambda s: s.carry, state, jax.tree.map(jnp.zeros_like, state.carry))

    def observe(self, state: surrogate.StepperState) -> Float[Array, " dim"]:
        return self.stepper.observe(state)


def main(config: Config) -> dict[str, Any]:
    """Train every cell with every seed, and tabulate forecasts and training by stage."""
    num, seeds = (20, 1) if config.quick else (64, config.seeds)
    data_key, split_key, test_key = jax.random.split(jax.random.key(config.seed), 3)
    train, valid = data.split(lecture_data(data_key), (0.9, 0.1), split_key)
    starts = reference.attractor_starts(LORENZ, test_key, num)
    test = reference.extended_trajectories(LORENZ, starts, DT * np.arange(HISTORY + 3500)).ys
    scale = data.Standardiser.fit(test).std

    def score(stepper: surrogate.Stepper) -> dict[str, float]:
        cold, found = test[:, HISTORY - 1 :], {}
        ways = ((stepper, test), (stepper, cold), (Forgetful(stepper.dt, stepper), cold))
        for memory, (step_map, truth) in zip(MEMORIES, ways, strict=True):
            history = HISTORY if truth is test else 1
            skill = dynamics.forecast_skill(step_map, truth, scale=scale, history=history)
            summary = skill.summary(1 / LAMBDA1)
            found |= {f"{memory}.{figure}": summary[figure] for figure in FIGURES}
        return found

    forecasts = []
    with Run(config.out, config) as run:
        for cell in config.cells:
            scores: dict[str, list[dict[str, float]]] = {}
            trained: list[dict[str, float]] = []
            for seed in range(config.seed, config.seed + seeds):
                with run.timed() as timing:
                    stages = recurrent.stages(cell, train, valid, seed, config.quick)
                    jax.block_until_ready(stages)
                for stage, stepper in stages.items():
                    found = score(stepper)
                    scores.setdefault(stage, []).append(found)
                    print(f"{cell} {seed} {stage}: {found['warm.vpt_mean']:.2f} Lyapunov times")
                times = {key: getattr(timing, key) for key in TIMES}
                trained.append(training(stages["untrained"], stages["adam"], valid) | times)
            for stage, each in scores.items():
                means = mean(each)
                forecasts.append({"cell": cell, "stage": stage} | means)
                run.metrics(means, prefix=f"{cell}.{stage}")
            with run.row(cell) as row:
                row.metrics(mean(trained))
                row["vpt_min"] = min(each["warm.vpt_mean"] for each in scores["refit"])
        title = "Valid prediction time in Lyapunov times by memory"
        run.table(forecasts, FORECASTS, title=f"{title}, {num} starts x {seeds} seeds, float64")
        columns = {"name": "cell"} | TRAINING
        run.table(run.take_rows(), columns, title="What training does (means over seeds)")
        return run.metrics({"starts": num, "seeds": seeds})


def mean(each: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every figure over the seeds."""
    return {key: float(np.mean([figures[key] for figures in each])) for key in each[0]}


def training(
    first: surrogate.Stepper, last: surrogate.Stepper, valid: data.Trajectories
) -> dict[str, float]:
    """The residuals before and after training, and how far the hidden weights moved.

    The residual is what training minimises, on windows that training has not seen. Weights W have
    moved by |W' - W| / |W| (Frobenius norms).
    """
    windows = valid.windows(recurrent.LENGTH + 1, stride=recurrent.LENGTH)
    residual = jax.jit(residuals.step)
    figures = []
    for stepper in (first, last):
        figures.append(float(jnp.sqrt(jnp.mean(residual(stepper, windows) ** 2))))
    networks: list[Any] = [first.network, last.network]
    for name in ("dense_i", "dense_h"):
        a, b = (np.asarray(getattr(each.cells[0], name).kernel[...]) for each in networks)
        figures.append(float(np.linalg.norm(b - a) / np.linalg.norm(a)))
    return dict(zip(TRAINING, figures, strict=False))


if __name__ == "__main__":
    experiment.cli(main, Config)
