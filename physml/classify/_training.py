"""The training of a classifier by AdamW and a one-cycle learning rate."""

import os

import numpy as np
import optax
from flax import nnx
from jaxtyping import PRNGKeyArray

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_not_negative, require_positive
from physml.classify._objective import cross_entropy, error_rate
from physml.data import Images
from physml.fit import Augment, Callback, Fit, OneCycle, gradient, scheduled


@checked
def fit(
    network: nnx.Module,
    train: Images,
    valid: Images | None = None,
    *,
    key: PRNGKeyArray,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
    augment: Augment | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callback = False,
    callback: Callback | None = None,
) -> Fit:
    """Train a network to classify images: AdamW with the learning rate up and down in one cycle.

    The rate is a `fit.OneCycle`. For another schedule, optimizer or loss call `fit.gradient` in the
    same way, with `cross_entropy` and `error_rate`.

    >>> train = data.Images.from_arrays(np.zeros((6, 4, 4, 1)), np.arange(6) % 3)
    >>> network = nn.CNN((4, 4, 1), [nn.Dense(5)], 3, rngs=nnx.Rngs(0))
    >>> fitted = classify.fit(network, train, key=key, epochs=2, batch_size=3)
    >>> classify.accuracy(classify.probabilities(fitted.model, train), train.labels) < 0.5
    True

    Args:
        network: maps images (n, height, width, channels) to logits (n, classes), such as `nn.CNN`.
        train: images as floats, see `Images.scaled`.
        valid: validation images. With them the fit returns the model of the epoch with the fewest
            errors on them, without them the last model.
        key: for the order of the images, and for `augment`.
        epochs: how often every image is seen.
        batch_size: images in a step.
        learning_rate: the largest.
        weight_decay: AdamW's, as a share of the learning rate.
        label_smoothing: see `cross_entropy`.
        augment: makes new images of all before each epoch, such as an `Augmentation`.
        checkpoint, progress, callback: as for `fit.gradient`. After an epoch with validation
            images the metrics of a `fit.Report` hold their error rate as "valid_loss".

    Returns:
        A `fit.Fit`. Its history has "loss" and "accuracy" of each step's batch, and the validation
        images' error rate as "valid_loss".

    Raises:
        ValueError, TypeError: as `fit.gradient` and `cross_entropy`; a class without training
            images; validation images whose classes have other names, and so perhaps other numbers.
    """
    require_count(epochs=epochs, batch_size=batch_size)
    require_positive(learning_rate=learning_rate)
    require_not_negative(weight_decay=weight_decay)
    absent = np.setdiff1d(np.arange(len(train.names)), np.asarray(train.labels))
    if len(absent):
        raise ValueError(
            f"train must have images of every class, got none of "
            f"{', '.join(train.names[i] for i in absent)}: leave these out of its names"
        )
    if valid is not None and valid.names != train.names:
        raise ValueError(f"valid must have the classes of train, {train.names}, got {valid.names}")
    steps = max(1, epochs * (len(train) // batch_size))
    return gradient(
        cross_entropy(label_smoothing=label_smoothing),
        network,
        train,
        optimizer=scheduled(  # traced: other values need no other program
            optax.adamw,
            learning_rate=OneCycle(learning_rate, steps),
            weight_decay=float(weight_decay),
        ),
        epochs=epochs,
        batch_size=batch_size,
        augment=augment,
        key=key,
        valid=valid,
        valid_loss=None if valid is None else error_rate(),
        checkpoint=checkpoint,
        progress=progress,
        callback=callback,
    )
