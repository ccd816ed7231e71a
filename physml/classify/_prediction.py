"""Logits and probabilities of images by a trained classifier, averaged over views."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, require_count
from physml._numerics.devices import WHOLE, mesh_of_rows, on_each, placed
from physml.classify._objective import Classifier, Pixels, blocked_logits, check_batch_size
from physml.data import Images
from physml.fit import Augment
from physml.nn import set_evaluation


@checked
def logits(
    model: Classifier, images: Images | Pixels, *, batch_size: int | None = 100
) -> Float[Array, "n classes"]:
    """The logits of images, by the model in evaluation mode.

    Dropout is off and batch normalisation uses its running statistics; the model is not changed.
    Images that are divided among devices are classified where they lie.

    Args:
        model: an `nnx.Module`, or a pytree that holds one, called with images.
        images: scaled to floats as for the fit, a record or the array alone.
        batch_size: the images that go through the network at a time, all if None. The feature maps
            of a hundred images stay in a CPU's cache; more images at once are slower there.

    Raises:
        TypeError: images that are not floats.
        ValueError: images without four axes, empty, or not of the shape that the model is for; a
            `batch_size` below one.
    """
    check_batch_size(batch_size)
    return _where_they_lie(_logits, model, _floats(images), batch_size)


@checked
def probabilities(
    model: Classifier,
    images: Images | Pixels,
    *,
    batch_size: int | None = 100,
    views: int = 1,
    augment: Augment | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "n classes"]:
    """The probability of each class, by the model in evaluation mode.

    With several views it is the mean over the images as they are and `views` - 1 augmented copies
    of them (test-time averaging); the model should be trained on images augmented like that.

    >>> network = nn.CNN((4, 4, 1), [nn.Dense(5)], 3, rngs=nnx.Rngs(0))
    >>> options = {"views": 9, "augment": classify.Augmentation(shift=1), "key": key}
    >>> classify.probabilities(network, jnp.zeros((2, 4, 4, 1)), **options).shape
    (2, 3)

    Args:
        model, images, batch_size: as for `logits`.
        views: how many views of each image are averaged.
        augment: makes a view of `images`, a record or the array alone; such as an `Augmentation`.
        key: for the views.

    Raises:
        TypeError: as `logits`.
        ValueError: as `logits`; `augment` or `key` is missing for several views, or given for one.
    """
    return _averaged(_probabilities, model, images, batch_size, views, augment, key)


@checked
def member_probabilities(
    models: Classifier,
    images: Images | Pixels,
    *,
    batch_size: int | None = 100,
    views: int = 1,
    augment: Augment | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "models n classes"]:
    """The probabilities by each of many models; their mean over the models is the ensemble's.

    >>> build = nnx.vmap(lambda key: nn.CNN((4, 4, 1), [nn.Dense(5)], 3, rngs=nnx.Rngs(key)))
    >>> models = build(jax.random.split(key, 2))
    >>> members = classify.member_probabilities(models, jnp.zeros((6, 4, 4, 1)))
    >>> members.shape, members.mean(axis=0).shape
    ((2, 6, 3), (6, 3))

    Args:
        models: a model whose arrays have a leading axis of models, such as `fit.Sweep.models`.
        images, batch_size, views, augment, key: as for `probabilities`; all models see the same
            views.

    Raises:
        TypeError, ValueError: as `probabilities`.
    """
    return _averaged(_member_probabilities, models, images, batch_size, views, augment, key)


def _averaged(
    predict: "_Predict",
    model: Classifier,
    images: Images | Pixels,
    batch_size: int | None,
    views: int,
    augment: Augment | None,
    key: PRNGKeyArray | None,
) -> Array:
    require_count(views=views)
    if (augment is None, key is None) != (views == 1, views == 1):
        raise ValueError(f"augment and key must be given if views is more than 1, got {views}")
    check_batch_size(batch_size)
    total = _where_they_lie(predict, model, _floats(images), batch_size)
    if augment is None or key is None:
        return total
    for view_key in jax.random.split(key, views - 1):
        view = _floats(augment(images, view_key))
        total = total + _where_they_lie(predict, model, view, batch_size)
    return total / views


_Predict = Callable[[Classifier, Array, int | None], Array]


def _where_they_lie(
    predict: _Predict, model: Classifier, images: Array, batch_size: int | None
) -> Array:
    """A prediction by each device for the images that it has, where they are divided."""
    mesh = mesh_of_rows(images)
    if mesh is None:
        return predict(model, images, batch_size)
    arrays, static = eqx.partition(model, eqx.is_array)
    return _divided(predict, placed(arrays, mesh, WHOLE), static, images, batch_size, mesh)


@eqx.filter_jit
def _divided(
    predict: _Predict,
    arrays: Classifier,
    static: Classifier,
    images: Array,
    batch_size: int | None,
    mesh: Mesh,
) -> Array:
    def rows(images: Array, arrays: Classifier) -> Array:  # before an axis of models, if any
        return jnp.moveaxis(predict(eqx.combine(arrays, static), images, batch_size), -2, 0)

    return jnp.moveaxis(on_each(rows, images, arrays, mesh), 0, -2)


@eqx.filter_jit
def _logits(model: Classifier, images: Pixels, batch_size: int | None) -> Array:
    # Inside jit the model is a copy.
    set_evaluation(model)
    return blocked_logits(model, images, batch_size)


@eqx.filter_jit
def _probabilities(model: Classifier, images: Pixels, batch_size: int | None) -> Array:
    return jax.nn.softmax(_logits(model, images, batch_size))


@eqx.filter_jit
def _member_probabilities(models: Classifier, images: Pixels, batch_size: int | None) -> Array:
    arrays, static = eqx.partition(models, eqx.is_array)
    # One model after another: together, hundreds of models need hundreds of times the memory.
    return jax.lax.map(
        lambda member: _probabilities(eqx.combine(member, static), images, batch_size), arrays
    )


def pixels_of(images: Images | Array) -> Array:
    """The array of a record of images, or the array that was given.

    Raises:
        ValueError: it does not have four axes, or is empty.
    """
    pixels = images.images if isinstance(images, Images) else images
    if not isinstance(pixels, jax.Array | np.ndarray):
        raise TypeError(f"images must be Images or an array, got {type(images).__name__}")
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise ValueError(
            f"images must have shape (n, height, width, channels), not empty, got {pixels.shape}"
        )
    return pixels


def _floats(images: Images | Pixels) -> Pixels:
    pixels = pixels_of(images)
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise TypeError(f"images must be floats, as Images.scaled makes them, got {pixels.dtype}")
    return floating_array("images", pixels)
