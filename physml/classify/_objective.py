"""What a classifier is trained on and judged by: losses of an `Images` batch."""

import operator
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, PRNGKeyArray, Scalar

from physml import nn
from physml._numerics.calls import answer, ask, checked
from physml._numerics.checks import require_count, require_not_negative, require_share
from physml._types import Loss
from physml.data import Images

Pixels = Float[Array, "n height width channels"]

Classifier = Callable[[Array], Array]
"""Images (n, height, width, channels) to logits (n, classes): a network, or a pytree with one."""


@checked
def cross_entropy(
    *, label_smoothing: float = 0.0, l2: float | Scalar = 0.0, batch_size: int | None = None
) -> Loss:
    r"""The mean cross-entropy of a classifier's logits z, as a loss on `Images`.

    $$L = -\frac1n \sum_i \sum_c q_{ic} \log \operatorname{softmax}(z_i)_c
          + \lambda \lVert W \rVert^2, \qquad q_{ic} = (1 - s)\, [c = y_i] + s / C$$

    with label smoothing s (Szegedy et al., arXiv 1512.00567, section 7), C classes and
    `nn.square_norm` of the network. The accuracy is recorded beside it.

    An `nn.Regularised` model adds its penalties and disturbs the images by its noise, so that in a
    sweep every model can have its own strengths.

    Args:
        label_smoothing: s, at least 0 and less than 1.
        l2: lambda, a number or a traced scalar; added to that of an `nn.Regularised` model.
        batch_size: the images that go through the network at a time, so that memory does not grow
            with a validation set; all at once if None. Only for evaluation mode: in training,
            batch normalisation would take its statistics from each block alone.

    Raises:
        ValueError: a setting out of range; when called, a model that does not make one row of
            logits of each image, or more classes than logits.
    """
    require_share(label_smoothing=label_smoothing)
    require_not_negative(l2=l2)
    check_batch_size(batch_size)
    return _CrossEntropy(label_smoothing, l2, batch_size)


@checked
def error_rate(*, batch_size: int | None = 100) -> Loss:
    """The share of images whose largest logit is not that of their class, as a loss on `Images`.

    It has no gradient. With it as `valid_loss`, a fit returns the model with the best validation
    accuracy, the first of several that are equally good.

    Args:
        batch_size: as for `cross_entropy`.

    Raises:
        ValueError: as `cross_entropy`.
    """
    check_batch_size(batch_size)
    return _ErrorRate(batch_size)


class _CrossEntropy(eqx.Module):
    label_smoothing: float
    l2: float | Scalar
    batch_size: int | None

    def __call__(
        self, model: Classifier, batch: Images, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        held = model if isinstance(model, nn.Regularised) else nn.Regularised(model)
        images = held.disturbed(batch.images, key)  # dropout has a key of its own
        logits = labelled_logits(model, images, len(batch.names), self.batch_size)
        # A product with one-hot rows: the gradient of a gather is a scatter, slow on the CPU.
        targets = jax.nn.one_hot(batch.labels, logits.shape[1], dtype=logits.dtype)
        targets = optax.smooth_labels(targets, self.label_smoothing)
        value = optax.softmax_cross_entropy(logits, targets).mean()
        value = value + held.penalty() + nn.Regularised(held.network, self.l2).penalty()
        return value, {"accuracy": _share(logits, batch.labels, operator.eq)}


class _ErrorRate(eqx.Module):
    batch_size: int | None

    def __call__(
        self, model: Classifier, batch: Images, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Array]]:
        del key
        logits = labelled_logits(model, batch.images, len(batch.names), self.batch_size)
        return _share(logits, batch.labels, operator.ne), {}


def _share(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"], comparison: Callable[..., Array]
) -> Scalar:
    """The share of images for which the class of the largest logit compares with the label."""
    found = comparison(jax.lax.argmax(logits, 1, labels.dtype), labels)
    return found.astype(logits.dtype).mean()


def labelled_logits(
    model: Classifier, images: Pixels, num_classes: int, batch_size: int | None
) -> Float[Array, "n classes"]:
    """The logits of images, checked to be enough for their classes."""
    logits = blocked_logits(model, images, batch_size)
    if num_classes > logits.shape[1]:
        raise ValueError(
            f"model must have a logit for each of the {num_classes} classes of the images, "
            f"got {logits.shape[1]}"
        )
    return logits


def blocked_logits(
    model: Classifier, images: Pixels, batch_size: int | None
) -> Float[Array, "n classes"]:
    """A model's logits, computed for `batch_size` images at a time."""
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


def _called(model: Classifier, images: Array) -> Array:
    logits = answer("model", "logits", ask("model", "model(images)", model, images))
    if logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        raise ValueError(
            f"model must make a row of logits of each image, ({images.shape[0]}, classes), "
            f"got {logits.shape} for images {images.shape}"
        )
    return logits


def check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None:
        require_count(batch_size=batch_size)
