"""Digits from noise: adversarial networks beside a variational autoencoder of equal size."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import classify, fit, generative, nn, plots
from physml.data import Images
from physml.experiment import TIMES, Run

SHOWN, LATENT = 10, 16
FEW = 2000  # images for the scores that compare all pairs, and at most if quick
LABELS = {"gan": "adversarial", "conditional": "adversarial, class asked for"}
COLUMNS = {
    "name": "digits", "frechet": "Fréchet", "precision": "precision", "recall": "recall",
    "nearest": "nearest", "rarest": "rarest class", "obeyed": "as asked", **TIMES,
}  # fmt: skip


class Judge:
    """What makes digits comparable: a classifier, true digits and their features."""

    def __init__(self, run: Run, images: Images, key: jax.Array, quick: bool):
        if quick and len(images) > FEW:
            images, _ = images.split((FEW / len(images), 1 - FEW / len(images)), key)
        self.train, self.test = images.scaled(jnp.float32).split((0.8, 0.2), key)
        _, *shape = self.train.images.shape
        self.shape: Any = tuple(shape)
        network = nn.CNN(
            self.shape, nn.ARCHITECTURES["digits"], 10, dtype=jnp.float32, rngs=nnx.Rngs(key)
        )
        epochs = -(-(14_000 if quick else 57_000) // len(self.train))
        options: dict[str, Any] = {"epochs": epochs, "batch_size": 64, "key": key}
        fitted = run.part("digits.classifier", classify.fit, network, self.train, **options)
        self.classifier: Any = fitted.model
        self.classifier.eval()
        self.known = self.features(self.test.images)

    def features(self, rows: jax.Array) -> np.ndarray:
        """What the classifier's readout sees of images."""
        pixels = jnp.clip(jnp.asarray(rows, jnp.float32).reshape(-1, *self.shape), 0, 1)
        return np.concatenate(
            [np.asarray(self.classifier.features(part)) for part in jnp.array_split(pixels, 8)]
        )

    def score(self, rows: jax.Array, labels: np.ndarray | None = None) -> dict[str, Any]:
        """The figures of digits: as many as there are to train with, or more."""
        found, num = self.features(rows), min(len(self.known), FEW)
        classes = np.asarray(self.classifier.readout(jnp.asarray(found))).argmax(axis=1)
        covered = generative.coverage(self.known[:num], found[:num])
        near = generative.nearest(rows[:num].reshape(num, -1), self.rows(self.train))
        figures = {
            "frechet": generative.frechet_distance(found, self.known),
            "precision": covered.precision,
            "recall": covered.recall,
            "nearest": np.median(near.distance),
            "rarest": np.bincount(classes, minlength=10).min() / len(classes),
        }
        return figures if labels is None else figures | {"obeyed": np.mean(classes == labels)}

    def rows(self, images: Images) -> jax.Array:
        """Images as rows of numbers."""
        return jnp.asarray(images.images).reshape(len(images), -1)


def compare_digits(run: Run, key: jax.Array, images: Images, quick: bool) -> None:
    """Generated digits beside true ones: a table and a figure of digits and their nearest."""
    keys = jax.random.split(key, 4)
    judge = Judge(run, images, keys[0], quick)
    train, labels = judge.rows(judge.train), np.asarray(judge.train.labels)
    num, steps = len(train), 200 if quick else 4000
    made = {}
    with run.row("digits.truth", "training images") as row:
        row.metrics(judge.score(train, labels))
    with run.row("digits.test", "test images") as row:
        some = judge.rows(judge.test)[:FEW]
        row["nearest"] = np.median(generative.nearest(some, train).distance)
    for name in ("gan", "conditional"):
        wanted = labels if name == "conditional" else None
        with run.row(f"digits.{name}", LABELS[name]) as row:
            generator = row.part(train_digits, train, wanted, keys[1], steps, row.checkpoint)
            made[name] = generator.sample(num, keys[2], wanted)
            row.metrics(judge.score(made[name], wanted))
    with run.row("digits.vae", "variational autoencoder") as row:
        options = {"steps": 3 * steps, "key": keys[1], "batch_size": 128}
        options["checkpoint"] = row.checkpoint
        adam = optax.adamw(optax.cosine_decay_schedule(2e-3, 3 * steps))
        codec = row.part(
            generative.fit_autoencoder, variational(train.shape[1], keys[3]), train,
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
    train: jax.Array, labels: np.ndarray | None, key: jax.Array, steps: int, checkpoint: Path | None
) -> generative.Generator:
    """A generator of digits, of a class that is asked for if there are labels."""
    first, second, own = jax.random.split(key, 3)
    classes = 0 if labels is None else 10
    options: dict[str, Any] = {"activation": "silu", "dtype": jnp.float32}
    network = nn.MLP(LATENT + classes, (128, 128), train.shape[1], rngs=nnx.Rngs(first), **options)
    critic = nn.MLP(train.shape[1], (128, 128), classes or 1, rngs=nnx.Rngs(second), **options)
    adam = fit.scheduled(optax.adam, learning_rate=fit.Cosine(1e-3, steps), b1=0.0, b2=0.99)
    return generative.fit_adversarial(
        network, critic, train, labels, latent=LATENT, optimizers=(adam, adam), key=own,
        steps=steps, objective=generative.Relativistic(3.0), progress=True, checkpoint=checkpoint,
    ).generator  # fmt: skip


def variational(size: int, key: jax.Array) -> nn.Variational:
    """A variational autoencoder whose encoder and decoder are as large as critic and generator."""
    dense = nn.Autoencoder.dense(
        size, (128, 128), 8, activation="elu", dtype=jnp.float32, rngs=nnx.Rngs(key)
    )
    return nn.Variational(dense, rngs=nnx.Rngs(key))
