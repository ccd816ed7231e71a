"""Networks for digits of 8 x 8 pixels: how they are made and trained, many at once, and scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import classify, data, fit, nn
from physml.experiment import Run

WIDE_FILTERS = (nn.Filters(64), nn.Pool(), nn.Dropout(0.3), nn.Dense(200), nn.Dropout(0.5))
MOVES = classify.Augmentation(rotation=10.0, scale=0.1)

Setting = dict[str, jax.Array]  # of one network: a key, the number of steps, hyper-parameters


@dataclass(frozen=True)
class Recipe:
    """How networks are made and trained. It is made once, so that nothing is compiled again."""

    loss: fit.Loss
    network: Callable[[Setting], Any]
    optimizer: Callable[[Setting], optax.GradientTransformation]
    batch_size: int


def lecture_net(setting: Setting) -> nn.Regularised:
    network = nn.CNN((8, 8, 1), nn.ARCHITECTURES["digits"], 10, rngs=nnx.Rngs(setting["key"]))
    return nn.Regularised(network, setting["l2"])


def sgd(setting: Setting) -> optax.GradientTransformation:
    return optax.sgd(lambda count: setting["rate"] * (1 - count / setting["steps"]))


def wide_net(setting: Setting) -> nn.CNN:
    return nn.CNN((8, 8, 1), WIDE_FILTERS, 10, rngs=nnx.Rngs(setting["key"]))


def one_cycle(setting: Setting) -> optax.GradientTransformation:
    rate = fit.OneCycle(1e-2, setting["steps"])
    return fit.scheduled(optax.adamw, learning_rate=rate, weight_decay=1e-2)


LECTURE = Recipe(classify.cross_entropy(), lecture_net, sgd, 100)
WIDE = Recipe(classify.cross_entropy(label_smoothing=0.1), wide_net, one_cycle, 50)


def fit_part(run: Run, part: str, *args: Any, **settings: Any) -> fit.Sweep:
    """Networks by `fit_many`, kept as a part of the run."""
    return run.part(part, fit_many, *args, checkpoint=run.checkpoint(part), **settings)


def fit_many(
    recipe: Recipe,
    images: data.Images,
    epochs: int,
    key: jax.Array,
    num: int,
    checkpoint: Path | None = None,
    **settings: Any,
) -> fit.Sweep:
    """Fit `num` networks by a recipe, each with first weights and settings of its own."""
    steps = epochs * (len(images) // recipe.batch_size)
    arrays = {name: jnp.asarray(values, jnp.float32) for name, values in settings.items()}
    arrays |= {"key": jax.random.split(key, num), "steps": jnp.full(num, steps, jnp.float32)}
    return fit.sweep(
        recipe.loss, recipe.network, images, settings=arrays, optimizer=recipe.optimizer,
        batch_size=recipe.batch_size, steps=steps, augment=MOVES, key=key, devices=jax.devices(),
        progress=True, checkpoint=checkpoint,
    )  # fmt: skip


def scores(swept: fit.Sweep, images: data.Images) -> tuple[np.ndarray, classify.Evaluation]:
    """Accuracy and cross-entropy of each model (NaN where it diverged); what all are together."""
    probabilities = classify.member_probabilities(swept.models, images)
    alone, together = classify.evaluate_members(probabilities, images)
    found = np.array([(each.accuracy, each.cross_entropy) for each in alone]).T
    return np.where(swept.diverged, np.nan, found), together
