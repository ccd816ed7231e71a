"""CIFAR-10 by convolutional networks: TensorFlow's tutorial, and a better one if wanted.

Each network is trained on 45,000 images of the training set, and its weights of the best epoch are
chosen by the other 5,000; the test images are looked at once, at the end. The tutorial's network
has three convolutions and one dense layer and sees its images as they are in each of ten epochs.
The better one has five convolutions with batch normalisation, and its images are mirrored and
shifted anew in each epoch.

For example: --data DIR --better
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from physml import classify, data, experiment, fit, nn, plots
from physml.experiment import Run


@dataclass(frozen=True)
class Config(experiment.Config):
    """Options of the experiment."""

    out: Path = Path("results/cifar10")
    quick: bool = False
    """One epoch on few images."""
    data: Path | None = None
    """Folder with the batches or the archive; without it a cache: 170 MB are downloaded to it."""
    epochs: int = 10
    """Epochs of the tutorial's network."""
    better: bool = False
    """Train the better network too."""
    better_epochs: int = 10
    """Epochs of the better network."""


def main(config: Config) -> dict[str, object]:
    """Run the experiment, write its folder, and return its metrics."""
    images, test = (part.scaled() for part in data.cifar10(config.data, progress=True))
    if config.quick:
        images, test = images[:1200], test[:600]
    recipes: dict[str, dict[str, Any]] = {
        "tutorial": {"epochs": config.epochs, "batch_size": 32, "learning_rate": 2e-3},
        "better": {
            "epochs": config.better_epochs,
            "batch_size": 128,
            "learning_rate": 1e-2,
            "weight_decay": 2e-2,
            "label_smoothing": 0.1,
            "augment": classify.Augmentation(shift=4, flip=True),
        },
    }
    if not config.better:
        del recipes["better"]
    curves = {}
    with Run(config.out, config) as run:
        run.figure("images", plots.labelled_images(images[:25]))
        key, split_key = jax.random.split(jax.random.key(config.seed))
        train, valid = images.split((0.9, 0.1), split_key)
        scale = data.Standardiser.fit(train.images)  # borders are padded by 0, then the mean
        train, valid, seen = (part.transformed(scale) for part in (train, valid, test))
        for name, recipe in recipes.items():
            if config.quick:
                recipe |= {"epochs": 1}
            layers = nn.ARCHITECTURES[f"cifar-{name}"]
            network = nn.CNN((32, 32, 3), layers, 10, rngs=nnx.Rngs(config.seed))
            print(f"{name}\n{network.summary()}\n")
            with run.row("" if name == "tutorial" else name, label=name) as row:
                kept = {"key": key, "checkpoint": run.checkpoint(name), "progress": True}
                fitted = run.part(name, classify.fit, network, train, valid, **kept, **recipe)
                found = classify.evaluate(classify.probabilities(fitted.model, seen), test)
                row["test_acc"], row["train_s"] = found.accuracy, fitted.seconds
                row["images_per_s"] = fitted.step * recipe["batch_size"] / fitted.seconds
                row.shown["cross_entropy"] = found.cross_entropy
            run.save_model(name, fitted.model)
            curves[name] = learning_curve(fitted, len(train) // recipe["batch_size"])
            draw(run, name, fitted.model, found, test, seen)
            print(f"{name}\n{found.summary()}\n")
        run.figure("accuracy", plots.accuracy_curves(curves))
        run.table(run.take_rows(), COLUMNS)
        return run.metrics({"test_images": len(test)})


COLUMNS = {
    "name": "network",
    "test_acc": "test accuracy",
    "cross_entropy": "cross-entropy",
    "train_s": "seconds",
    "images_per_s": "images/s",
}


def learning_curve(fitted: fit.Fit, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, and after each the accuracy in training, of all its batches, and in validation."""
    valid = 1 - fitted.history["valid_loss"]
    train = fitted.history["accuracy"][: len(valid) * steps].reshape(len(valid), steps)
    return np.arange(1, 1 + len(valid)), train.mean(axis=1), valid


def draw(
    run: Run,
    name: str,
    network: nn.CNN,
    found: classify.Evaluation,
    images: data.Images,
    seen: data.Images,
) -> None:
    """What a network confuses and is most wrong about, its first filters, and what it sees."""
    for kind, figure in plots.evaluation_figures(found, images).items():
        run.figure(f"{name}_{kind}", figure)
    run.figure(f"{name}_filters", plots.filters(network.kernels[0]))
    network.eval()
    maps = {f"layer {i + 1}": m[0] for i, m in enumerate(network.feature_maps(seen.images[:1]))}
    run.figure(f"{name}_maps", plots.feature_maps(images.images[0], maps))


if __name__ == "__main__":
    experiment.cli(main, Config)
