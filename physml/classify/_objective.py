"""What a classifier is trained on and judged by: losses of an `Images` batch."""

import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, PRNGKeyArray, Scalar

from physml import nn
from physml._types import Loss
from physml.data import Images


def cross_entropy(
    *,
    label_smoothing: float = 0.0,
    l2: float | Scalar = 0.0,
    batch_size: int | None = None,
) -> Loss:
    r"""The mean cross-entropy of a classifier's logits z, as a loss on `Images`.

    $$L = -\frac1n \sum_i \sum_c q_{ic} \log \operatorname{softmax}(z_i)_c
          + \lambda \lVert W \rVert^2, \qquad q_{ic} = (1 - s)\, [c = y_i] + s / C$$

    with label smoothing s (Szegedy et al., arXiv 1512.00567, section 7), C classes and
    `nn.square_norm` of the network. The accuracy is recorded beside it.

    In a sweep over strengths each model brings its own, as a `Regularized`.

    Args:
        label_smoothing: s, at least 0 and less than 1.
        l2: lambda, a number or a traced scalar; of a `Regularized` model, added to its own.
        batch_size: so many images at a time go through the network, so that a validation set of
            any size needs no more memory; all at once if None. For evaluation mode only: batch
            normalisation in training would see every block by itself.

    Raises:
        ValueError: a setting out of range; when called, images of which the model does not make
            one row of logits each, or more classes than logits.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"label_smoothing must be at least 0 and less than 1; got {label_smoothing}"
        )
    if isinstance(l2, float | int) and not l2 >= 0:
        raise ValueError(f"l2 must not be negative; got {l2}")
    check_batch_size(batch_size)
    return _CrossEntropy(label_smoothing, l2, batch_size)


def error_rate(*, batch_size: int | None = 100) -> Loss:
    """The share of images whose largest logit is not that of their class, as a loss on `Images`.

    It has no gradient; as `valid_loss` of a fit it makes the model with the best validation
    accuracy the one that comes back, the first of several that are equally good.

    Args:
        batch_size: as for `cross_entropy`.

    Raises:
        ValueError: as `cross_entropy`.
    """
    check_batch_size(batch_size)
    return _ErrorRate(batch_size)


class Regularized(eqx.Module):
    r"""A network and the strength $\lambda$ of its L2 regularisation, which is not trained.

    `cross_entropy` adds $\lambda \lVert W \rVert^2$ to the loss of such a model, so that in a sweep
    every model can have another strength:

    ```python
    fit.sweep(
        classify.cross_entropy(),
        lambda s: classify.Regularized(nn.CNN(..., rngs=nnx.Rngs(s["key"])), s["l2"]),
        images,
        settings={"l2": strengths, "key": keys},
        ...
    )
    ```
    """

    network: Any
    l2: Float[Array, ""] | float

    def __call__(
        self, images: Float[Array, "n height width channels"]
    ) -> Float[Array, "n classes"]:
        return self.network(images)


class _CrossEntropy(eqx.Module):
    label_smoothing: float
    l2: Any
    batch_size: int | None

    def __call__(
        self, model: Any, batch: Images, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        del key  # dropout has its own
        logits = labelled_logits(model, batch, self.batch_size)
        # A product with one-hot rows: the gradient of a gather is a scatter, slow on the CPU.
        targets = jax.nn.one_hot(batch.labels, logits.shape[1], dtype=logits.dtype)
        targets = optax.smooth_labels(targets, self.label_smoothing)
        value = optax.softmax_cross_entropy(logits, targets).mean()
        l2 = self.l2 + model.l2 if isinstance(model, Regularized) else self.l2
        if not (isinstance(l2, float | int) and l2 == 0):
            value = value + l2 * nn.square_norm(model)
        return value, {"accuracy": _share(logits, batch.labels, operator.eq)}


class _ErrorRate(eqx.Module):
    batch_size: int | None

    def __call__(
        self, model: Any, batch: Images, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        del key
        logits = labelled_logits(model, batch, self.batch_size)
        return _share(logits, batch.labels, operator.ne), {}


def _share(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"], comparison: Callable[..., Array]
) -> Scalar:
    """Of which share of the images the largest logit's class compares with their own."""
    found = comparison(jax.lax.argmax(logits, 1, labels.dtype), labels)
    return found.astype(logits.dtype).mean()


def labelled_logits(model: Any, batch: Images, batch_size: int | None) -> Float[Array, "n classes"]:
    """The logits of a batch, if they are enough for its classes."""
    logits = blocked_logits(model, batch.images, batch_size)
    if len(batch.names) > logits.shape[1]:
        raise ValueError(
            f"model must have a logit for each of the {len(batch.names)} classes of the images; "
            f"it has {logits.shape[1]}"
        )
    return logits


def blocked_logits(
    model: Any, images: Float[Array, "n height width channels"], batch_size: int | None
) -> Float[Array, "n classes"]:
    """A model's logits, of so many images at a time."""
    num = images.shape[0]
    if batch_size is None or batch_size >= num:
        return _called(model, images)
    starts = np.arange(0, num, batch_size)
    overlap = batch_size - (num - int(starts[-1]))  # the last block ends with the images

    def block(start: Array) -> Array:
        return _called(model, jax.lax.dynamic_slice_in_dim(images, start, batch_size))

    logits = jax.lax.map(block, jnp.asarray(np.minimum(starts, num - batch_size), jnp.int32))
    full = logits[:-1].reshape(-1, logits.shape[-1])
    return jnp.concatenate([full, logits[-1, overlap:]])


def _called(model: Any, images: Array) -> Array:
    logits = model(images)
    if logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        raise ValueError(
            f"model must make a row of logits of each image, ({images.shape[0]}, classes); "
            f"got {logits.shape} for images {images.shape}"
        )
    return logits


def check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 or None; got {batch_size}")
