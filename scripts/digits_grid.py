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

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from _digit_recipes import LECTURE, WIDE, fit_part, scores

from physml import data, experiment, plots

GRID = tuple(np.logspace(-5, 1, 7).tolist())  # of learning rates, and of L2 strengths
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


COLUMNS = {
    "split": "split", "rate": "rate", "l2": "L2", "valid_acc": "validation",
    "test_acc_mean": "test", "together_test_acc": f"{MEMBERS} together",
    "wide_test_acc_mean": "wide", "best_test_acc": f"{MEMBERS} wide",
    "grid_seconds": "grid [s]", "wide_seconds": "wide [s]",
}  # fmt: skip


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    small = dataclasses.replace(config, splits=1, epochs=3, wide_epochs=3)
    sizes, images = small if config.quick else config, data.digits().scaled()
    with experiment.Run(config.out, config) as run:
        run.figure("images", plots.labelled_images(images[:25]))
        found = [one_split(run, sizes, images, split) for split in range(sizes.splits)]
        rows = [each.row for each in found]
        models = len(GRID) ** 2 * config.seeds
        run.table(rows, COLUMNS, title=f"Accuracy: the best of {models} networks, and wide ones")
        draw(run, found, images.names)
        run.save_model("wide", found[-1].wide)
        means = {key: np.mean([row[key] for row in rows]) for key in list(COLUMNS)[4:]}
        diverged = sum(each.diverged for each in found)
        counts = {"models": models, "diverged": diverged, "splits": len(rows), "members": MEMBERS}
        return run.metrics(means | counts)


class Found(NamedTuple):
    """What one split shows."""

    row: dict[str, Any]  # of the table, by the keys of COLUMNS
    accuracy: dict[str, np.ndarray]  # of the grid's networks, by the part of the images
    diverged: int
    wide: Any  # the wide networks
    confusion: np.ndarray  # of what they say together


def one_split(run: experiment.Run, config: Config, images: data.Images, split: int) -> Found:
    """The grid on the images to train with; then those that are chosen, and the wide ones."""
    key = jax.random.fold_in(jax.random.key(config.seed), split)
    test_key, valid_key, fit_key = jax.random.split(key, 3)
    whole, test = images.split((0.8, 0.2), test_key)
    train, valid = whole.split((0.8, 0.2), valid_key)
    scale = data.Standardiser.fit(train.images)
    whole, train, valid, test = (x.transformed(scale) for x in (whole, train, valid, test))

    rates, strengths, _ = np.meshgrid(GRID, GRID, np.arange(config.seeds), indexing="ij")
    settings = {"rate": rates.ravel(), "l2": strengths.ravel()}
    many = train, config.epochs, fit_key, rates.size
    grid = fit_part(run, f"split_{split}.grid", LECTURE, *many, **settings)
    (on_train, _), (on_valid, entropy), (on_test, _) = (
        [score.reshape(rates.shape).mean(axis=-1) for score in scores(grid, part)[0]]
        for part in (train, valid, test)
    )  # means over the seeds
    i, j = np.unravel_index(np.nanargmin(entropy), entropy.shape)

    chosen = {"rate": np.full(MEMBERS, GRID[i]), "l2": np.full(MEMBERS, GRID[j])}
    many = whole, config.epochs, fit_key, MEMBERS
    best = fit_part(run, f"split_{split}.best", LECTURE, *many, **chosen)
    many = whole, config.wide_epochs, fit_key, MEMBERS
    wide = fit_part(run, f"split_{split}.wide", WIDE, *many)
    (best_alone, _), best_together = scores(best, test)
    (wide_alone, _), wide_together = scores(wide, test)
    row = (
        split, GRID[i], GRID[j], on_valid[i, j], best_alone.mean(), best_together.accuracy,
        wide_alone.mean(), wide_together.accuracy, grid.seconds, wide.seconds,
    )  # fmt: skip
    return Found(
        dict(zip(COLUMNS, row, strict=True)),
        {"train": on_train, "test": on_test},
        int(grid.diverged.sum()),
        wide.models,
        wide_together.confusion,
    )


def draw(run: experiment.Run, found: list[Found], names: tuple[str, ...]) -> None:
    """Heat maps of the grid's accuracies, and the confusion of the wide networks."""
    for part in ("train", "test"):
        accuracy = np.mean([each.accuracy[part] for each in found], axis=0)
        figure = plots.heat_map(
            100 * accuracy, GRID, GRID, row_name="learning rate", column_name="L2 strength",
            name="accuracy [%]", log=False, title=f"{part}, mean of {len(found)} splits",
        )  # fmt: skip
        run.figure(f"{part}_accuracy", figure)
    confusion = np.sum([each.confusion for each in found], axis=0)
    run.figure("confusion", plots.confusion_matrix(confusion, names))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", os.cpu_count())  # the models are shared out among them
    experiment.cli(main, Config)
