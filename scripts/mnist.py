"""MNIST by convolutional networks: the usual first one in a minute, strong ones if wanted.

The plain network (two convolutions with pooling, one dense layer) is trained on 55,000 images of
the training set, and its weights of the best epoch are chosen by the other 5,000. The strong
networks, as many as `--members`, are trained on all 60,000 images, which are shifted, rotated and
zoomed anew in each epoch. They keep their last weights, as no images are left to choose by, and
average their probabilities over 16 views of an image. The test images are looked at once, at the
end.

For example: --data DIR --members 3
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from physml import classify, data, experiment, nn, plots
from physml.experiment import Run

GOAL = 0.99  # the accuracy in validation that `seconds_to_99` is the time to


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/mnist")
    quick: bool = False
    """One epoch on few images."""
    data: Path | None = None
    """Folder with MNIST's four files; without it a cache, to which 12 MB are downloaded."""
    epochs: int = 4
    """Epochs of the plain network."""
    members: int = 0
    """Strong networks to train, with seeds from `seed` on, and to put together as an ensemble."""
    strong_epochs: int = 20
    """Epochs of a strong network."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    train, test = (part.scaled() for part in data.mnist(config.data, progress=True))
    if config.quick:
        train, test = train[:1200], test[:600]
    with Run(config.out, config) as run:
        found, metrics = plain(config, run, train, test)
        rows = [("two convolutions", *figures_of(found), metrics["train_s"])]
        if config.members:
            ensemble, strong_metrics, strong_rows = strong(config, run, train, test)
            found, metrics, rows = ensemble, metrics | strong_metrics, rows + strong_rows
        run.table(rows, ("network", "test accuracy", "cross-entropy", "calibration", "seconds"))
        print(found.summary(), end="\n\n")
        for name, figure in plots.evaluation_figures(found, test).items():
            run.figure(name, figure)
        calibration = found.calibration
        curve = (calibration.confidence, calibration.accuracy, calibration.counts)
        run.figure("calibration", plots.reliability({rows[-1][0]: curve}))
        return run.metrics(metrics)


def plain(
    config: Config, run: Run, images: data.Images, test: data.Images
) -> tuple[classify.Evaluation, dict[str, float | None]]:
    """The usual first network, and how fast it learns."""
    key, split_key = jax.random.split(jax.random.key(config.seed))
    train, valid = images.split((11 / 12, 1 / 12), split_key)
    network = nn.CNN((28, 28, 1), nn.ARCHITECTURES["mnist"], 10, rngs=nnx.Rngs(config.seed))
    print(network.summary(), end="\n\n")
    epochs = 1 if config.quick else config.epochs
    options: dict[str, Any] = {"learning_rate": 2e-3, "augment": classify.Augmentation(shift=1)}
    options |= {"epochs": epochs, "key": key, "progress": True}
    options["checkpoint"] = run.checkpoint("plain")
    fitted = run.part("plain", classify.fit, network, train, valid, **options)
    reached = fitted.history["valid_step"][fitted.history["valid_loss"] <= 1 - GOAL]
    run.save_model("plain", fitted.model)
    found = classify.evaluate(classify.probabilities(fitted.model, test), test)
    return found, {
        "test_acc": found.accuracy,
        "test_images": len(test),
        "train_s": fitted.seconds,
        "images_per_s": 128 * fitted.step / fitted.seconds,
        "seconds_to_99": fitted.seconds * reached[0] / fitted.step if len(reached) else None,
    }


def strong(
    config: Config, run: Run, train: data.Images, test: data.Images
) -> tuple[classify.Evaluation, dict[str, float], list[tuple[str, float, float, float, float]]]:
    """Strong networks, each tested alone, and all together.

    They are trained one after another: side by side in one program they take as long.
    """
    moves = classify.Augmentation(shift=2, rotation=10.0, scale=0.1)
    # Views at test time move by half as much, so that their mean is about the image as it is.
    half = classify.Augmentation(shift=1, rotation=5.0, scale=0.05)
    recipe = {"label_smoothing": 0.05, "weight_decay": 1e-2, "augment": moves}
    epochs = 1 if config.quick else config.strong_epochs
    each, metrics, seconds = [], {}, {}
    for seed in range(config.seed, config.seed + config.members):

        def compute(seed: int = seed) -> dict[str, Any]:
            network = nn.CNN((28, 28, 1), nn.ARCHITECTURES["mnist-strong"], 10, rngs=nnx.Rngs(seed))
            key, view_key = jax.random.split(jax.random.key(seed))
            options = {"epochs": epochs, "key": key, "progress": True} | recipe
            options["checkpoint"] = run.checkpoint(f"strong_{seed}")
            fitted = classify.fit(network, train, **options)
            run.save_model(f"strong_{seed}", fitted.model)
            found = classify.probabilities(fitted.model, test, views=16, augment=half, key=view_key)
            return {"probabilities": found, "seconds": fitted.seconds}

        part = run.part(f"strong_{seed}", compute)
        each.append(part["probabilities"])
        seconds[seed] = metrics[f"strong.train_s_{seed}"] = part["seconds"]
    alone, together = classify.evaluate_members(each, test)
    rows = []
    for seed, found in zip(seconds, alone, strict=True):
        metrics[f"strong.test_acc_{seed}"] = found.accuracy
        rows.append((f"strong, seed {seed}", *figures_of(found), seconds[seed]))
    metrics["strong.train_s_mean"] = np.mean(list(seconds.values()))
    metrics["strong.test_acc_mean"] = np.mean([found.accuracy for found in alone])
    metrics["ensemble.test_acc"], metrics["ensemble.members"] = together.accuracy, len(each)
    rows.append((f"ensemble of {len(each)}", *figures_of(together), sum(seconds.values())))
    return together, metrics, rows


def figures_of(found: classify.Evaluation) -> tuple[float, float, float]:
    return found.accuracy, found.cross_entropy, found.calibration.error


if __name__ == "__main__":
    experiment.cli(main, Config)
