"""Work that is killed and goes on, in a process of its own for `survival.py`.

    python benchmarks/_survival.py KIND FOLDER

It goes on from what FOLDER holds. The word "working" is printed when something has been computed,
and `answer.txt` in the folder says in the end what came out: a checksum of all figures, arrays and
histories.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)  # before anything is computed

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import bayes, experiment, fit, generative, nn, pinn, saving, systems

ANSWER = "answer.txt"
KEY = jax.random.key(0)


class Often(saving.Keeper):
    """Writes versions so often that there is one between two kills."""

    def __init__(self, path: Path):
        super().__init__(path, seconds=0.1)


def working(report: Any = None) -> None:
    """Tell the process that kills."""
    print("working", flush=True)


def misfit(model: Any, batch: Any, key: Any) -> jax.Array:
    x, y = batch
    return model(x) - y + 1e-3 * jax.random.normal(key, y.shape, y.dtype)


LOSS = fit.mean_square(misfit)


def pairs() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).uniform(-1, 1, (4000, 3)).astype(np.float32)
    return x, np.sin(3 * x)


def network(key: jax.Array) -> nn.MLP:
    return nn.MLP(3, (64, 64), 3, dtype=jnp.float32, rngs=nnx.Rngs(key))


def build(setting: Any) -> nn.MLP:
    return network(setting["key"])


def adam(setting: Any) -> optax.GradientTransformation:
    return optax.adam(setting["rate"])


def of_fit(folder: Path) -> Any:
    """A fit with batches, noise and validation."""
    x, y = pairs()
    fitted = fit.gradient(
        LOSS, network(KEY), (x[500:], y[500:]), optimizer=optax.adam(1e-3), steps=24_000,
        batch_size=64, key=KEY, valid=(x[:500], y[:500]), valid_every=500, callback=working,
        checkpoint=folder / "fit",
    )  # fmt: skip
    return fitted.state, fitted.history


def of_sweep(folder: Path) -> Any:
    """A sweep over rates."""
    settings = {"rate": jnp.logspace(-4, -1, 6, dtype=jnp.float32), "key": jax.random.split(KEY, 6)}
    swept = fit.sweep(
        LOSS, build, pairs(), settings=settings, optimizer=adam, steps=8000, batch_size=64,
        key=KEY, callback=working, checkpoint=folder / "sweep",
    )  # fmt: skip
    return nnx.state(swept.models), swept.history


def of_training(folder: Path) -> Any:
    """A PINN trained in two stages."""
    units = nn.MLP(1, (16, 16), 2, activation="sin", rngs=nnx.Rngs(0))
    stages = ((optax.adam(3e-3), 6000), (optax.adam(1e-3), 6000))
    training = pinn.train(
        units, systems.DrivenOscillator(), [1.0, 0.0], 10.0, stages=stages, progress=working,
        points=pinn.Even(80), checkpoint=folder / "training", key=KEY,
    )  # fmt: skip
    return training.solution.ys, [(stage.state, stage.history) for stage in training.fits]


def of_game(folder: Path) -> Any:
    """A generator and its critic."""
    critic = nn.MLP(3, (64,), 1, dtype=jnp.float32, rngs=nnx.Rngs(1))
    fitted = generative.fit_adversarial(
        network(KEY), critic, pairs()[1], latent=3, optimizers=(optax.adam(1e-3), optax.adam(1e-3)),
        steps=6000, key=KEY, progress=working, checkpoint=folder / "game",
    )  # fmt: skip
    return fitted.training.state, fitted.training.history


def of_chains(folder: Path) -> Any:
    """Draws from a posterior by the No-U-Turn sampler."""
    ts = np.linspace(0.0, 3.0, 40)
    noise = 0.05 * np.random.default_rng(0).standard_normal((40, 1))
    guess = systems.from_function(decay, 1, args={"k": 1.0})
    found = pinn.identify(guess, ts, np.exp(-1.3 * ts)[:, None] + noise, free=("k",), num_windows=4)
    belief = bayes.posterior(
        found, key=KEY, num_draws=5000, substeps=8, progress=working,
        checkpoint=folder / "chains",
    )  # fmt: skip
    return belief.chains


def decay(t: Any, y: Any, args: Any) -> Any:
    return -args["k"] * y


@dataclass(frozen=True)
class Config(experiment.Config):
    """What a run is resumed with."""

    out: Path = Path("march")
    resume: bool = True


def of_march(folder: Path) -> Any:
    """A script whose parts are marches through time."""
    figures = []
    with experiment.Run(folder / "march", Config(folder / "march")) as run:
        for i in range(1, 13):
            with run.row(f"until_{i}") as row:
                values, error = run.part(f"until_{i}", burgers, 0.1 * i)
                working()
                row["largest"], row["error"] = np.abs(values).max(), error.max()
            figures.append((values, error))
    return figures


def burgers(t1: float) -> tuple[np.ndarray, np.ndarray]:
    """The solution at t1 from a sine, and its estimated error."""
    domain = {"x": (-1.0, 1.0), "t": (0.0, t1)}
    solution = pinn.pde(equation, domain, CONDITIONS, rtol=1e-5)
    x = np.linspace(-1.0, 1.0, 101)
    return np.asarray(solution(x, t1)), np.asarray(solution.error_estimate(x, t1))


def equation(u: Any, x: Any, t: Any) -> Any:
    return u.t(x, t) + u(x, t) * u.x(x, t) - 0.1 * u.xx(x, t)


def at_rest(u: Any, x: Any, t: Any) -> Any:
    return u(x, t)


def sine(u: Any, x: Any, t: Any) -> Any:
    return u(x, t) + jnp.sin(jnp.pi * x)


CONDITIONS: Any = {("t", 0.0): sine, ("x", -1.0): at_rest, ("x", 1.0): at_rest}
KINDS: dict[str, Callable[[Path], Any]] = {
    "fit": of_fit, "sweep": of_sweep, "training": of_training, "game": of_game,
    "chains": of_chains, "march": of_march,
}  # fmt: skip


def checksum(tree: Any) -> str:
    """A checksum of all arrays, with their places in the tree."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def main(kind: str, folder: Path) -> None:
    """Do the work, from where an earlier process has left it."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment.use_compilation_cache()
    setattr(saving, "Keeper", Often)  # noqa: B010 -- the loop asks for it by this name
    (folder / ANSWER).write_text(checksum(KINDS[kind](folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
