"""How near generated digits are to true ones, as a classifier of digits sees them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _digit_images import FEW
from flax import nnx

from physml import classify, generative, nn
from physml.data import Images
from physml.experiment import Run


class Judge:
    """What makes digits comparable: a classifier, true digits and their features."""

    def __init__(self, run: Run, images: Images, key: jax.Array, quick: bool):
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
