"""A grid of fits as one program, beside the same fits one after another.

    python benchmarks/sweep.py [--out DIR] [--seed N] [--quick]

49 settings (7 learning rates, 7 weight decays) of one MLP, 3-32-32-3, that learns the next step of
Lorenz in float32. (a) `fit.sweep`; (b) a `fit.gradient` call for each, as a user would start it: a
new optimizer with Python numbers, so that each compiles anew; (c) the same, compiled once, with the
rate and decay traced. Seconds of (a) and (c) leave compiling out and are the best of several turns,
taken by turns, so that a busy machine spoils both alike; those of (b) are all there is.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)  # the data are made in float64

import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from physml import data, fit, nn, reference, systems
from physml.experiment import Run


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_sweep")
    """Folder for the table and metrics."""
    seed: int = 0
    """Seed of the data, the weights and the batches."""
    quick: bool = False
    """Fewer steps and turns, and four of the 49 in (b), scaled up."""
    steps: int = 1000
    """Steps of each fit (200 if quick)."""
    batch_size: int = 64
    """Pairs in a step."""
    width: int = 32
    """Units in each of the two hidden layers."""


def residual(model: nn.MLP, batch: Any, key: Any) -> jax.Array:
    inputs, targets = batch
    return model(inputs) - targets


LOSS = fit.mean_square(residual)


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    steps, turns, started = (200, 2, 4) if config.quick else (config.steps, 3, 49)
    data_key, key = jax.random.split(jax.random.key(config.seed))
    pairs = lorenz_pairs(data_key)
    rates, decays = np.meshgrid(np.geomspace(1e-4, 1e-1, 7), np.geomspace(1e-6, 1.0, 7))
    settings = {
        name: jnp.asarray(grid.ravel(), jnp.float32)
        for name, grid in (("rate", rates), ("decay", decays))
    }
    num = rates.size

    def build(setting: Any = None) -> nn.MLP:
        widths = (config.width, config.width)
        return nn.MLP(3, widths, 3, dtype=jnp.float32, rngs=nnx.Rngs(config.seed))

    def adamw(setting: Any) -> optax.GradientTransformation:
        return optax.adamw(setting["rate"], weight_decay=setting["decay"])

    options: dict[str, Any] = dict(batch_size=config.batch_size, key=key)

    def swept() -> fit.Sweep:
        return fit.sweep(
            LOSS, build, pairs, settings=settings, optimizer=adamw, steps=steps, **options
        )

    model = build()
    traced = optax.inject_hyperparams(optax.adamw)(jnp.float32(0), weight_decay=jnp.float32(0))
    start = fit.gradient(LOSS, model, pairs, optimizer=traced, steps=0, **options).state

    def compiled_once(i: int) -> fit.Fit:
        state = eqx.tree_at(
            lambda s: [s.opt_state.hyperparams[k] for k in ("learning_rate", "weight_decay")],
            start,
            [settings[k][i] for k in ("rate", "decay")],
        )
        return fit.gradient(
            LOSS, model, pairs, optimizer=traced, steps=steps, state=state,
            batch_size=config.batch_size,
        )  # fmt: skip

    def started_anew(i: int) -> fit.Fit:
        rate, decay = (float(settings[k][i]) for k in ("rate", "decay"))
        return fit.gradient(
            LOSS, build(), pairs, optimizer=optax.adamw(rate, weight_decay=decay), steps=steps,
            **options,
        )  # fmt: skip

    with Run(config.out, config) as run:
        compile_seconds = swept().compile_seconds, compiled_once(0).compile_seconds
        sweep_seconds, once_seconds = [], []
        together, singles = swept(), []
        for _ in range(turns):
            together = swept()
            sweep_seconds.append(together.seconds)
            singles = [compiled_once(i) for i in range(num)]
            once_seconds.append(sum(single.seconds for single in singles))
        tick = time.perf_counter()
        for i in range(started):
            started_anew(i * num // started)
        anew = (time.perf_counter() - tick) * num / started

        alone, once = min(sweep_seconds), min(once_seconds)
        whole = alone + compile_seconds[0]
        run.table(
            [
                ["fit.sweep", compile_seconds[0], alone, whole, anew / whole],
                ["one after another, compiled once", compile_seconds[1], once,
                 once + compile_seconds[1], anew / (once + compile_seconds[1])],
                ["one after another, each started anew", None, None, anew, 1.0],
            ],
            ["", "compiling", "running", "seconds", "times as fast"],
            title=f"{num} fits of 3-{config.width}-{config.width}-3, {steps} steps of "
            f"{config.batch_size} pairs, float32",
        )  # fmt: skip
        difference = largest_difference(together, singles)
        print(f"running alone, the sweep is {once / alone:.2f} times as fast as the same program")
        print(f"largest relative difference of the losses by step: {difference:.1e}")
        return run.metrics(
            {
                "sweep.seconds": alone,
                "sweep.compile_seconds": compile_seconds[0],
                "compiled_once.seconds": once,
                "compiled_once.compile_seconds": compile_seconds[1],
                "started_anew.seconds": anew,
                "ratio.started_anew": anew / whole,
                "ratio.compiled_once": once / alone,
                "loss_difference": difference,
            }
        )


def lorenz_pairs(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The lecture's 80,000 next-step pairs: standardised states and increments, float32."""
    trajectories = reference.trajectories(systems.Lorenz(), key, 100, 0.01 * np.arange(801))
    pairs = trajectories.pairs()
    inputs, increments = pairs.inputs, pairs.targets - pairs.inputs
    scaled = (data.Standardizer.fit(x)(x) for x in (inputs, increments))
    first, second = (x.astype(jnp.float32) for x in scaled)
    return first, second


def largest_difference(together: fit.Sweep, singles: list[fit.Fit]) -> float:
    """Over the first 20 steps, after which rounding errors have grown in the unstable fits."""
    losses = np.stack([single.history["loss"][:20] for single in singles], axis=1)
    return float(np.max(np.abs(together.history["loss"][:20] - losses) / losses))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
