"""Recurrent Lorenz surrogates by stage of their training, and what their memory is worth.

    python benchmarks/recurrent_memory.py [--out DIR] [--seed N] [--seeds N] [--cells ...] [--quick]

Trained on the lecture's data (100 starts uniform in [-15, 15]^3, dt 0.01, 800 steps; a tenth of the
trajectories is kept for validation), scored on starts on the attractor against truth computed in
double-double. Each network forecasts three times: its memory warmed up on 100 true steps, on none,
and emptied again before every step. The stages are those of `recurrent_recipes`.

The second table says what training does: the root-mean-square residual over validation windows of
8 true steps, in units of the increments' spread, and how far the hidden weights have moved from
where they were drawn, relative to their norm.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import recurrent_recipes as recipes
import tyro
from jaxtyping import Array, Float

from physml import data, dynamics, nn, reference, residuals, surrogate, systems
from physml.experiment import Run
from physml.nn import Cell
from physml.step_maps import StepMap

DT = 0.01
WARM = 100  # true steps before a forecast
LORENZ = systems.Lorenz()
LAMBDA1 = LORENZ.lambda1  # 1 / LAMBDA1 is a Lyapunov time


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    out: Path = Path("results/recurrent_memory")
    """Folder for the tables and metrics."""
    seed: int = 0
    """Seed of everything drawn at random."""
    seeds: int = 3
    """Networks of each kind (1 if quick)."""
    cells: tuple[Cell, ...] = ("simple", "gru", "lstm")
    """Which networks."""
    quick: bool = False
    """Smaller networks, shorter training, fewer starts."""


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
    """Run the benchmark, write its folder, and return its metrics."""
    with Run(config.out, config) as run:
        measure(run, config)
        return run.metrics({})


def measure(run: Run, config: Config) -> None:
    """Train every cell with every seed, and tabulate forecasts and training by stage."""
    num, seeds = (20, 1) if config.quick else (64, config.seeds)
    data_key, split_key, test_key = jax.random.split(jax.random.key(config.seed), 3)
    every = reference.trajectories(LORENZ, data_key, 100, DT * np.arange(801))
    train, valid = data.split(every, (0.9, 0.1), split_key)
    starts = reference.attractor_starts(LORENZ, test_key, num)
    test = reference.extended_trajectories(LORENZ, starts, DT * np.arange(WARM + 3501)).ys
    scale = data.Standardizer.fit(test).std

    def score(step_map: StepMap, warm: int) -> dict[str, float]:
        truth = test[:, WARM - warm :]
        skill = dynamics.forecast_skill(step_map, truth, scale=scale, history=warm + 1)
        return skill.summary(1 / LAMBDA1)

    forecasts, trainings = [], []
    for cell in config.cells:
        scores: dict[str, list[list[float]]] = {}
        trained: list[list[float]] = []
        for seed in range(config.seed, config.seed + seeds):
            with run.timed() as timing:
                stages: Any = recipes.stages(cell, train, valid, seed, config.quick)
                jax.block_until_ready(stages)
            for stage, stepper in stages.items():
                ways = (
                    score(stepper, WARM),
                    score(stepper, 0),
                    score(Forgetful(stepper.dt, stepper), 0),
                )
                figures = [way[figure] for way in ways for figure in FIGURES]
                scores.setdefault(stage, []).append(figures)
                print(f"{cell} {seed} {stage}: {figures[1]:.2f} Lyapunov times", flush=True)
            first, last = stages["untrained"], stages["adam"]
            losses = [rms_residual(stage, valid) for stage in (first, last)]
            trained.append(
                [
                    *losses,
                    *moved(first.network, last.network),
                    timing.seconds,
                    timing.compile_seconds,
                ]
            )
        for stage, figures in scores.items():
            forecasts.append([cell, stage, *(means := np.mean(figures, axis=0))])
            names = [f"{cell}.{stage}.{way}.{figure}" for way in MEMORIES for figure in FIGURES]
            run.metrics(dict(zip(names, means, strict=True)))
            if stage == "refit":  # the worst network of the seeds
                run.metrics({f"{cell}.vpt_min": np.min(figures, axis=0)[1]})
        trainings.append([cell, *(means := np.mean(trained, axis=0))])
        run.metrics({f"{cell}.{key}": mean for key, mean in zip(TRAINING, means, strict=True)})
    spread = f"{num} starts x {seeds} seeds, float64"
    run.table(
        forecasts,
        ["cell", "stage", *(f"{way} {word}" for way in MEMORIES for word in FIGURES.values())],
        title=f"Valid prediction time in Lyapunov times by memory, {spread}",
    )
    run.table(
        trainings, ["cell", *TRAINING.values()], title="What training does (means over seeds)"
    )


MEMORIES = ("warm", "cold", "zeroed")
FIGURES = {"eps1": "eps1", "vpt_mean": "mean", "diverged": "diverged"}
TRAINING = {
    "loss_untrained": "residual before",
    "loss_adam": "residual after Adam",
    "moved_input": "W moved",
    "moved_recurrent": "U moved",
    "seconds": "seconds",
    "compile_seconds": "compiling",
}


def rms_residual(stepper: surrogate.Stepper, valid: data.Trajectories) -> float:
    """The root-mean-square of what training minimises, on windows that it has not seen."""
    windows = valid.windows(recipes.LENGTH + 1, stride=recipes.LENGTH)
    return float(jnp.sqrt(jnp.mean(jax.jit(residuals.step)(stepper, windows) ** 2)))


def moved(first: nn.RNN, last: nn.RNN) -> list[float]:
    """|W' - W| / |W| (Frobenius norms) of the input and of the recurrent matrix."""
    kernels = [
        (network.cells[0].dense_i.kernel, network.cells[0].dense_h.kernel)
        for network in (first, last)
    ]
    pairs = [[np.asarray(kernel[...]) for kernel in pair] for pair in zip(*kernels, strict=True)]
    return [float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in pairs]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
