"""Windows of the Lorenz system from noise, with and without the equation, and their scores."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import (
    data,
    dynamics,
    fit,
    generative,
    nn,
    plots,
    reference,
    residuals,
    surrogate,
    systems,
)
from physml.experiment import TIMES, Row, Run

LORENZ, DT, LENGTH, NUM = systems.Lorenz(), 0.04, 16, 1000
LOW, HIGH, BINS = np.array([-20.0, -27.0, 0.0]), np.array([20.0, 27.0, 50.0]), 50
SIGMA = np.array([7.92, 9.01, 8.63])  # standard deviations on the attractor
GENERATORS = {
    "plain": "plain",
    "smooth": "critic sees increments",
    "physics": "the same, and the residual is paid",
}
COLUMNS = {
    "name": "windows", "divergence": "divergence", "spectrum": "spectrum", "residual": "residual",
    "lambda1": "exponent", **TIMES,
}  # fmt: skip


class WindowCritic(nnx.Module):
    """A perceptron of a window's rows and, if wanted, of their increments in units of their size.

    The increments show what the rows hide: that true windows are smooth.
    """

    def __init__(self, spread: float | None, rngs: nnx.Rngs):
        self.spread = spread  # of the increments of normalised windows; None for rows alone
        size = 3 * LENGTH if spread is None else 3 * (2 * LENGTH - 1)
        options: dict[str, Any] = {"activation": "silu", "dtype": jnp.float32, "rngs": rngs}
        self.network = nn.MLP(size, (128, 128), 1, **options)

    def __call__(self, rows: jax.Array) -> jax.Array:
        parts = [rows.reshape(len(rows), -1)]
        if self.spread is not None:
            parts.append((jnp.diff(rows, axis=1) / self.spread).reshape(len(rows), -1))
        return self.network(jnp.concatenate(parts, axis=1))


def compare_windows(run: Run, key: jax.Array, quick: bool) -> None:
    """Three generators of windows beside true ones: a table and a figure."""
    keys = jax.random.split(key, 6)
    train = true_windows(keys[0], 500, 16)
    # Of a window and its mirror image one is enough to learn from: that with x > 0 in the middle.
    train = mirrored(train, jnp.where(train[:, LENGTH // 2, 0] < 0, -1.0, 1.0))
    signs = jax.random.rademacher(keys[5], (NUM,), float)
    test, other = (true_windows(k, NUM, 1) for k in keys[1:3])
    made = {"truth": other}
    with run.row("windows.truth", "other true windows") as row:
        score(row, other, test)
    for name, label in GENERATORS.items():
        with run.row(f"windows.{name}", label) as row:
            steps, kept = 200 if quick else 7000, row.checkpoint
            generator = row.part(train_windows, name, train, keys[3], steps, kept)
            made[name] = mirrored(generator.sample(NUM, keys[4]), signs)
            score(row, made[name], test)
    title = f"{NUM} windows of {LENGTH} rows, {DT} apart, against as many true ones"
    run.table(run.take_rows(), COLUMNS, title=title)
    found = run.metrics({})
    for name in ("divergence", "spectrum"):
        run.metrics({f"windows.{name}": found[f"windows.smooth.{name}"]})
        run.metrics({f"windows.{name}_floor": found[f"windows.truth.{name}"]})
    run.metrics({f"windows.residual_{name}": found[f"windows.{name}.residual"] for name in made})
    shown = {GENERATORS.get(name, name): np.asarray(windows) for name, windows in made.items()}
    run.figure("windows", plots.windows(DT * np.arange(LENGTH), shown))


def mirrored(windows: jax.Array, signs: jax.Array) -> jax.Array:
    """Each window with x and y times its sign, which the system's symmetry allows."""
    return windows * jnp.stack([signs, signs, jnp.ones_like(signs)], axis=1)[:, None]


def true_windows(key: jax.Array, starts: int, each: int) -> jax.Array:
    """Windows from the attractor: so many from each start, a window's length apart."""
    # After the usual 20 time units some are still on their slow way from an unstable fixed point.
    first = reference.attractor_starts(LORENZ, key, starts, burn_in=60.0)
    ts = DT * np.arange(2 * LENGTH * each)
    ys = reference.trajectories_from(LORENZ, first, ts).ys
    return ys.reshape(starts * each, 2 * LENGTH, 3)[:, :LENGTH]


def train_windows(
    name: str, train: jax.Array, key: jax.Array, steps: int, checkpoint: Path | None
) -> generative.Generator:
    """A generator of windows."""
    network_key, critic_key, own = jax.random.split(key, 3)
    options: dict[str, Any] = {"activation": "silu", "dtype": jnp.float32}
    network = nn.MLP(8, (256, 256), 3 * LENGTH, rngs=nnx.Rngs(network_key), **options)
    spread = float(jnp.std(jnp.diff(train, axis=1)) / jnp.std(train - train.mean(axis=0)[None]))
    critic = WindowCritic(None if name == "plain" else spread, nnx.Rngs(critic_key))
    flow = reference.RungeKutta4(system=LORENZ, dt=DT)  # its own error is 4e-4 in these units

    def residual(rows: jax.Array) -> jax.Array:
        return defects(flow, rows)

    adam = fit.scheduled(optax.adam, learning_rate=fit.Cosine(1e-3, steps), b1=0.0, b2=0.99)
    return generative.fit_adversarial(
        network, critic, train, latent=8, optimizers=(adam, adam), key=own, steps=steps,
        objective=generative.Relativistic(0.1), residual=residual if name == "physics" else None,
        residual_weight=10.0, progress=True, checkpoint=checkpoint,
    ).generator  # fmt: skip


def defects(step_map: Any, rows: jax.Array) -> jax.Array:
    """How far each row is from where the map takes the row before, in standard deviations."""
    windows = data.Windows(rows, jnp.zeros(len(rows), rows.dtype))
    return residuals.defects(step_map, windows, jnp.asarray(SIGMA, rows.dtype))


def score(row: Row, windows: jax.Array, test: jax.Array) -> None:
    """How near windows are to true ones, and whether they obey the equation."""
    ys, known = np.asarray(windows), np.asarray(test)
    row["divergence"] = dynamics.jensen_shannon(histogram(ys), histogram(known)).max()
    spectra = [dynamics.power_spectrum(x, DT, LENGTH)[1].sum(axis=0) for x in (ys, known)]
    row["spectrum"] = dynamics.hellinger(*spectra).max()
    flow = reference.FlowMap(system=LORENZ, dt=DT)
    row["residual"] = jnp.sqrt(jnp.mean(defects(flow, windows) ** 2))
    trajectories = data.from_arrays(DT * np.arange(LENGTH), windows)
    inputs = surrogate.network_inputs(trajectories)
    network = nn.MLP.frozen(inputs, 100, 3, scale=0.1, rngs=nnx.Rngs(0))
    step_map = surrogate.fit_readout(network, trajectories, refinements=0).step_map
    found = dynamics.lyapunov_spectrum(step_map, test[:20, :1], 1000, num=1, transient=100)
    row["lambda1"] = jnp.mean(found.exponents)


def histogram(ys: np.ndarray) -> np.ndarray:
    """How often each component is in each bin, with all outside in the outermost ones."""
    inside = np.clip(ys.reshape(-1, 3), LOW + 1e-9, HIGH - 1e-9)
    edges = np.linspace(LOW, HIGH, BINS + 1)
    return np.stack([np.histogram(inside[:, i], edges[:, i])[0] for i in range(3)])
