"""Digits of 8 x 8 pixels: the lecture's grid of learning rates and L2 strengths as one program.

The lecture's network (ten filters of 3 x 3, pooling, 50 dense units) is trained by stochastic
gradient descent with all 7 x 7 settings at once. The learning rate falls to zero on a straight
line, and the images are rotated and zoomed anew in each epoch. Each of five random splits tests
with a fifth of the images and validates with a fifth of the others. Five networks with the setting
of the least cross-entropy in validation are then trained on all images that are not to test with,
and tested. Wider networks with dropout, trained by AdamW in one cycle, are tested beside them;
their recipe was chosen by the validation images of all five splits, and some of these images are
test images of other splits.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from physml import classify, data, experiment, fit, nn, plots

GRID = tuple(np.logspace(-5, 1, 7).tolist())  # of learning rates, and of L2 strengths
WIDE = (nn.Filters(64), nn.Pool(), nn.Dropout(0.3), nn.Dense(200), nn.Dropout(0.5))
MOVES = classify.Augmentation(rotation=10.0, scale=0.1)
MEMBERS = 5  # networks that are tested, one by one and together


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/digits_grid")
    quick: bool = False
    """One split and three epochs."""
    splits: int = 5
    """Random splits, each with its own weights, by the same compiled programs."""
    seeds: int = 1
    """Networks for each setting of the grid, side by side in the program."""
    epochs: int = 100
    """Epochs of the grid."""
    wide_epochs: int = 60
    """Epochs of the wide networks."""


def lecture_net(setting: dict[str, jax.Array]) -> nn.Regularised:
    network = nn.CNN((8, 8, 1), nn.ARCHITECTURES["digits"], 10, rngs=nnx.Rngs(setting["key"]))
    return nn.Regularised(network, setting["l2"])


def sgd(setting: dict[str, jax.Array]) -> optax.GradientTransformation:
    return optax.sgd(lambda count: setting["rate"] * (1 - count / setting["steps"]))


def wide_net(setting: dict[str, jax.Array]) -> nn.CNN:
    return nn.CNN((8, 8, 1), WIDE, 10, rngs=nnx.Rngs(setting["key"]))


def one_cycle(setting: dict[str, jax.Array]) -> optax.GradientTransformation:
    rate = fit.OneCycle(1e-2, setting["steps"])
    return fit.scheduled(optax.adamw, learning_rate=rate, weight_decay=1e-2)


# Loss, network, optimizer and images in a step: made once, so that nothing is compiled again.
Recipe = tuple[fit.Loss, Callable, Callable, int]
LECTURE: Recipe = (classify.cross_entropy(), lecture_net, sgd, 100)
WIDE_RECIPE: Recipe = (classify.cross_entropy(label_smoothing=0.1), wide_net, one_cycle, 50)
COLUMNS = {
    "split": "split", "rate": "rate", "l2": "L2", "valid_acc": "validation",
    "test_acc_mean": "test", "together_test_acc": f"{MEMBERS} together",
    "wide_test_acc_mean": "wide", "best_test_acc": f"{MEMBERS} wide",
    "grid_seconds": "grid [s]", "wide_seconds": "wide [s]",
}  # fmt: skip


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    images = data.digits().scaled()
    splits, epochs, wide_epochs = config.splits, config.epochs, config.wide_epochs
    if config.quick:
        splits, epochs, wide_epochs = 1, 3, 3
    rates, strengths, _ = np.meshgrid(GRID, GRID, np.arange(config.seeds), indexing="ij")
    with experiment.Run(config.out, config) as run:
        run.figure("images", plots.labelled_images(images[:25]))
        rows, maps, confusion, diverged = [], [], np.zeros((10, 10), int), 0
        for split in range(splits):
            key = jax.random.fold_in(jax.random.key(config.seed), split)
            test_key, valid_key, fit_key = jax.random.split(key, 3)
            whole, test = images.split((0.8, 0.2), test_key)
            train, valid = whole.split((0.8, 0.2), valid_key)
            scale = data.Standardiser.fit(train.images)
            whole, train, valid, test = (x.transformed(scale) for x in (whole, train, valid, test))

            settings = {"rate": rates.ravel(), "l2": strengths.ravel()}

            many = train, epochs, fit_key, rates.size
            grid = kept(run, f"split_{split}.grid", LECTURE, *many, **settings)
            (on_train, _), (on_valid, entropy), (on_test, _) = (
                [score.reshape(rates.shape).mean(axis=-1) for score in scores(grid, part)[0]]
                for part in (train, valid, test)
            )  # means over the seeds
            i, j = np.unravel_index(np.nanargmin(entropy), entropy.shape)
            chosen = {"rate": np.full(MEMBERS, GRID[i]), "l2": np.full(MEMBERS, GRID[j])}
            many = whole, epochs, fit_key, MEMBERS
            best = kept(run, f"split_{split}.best", LECTURE, *many, **chosen)
            many = whole, wide_epochs, fit_key, MEMBERS
            wide = kept(run, f"split_{split}.wide", WIDE_RECIPE, *many)
            ((best_alone, _), best_together), ((wide_alone, _), wide_together) = (
                scores(swept, test) for swept in (best, wide)
            )
            maps.append((on_train, on_test))
            confusion += wide_together.confusion
            diverged += int(grid.diverged.sum())
            found = (
                split, GRID[i], GRID[j], on_valid[i, j], best_alone.mean(), best_together.accuracy,
                wide_alone.mean(), wide_together.accuracy, grid.seconds, wide.seconds,
            )  # fmt: skip
            rows.append(dict(zip(COLUMNS, found, strict=True)))
        run.table(rows, COLUMNS, title=f"Accuracy: the best of {len(grid)} networks, and wide ones")
        for part, accuracy in zip(("train", "test"), np.mean(maps, axis=0), strict=True):
            figure = plots.heat_map(
                100 * accuracy, GRID, GRID, row_name="learning rate", column_name="L2 strength",
                name="accuracy [%]", log=False, title=f"{part}, mean of {splits} splits",
            )  # fmt: skip
            run.figure(f"{part}_accuracy", figure)
        run.figure("confusion", plots.confusion_matrix(confusion, images.names))
        run.save_model("wide", wide.models)
        means = {key: np.mean([row[key] for row in rows]) for key in list(COLUMNS)[4:]}
        counts = {"models": len(grid), "diverged": diverged, "splits": splits, "members": MEMBERS}
        return run.metrics(means | counts)


def kept(run: experiment.Run, part: str, *args: Any, **settings: Any) -> fit.Sweep:
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
    loss, network, optimizer, batch_size = recipe
    steps = epochs * (len(images) // batch_size)
    arrays = {name: jnp.asarray(values, jnp.float32) for name, values in settings.items()}
    arrays |= {"key": jax.random.split(key, num), "steps": jnp.full(num, steps, jnp.float32)}
    return fit.sweep(
        loss, network, images, settings=arrays, optimizer=optimizer, batch_size=batch_size,
        steps=steps, augment=MOVES, key=key, devices=jax.devices(), progress=True,
        checkpoint=checkpoint,
    )  # fmt: skip


def scores(swept: fit.Sweep, images: data.Images) -> tuple[np.ndarray, classify.Evaluation]:
    """Accuracy and cross-entropy of each model (NaN where it diverged); what all are together."""
    probabilities = classify.member_probabilities(swept.models, images)
    alone, together = classify.evaluate_members(probabilities, images)
    found = np.array([(each.accuracy, each.cross_entropy) for each in alone]).T
    return np.where(swept.diverged, np.nan, found), together


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", os.cpu_count())  # the models are shared out among them
    experiment.cli(main, Config)
