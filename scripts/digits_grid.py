"""Digits of 8 x 8 pixels: the lecture's grid of learning rates and L2 strengths as one program.

The lecture's network (ten filters of 3 x 3, pooling, 50 dense units) by plain stochastic gradient
descent, with all 7 x 7 settings at once. Of each of five splits a fifth of the images is to test
with and a fifth of the others to validate with; the setting that is best in validation is tested.
Beside it wider networks with dropout by AdamW in one cycle, on images shifted anew in each epoch,
alone and together; their recipe was chosen in validation too, and they learn from all that is not
to test with.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from physml import classify, data, fit, nn, plots
from physml.results import Run

GRID = np.logspace(-5, 1, 7)  # of learning rates, and of L2 strengths
WIDE = (nn.Filters(32), nn.Pool(), nn.Dropout(0.25), nn.Dense(100), nn.Dropout(0.25))
MEMBERS = 5  # wide networks in an ensemble


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("results/digits_grid")
    """Folder for the table, metrics, figures and models."""
    seed: int = 0
    """Seed of the splits, the weights, the order of the images and how they are shifted."""
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


class Regularized(eqx.Module):
    """A network and the strength of its L2 regularisation."""

    net: nn.CNN
    l2: jax.Array

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.net(images)


def lecture_net(setting: Any) -> Regularized:
    net = nn.CNN((8, 8, 1), nn.ARCHITECTURES["digits"], 10, rngs=nnx.Rngs(setting["key"]))
    return Regularized(net, setting["l2"])


def grid_loss(model: Regularized, batch: Any, key: Any) -> tuple[jax.Array, dict]:
    return classify.cross_entropy(l2=model.l2)(model, batch, key)


def sgd(setting: Any) -> optax.GradientTransformation:
    return optax.sgd(setting["rate"])


def wide_net(setting: Any) -> nn.CNN:
    return nn.CNN((8, 8, 1), WIDE, 10, rngs=nnx.Rngs(setting["key"]))


wide_loss = classify.cross_entropy(label_smoothing=0.1)


def one_cycle(setting: Any) -> optax.GradientTransformation:
    rate = fit.OneCycle(3e-3, setting["steps"])
    return fit.scheduled(optax.adamw, learning_rate=rate, weight_decay=1e-2)


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, write its folder, and return its metrics."""
    images = data.digits().scaled()
    splits = 1 if config.quick else config.splits
    with Run(config.out, config) as run:
        words = [images.names[label] for label in np.asarray(images.labels[:25])]
        run.figure("images", plots.image_grid(images.images[:25], words))
        grids, rows, confusion = [], [], np.zeros((10, 10), int)
        for split in range(splits):
            key = jax.random.fold_in(jax.random.key(config.seed), split)
            test_key, valid_key, fit_key = jax.random.split(key, 3)
            whole, test = images.split((0.8, 0.2), test_key)
            train, valid = whole.split((0.8, 0.2), valid_key)
            grids.append(grid(config, {"train": train, "valid": valid, "test": test}, fit_key))
            wide = train_wide(config, whole, fit_key)
            members = np.asarray(classify.member_probabilities(wide.models, test))
            alone = np.mean([classify.accuracy(member, test.labels) for member in members])
            together = classify.evaluate(members.mean(axis=0), test)
            confusion += together.confusion
            rows.append((split, *grids[-1]["found"], alone, together.accuracy, wide.seconds))
        swept = grids[0]["swept"]
        run.table(
            rows,
            ("split", "rate", "L2", "validation", "test", "grid [s]", "wide", "together", "[s]"),
            title=f"Accuracy of the best of {len(swept)} networks in validation, and of wide ones",
        )
        for part in ("train", "test"):
            accuracy = 100 * np.mean([each[part] for each in grids], axis=0)
            figure = plots.heat_map(
                accuracy, GRID, GRID, row_name="learning rate", column_name="L2 strength",
                name="accuracy [%]", log=False, title=f"{part}, mean of {splits} splits",
            )  # fmt: skip
            run.figure(f"{part}_accuracy", figure)
        run.figure("confusion", plots.confusion_matrix(confusion, images.names))
        run.save_model("wide", wide.models)
        columns = np.array(rows)
        return run.metrics(
            {
                "test_acc_mean": columns[:, 4].mean(),
                "wide_test_acc_mean": columns[:, 6].mean(),
                "best_test_acc": columns[:, 7].mean(),
                "grid_seconds": columns[:, 5].mean(),
                "grid_compile_s": swept.compile_seconds,
                "wide_seconds": columns[:, 8].mean(),
                "models": len(swept),
                "diverged": int(swept.diverged.sum()),
            }
        )


def grid(config: Config, parts: dict[str, data.Images], key: jax.Array) -> dict[str, Any]:
    """Every setting on one split: accuracies (rates, strengths) by part, and what is chosen."""
    rates, strengths, _ = np.meshgrid(GRID, GRID, np.arange(config.seeds), indexing="ij")
    settings = {
        "rate": jnp.asarray(rates.ravel(), jnp.float32),
        "l2": jnp.asarray(strengths.ravel(), jnp.float32),
        "key": jax.random.split(key, rates.size),
    }
    steps = (3 if config.quick else config.epochs) * (len(parts["train"]) // 100)
    swept = fit.sweep(
        grid_loss, lecture_net, parts["train"], settings=settings, optimizer=sgd, steps=steps,
        batch_size=100, key=key, progress=True,
    )  # fmt: skip
    result: dict[str, Any] = {"swept": swept}
    for name, part in parts.items():
        found = np.asarray(classify.member_probabilities(swept.models, part))
        right = [classify.accuracy(each, part.labels) for each in found]
        right = np.where(swept.diverged, np.nan, right).reshape(rates.shape)
        result[name] = right.mean(axis=-1)  # over the seeds
    i, j = np.unravel_index(np.nanargmax(result["valid"]), result["valid"].shape)
    chosen = (GRID[i], GRID[j], result["valid"][i, j], result["test"][i, j])
    return result | {"found": (*chosen, swept.seconds)}


def train_wide(config: Config, train: data.Images, key: jax.Array) -> fit.Sweep:
    """Wide networks that differ in their first weights."""
    steps = (3 if config.quick else config.wide_epochs) * (len(train) // 50)
    settings = {
        "key": jax.random.split(key, MEMBERS),
        "steps": jnp.full(MEMBERS, steps, jnp.float32),
    }
    return fit.sweep(
        wide_loss, wide_net, train, settings=settings, optimizer=one_cycle, steps=steps,
        batch_size=50, augment=classify.Augmentation(shift=1), key=key, progress=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
