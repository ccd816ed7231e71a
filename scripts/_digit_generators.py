"""Digits from noise: adversarial networks beside a variational autoencoder of equal size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _digit_images import FEW, DigitsConfig
from _digit_judge import Judge
from flax import nnx

from physml import fit, generative, nn, plots
from physml.experiment import TIMES, Run

SHOWN = 10
LABELS = {"gan": "adversarial", "conditional": "adversarial, class asked for"}
COLUMNS = {
    "name": "digits", "frechet": "Fréchet", "precision": "precision", "recall": "recall",
    "nearest": "nearest", "rarest": "rarest class", "obeyed": "as asked", **TIMES,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large the networks for a set of digits are, and how long they are trained."""

    hidden: tuple[int, ...]
    latent: int
    steps: int
    penalty: float


SMALL = Size((128, 128), 16, 4000, 3.0)
MNIST = Size((256, 256), 32, 12_000, 1.0)


def compare_digits(run: Run, key: jax.Array, config: DigitsConfig) -> None:
    """Generated digits beside true ones: a table and a figure of digits and their nearest."""
    keys = jax.random.split(key, 4)
    size = MNIST if config.mnist else SMALL
    judge = Judge(run, config.images(keys[0]), keys[0], config.quick)
    train, labels = judge.rows(judge.train), np.asarray(judge.train.labels)
    num, steps = len(train), 200 if config.quick else size.steps
    made = {}
    with run.row("digits.truth", "training images") as row:
        row.metrics(judge.score(train, labels))
    with run.row("digits.test", "test images") as row:
        some = judge.rows(judge.test)[:FEW]
        row["nearest"] = np.median(generative.nearest(some, train).distance)
    for name in ("gan", "conditional"):
        wanted = labels if name == "conditional" else None
        with run.row(f"digits.{name}", LABELS[name]) as row:
            generator = row.part(
                train_digits, train, wanted, keys[1], size, steps, row.checkpoint
            )  # fmt: skip
            made[name] = generator.sample(num, keys[2], wanted)
            row.metrics(judge.score(made[name], wanted))
    with run.row("digits.vae", "variational autoencoder") as row:
        options = {"steps": 3 * steps, "key": keys[1], "batch_size": 128}
        options["checkpoint"] = row.checkpoint
        adam = optax.adamw(optax.cosine_decay_schedule(2e-3, 3 * steps))
        codec = row.part(
            generative.fit_autoencoder, variational(train.shape[1], size, keys[3]), train,
            optimizer=adam, **options,
        ).codec  # fmt: skip
        made["vae"] = generative.sample(codec, num, keys[2])
        row.metrics(judge.score(made["vae"]))
    run.table(run.take_rows(), COLUMNS, title=f"{num} digits against {len(judge.test)} test images")
    found = run.metrics({})
    for name in ("gan", "vae", "conditional"):
        run.metrics({f"digits.frechet_{name}": found[f"digits.{name}.frechet"]})
    run.metrics({"digits.frechet_floor": found["digits.truth.frechet"]})
    show(run, judge, made)


def show(run: Run, judge: Judge, made: dict[str, jax.Array]) -> None:
    """Digits of each kind, those of the first with the nearest training image below."""
    train = judge.rows(judge.train)
    near = generative.nearest(made["gan"][:SHOWN], train)
    parts = {
        "adversarial": made["gan"][:SHOWN],
        "nearest to it": train[near.index],
        "conditional": made["conditional"][:SHOWN],
        "autoencoder": made["vae"][:SHOWN],
    }
    words = [name if i == 0 else "" for name in parts for i in range(SHOWN)]
    pixels = jnp.clip(jnp.concatenate(list(parts.values())).reshape(-1, *judge.shape), 0, 1)
    run.figure("digits", plots.image_grid(pixels, words, columns=SHOWN))


def train_digits(
    train: jax.Array, labels: np.ndarray | None, key: jax.Array, size: Size, steps: int,
    checkpoint: Path | None,
) -> generative.Generator:  # fmt: skip
    """A generator of digits, of a class that is asked for if there are labels."""
    first, second, own = jax.random.split(key, 3)
    classes = 0 if labels is None else 10
    options: dict[str, Any] = {"activation": "silu", "dtype": jnp.float32}
    inputs, pixels = size.latent + classes, train.shape[1]
    network = nn.MLP(inputs, size.hidden, pixels, rngs=nnx.Rngs(first), **options)
    critic = nn.MLP(pixels, size.hidden, classes or 1, rngs=nnx.Rngs(second), **options)
    adam = fit.scheduled(optax.adam, learning_rate=fit.Cosine(1e-3, steps), b1=0.0, b2=0.99)
    # Without bounds, the critic knows generated images by pixels that are nearly black.
    return generative.fit_adversarial(
        network, critic, train, labels, latent=size.latent, optimizers=(adam, adam), key=own,
        steps=steps, objective=generative.Relativistic(size.penalty), bounds=(0.0, 1.0),
        progress=True, checkpoint=checkpoint,
    ).generator  # fmt: skip


def variational(pixels: int, size: Size, key: jax.Array) -> nn.Variational:
    """A variational autoencoder whose encoder and decoder are as large as critic and generator."""
    dense = nn.Autoencoder.dense(
        pixels, size.hidden, size.latent // 2, activation="elu", dtype=jnp.float32,
        rngs=nnx.Rngs(key),
    )  # fmt: skip
    return nn.Variational(dense, rngs=nnx.Rngs(key))
