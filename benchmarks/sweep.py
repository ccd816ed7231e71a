"""A grid of fits as one program, beside the same fits one after another.

    python benchmarks/sweep.py [--out DIR] [--seed N] [--quick]

One MLP, 3-32-32-3, learns the next step of Lorenz in float32 with 49 settings (7 learning rates, 7
weight decays): (a) by `fit.sweep`; (b) by one `fit.gradient` call each, as a user would start it,
with a new optimizer that holds Python numbers, so that each call compiles anew; (c) by the same
calls compiled once, with rate and decay traced. Seconds of (a) and (c) leave out compiling and are
the best of several turns; (a) and (c) alternate, so that a busy machine slows both alike. Seconds
of (b) include everything.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)  # the data are made in float64

import jax.numpy as jnp
import numpy as np
import optax
from _lorenz import lecture_data
from flax import nnx

from physml import data, experiment, fit, nn
from physml.experiment import Run


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the benchmark."""

    out: Path = Path("results/benchmark_sweep")
    quick: bool = False
    """Fewer steps and turns, and four of the 49 in (b), scaled up."""
    steps: int = 1000
    """Steps of each fit (200 if quick)."""
    batch_size: int = 64
    """Pairs in a step."""
    units: int = 32
    """Units in each of the two hidden layers."""


def residual(model: nn.MLP, batch: Any, key: Any) -> jax.Array:
    inputs, targets = batch
    return model(inputs) - targets


LOSS = fit.mean_square(residual)
SETTINGS = ("rate", "decay")
COLUMNS = {
    "name": "", "compile_seconds": "compiling", "seconds": "running", "whole": "seconds",
    "ratio": "times as fast",
}  # fmt: skip


def adamw(setting: Any) -> optax.GradientTransformation:
    return optax.adamw(setting["rate"], weight_decay=setting["decay"])


def main(config: Config) -> dict[str, Any]:
    """Run the benchmark, write its folder, and return its metrics."""
    steps, turns, started = (200, 2, 4) if config.quick else (config.steps, 3, 49)
    data_key, key = jax.random.split(jax.random.key(config.seed))
    pairs, size = lorenz_pairs(data_key), dict[str, Any](batch_size=config.batch_size)
    grids = np.meshgrid(np.geomspace(1e-4, 1e-1, 7), np.geomspace(1e-6, 1.0, 7))
    settings = {
        name: jnp.asarray(grid.ravel(), jnp.float32)
        for name, grid in zip(SETTINGS, grids, strict=True)
    }
    num = grids[0].size

    def build(setting: Any = None) -> nn.MLP:
        units = (config.units, config.units)
        return nn.MLP(3, units, 3, dtype=jnp.float32, rngs=nnx.Rngs(config.seed))

    def swept() -> fit.Sweep:
        options: dict[str, Any] = {"settings": settings, "optimizer": adamw, "key": key}
        return fit.sweep(LOSS, build, pairs, steps=steps, **options, **size)

    model = build()
    traced = optax.inject_hyperparams(optax.adamw)(jnp.float32(0), weight_decay=jnp.float32(0))
    start = fit.gradient(LOSS, model, pairs, optimizer=traced, steps=0, key=key, **size).state

    def compiled_once(i: int) -> fit.Fit:
        state = eqx.tree_at(
            lambda s: [s.opt_state.hyperparams[k] for k in ("learning_rate", "weight_decay")],
            start,
            [settings[name][i] for name in SETTINGS],
        )
        return fit.gradient(LOSS, model, pairs, optimizer=traced, steps=steps, state=state, **size)

    def started_anew(i: int) -> fit.Fit:
        optimizer = adamw({name: float(settings[name][i]) for name in SETTINGS})
        return fit.gradient(LOSS, build(), pairs, optimizer=optimizer, steps=steps, key=key, **size)

    with Run(config.out, config) as run:
        sweep_compile, once_compile = swept().compile_seconds, compiled_once(0).compile_seconds
        sweep_seconds, once_seconds = [], []
        together, singles = swept(), []
        for _ in range(turns):
            together = swept()
            sweep_seconds.append(together.seconds)
            singles = [compiled_once(i) for i in range(num)]
            once_seconds.append(sum(single.seconds for single in singles))
        with run.timed() as timing:
            for i in range(started):
                started_anew(i * num // started)
        anew = timing.wall_seconds * num / started
        sweep = min(sweep_seconds), sweep_compile
        title = f"{num} fits of 3-{config.units}-{config.units}-3, {steps} steps of"
        title = f"{title} {config.batch_size} pairs, float32"
        report(run, title, sweep, (min(once_seconds), once_compile), anew)
        difference = largest_difference(together, singles)
        print(f"largest relative difference of the losses by step: {difference:.1e}")
        counts = {"fits": num, "fits_dtype": "float32", "steps": steps}
        return run.metrics(counts | {"loss_difference": difference})


def report(
    run: Run, title: str, sweep: tuple[float, float], once: tuple[float, float], anew: float
) -> None:
    """Compare the seconds (running, compiling) of (a) and (c) with the seconds of (b)."""
    for name, label, (running, compiling) in (
        ("sweep", "fit.sweep", sweep),
        ("compiled_once", "one after another, compiled once", once),
    ):
        with run.row(name, label) as row:
            row.metrics({"seconds": running, "compile_seconds": compiling})
            whole = running + compiling
            row.shown |= {"whole": whole, "ratio": anew / whole}
    last = {"name": "one after another, each started anew", "whole": anew, "ratio": 1.0}
    rows, ratio = [*run.take_rows(), last], once[0] / sweep[0]
    run.table(rows, COLUMNS, title=title)
    print(f"running alone, the sweep is {ratio:.2f} times as fast as the same program")
    run.metrics({"started_anew": rows[0]["ratio"], "compiled_once": ratio}, prefix="ratio")
    run.metrics({"started_anew.seconds": anew})


def lorenz_pairs(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The lecture's 80,000 next-step pairs: standardised states and increments, float32."""
    pairs = lecture_data(key).pairs()
    inputs, increments = pairs.inputs, pairs.targets - pairs.inputs
    scaled = (data.Standardiser.fit(x)(x) for x in (inputs, increments))
    first, second = (x.astype(jnp.float32) for x in scaled)
    return first, second


def largest_difference(together: fit.Sweep, singles: list[fit.Fit]) -> float:
    """The largest relative difference in 20 steps; later, rounding grows in unstable fits."""
    losses = np.stack([single.history["loss"][:20] for single in singles], axis=1)
    return float(np.max(np.abs(together.history["loss"][:20] - losses) / losses))


if __name__ == "__main__":
    experiment.cli(main, Config)
