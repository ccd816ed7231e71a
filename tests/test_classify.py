"""Oracles: optax's losses, sklearn's metrics, networks called image by image."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn import metrics

from physml import classify, fit, nn
from physml.data import Images
from physml.nn import Dense, Dropout, Filters, Pool

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LABELS = np.arange(23) % 4
IMAGES = Images.from_arrays(RNG.normal(size=(23, 6, 6, 1)), LABELS)
LAYERS = (Filters(3, batch_norm=True), Pool(), Dropout(0.5), Dense(5))


def network(seed=0, layers=LAYERS):
    rng = np.random.default_rng(seed)

    def draw(key, shape, dtype):  # an initialiser that has nothing to compile
        return jnp.asarray(rng.normal(size=shape) / 4, dtype)

    return nn.CNN((6, 6, 1), layers, 4, kernel_init=draw, bias_init=draw, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def net():
    net = network()
    norm = net.blocks[0].norm
    norm.mean[...], norm.var[...] = jnp.array([0.1, -0.2, 0.3]), jnp.array([0.5, 1.0, 2.0])
    return net


@pytest.fixture(scope="module")
def stacked():
    nets = [network(seed, (Dense(5),)) for seed in range(3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)


def linear(images):
    """A model without variables: some pixels of an image."""
    return images.reshape(images.shape[0], -1)[:, :4]


def probable(*shape):
    values = np.random.default_rng(shape).exponential(size=shape)
    return values / values.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_optaxs(smoothing):
    value, aux = classify.cross_entropy(label_smoothing=smoothing)(linear, IMAGES, None)
    logits = np.asarray(linear(IMAGES.images))
    targets = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    expected = optax.softmax_cross_entropy(logits, jnp.asarray(targets)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    expected = metrics.accuracy_score(LABELS, logits.argmax(axis=1))
    np.testing.assert_allclose(aux["accuracy"], expected)


@pytest.mark.parametrize("batch_size", [5, 23, 50])
def test_losses_do_not_depend_on_the_block(batch_size):
    for loss in (classify.cross_entropy, classify.error_rate):
        value, _ = loss(batch_size=batch_size)(linear, IMAGES, None)
        np.testing.assert_allclose(value, loss(batch_size=None)(linear, IMAGES, None)[0])
    expected = 1 - metrics.accuracy_score(LABELS, linear(IMAGES.images).argmax(axis=1))
    np.testing.assert_allclose(value, expected)


def test_predictions_are_those_of_the_network_in_evaluation_mode(net):
    graph, state = nnx.split(net)
    before = jax.tree.leaves(state)
    logits = classify.logits(net, IMAGES, batch_size=5)
    probabilities = classify.probabilities(net, IMAGES.images, batch_size=7)
    for a, b in zip(before, jax.tree.leaves(nnx.split(net)[1]), strict=True):
        assert a is b or (a == b).all()
    assert not net.blocks[2].deterministic  # as it was
    evaluating = nnx.merge(graph, state, copy=True)
    evaluating.eval()
    expected = jnp.stack([evaluating(image) for image in IMAGES.images[:3]])
    np.testing.assert_allclose(logits[:3], expected, rtol=1e-12)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-12)


def test_members_are_the_models_alone(stacked):
    members = classify.member_probabilities(stacked, IMAGES, batch_size=10)
    assert members.shape == (3, 23, 4)
    for i in range(3):
        alone = jax.tree.map(lambda x, i=i: x[i], stacked)
        expected = classify.probabilities(alone, IMAGES, batch_size=10)
        np.testing.assert_allclose(members[i], expected, rtol=1e-12)
    accuracies = classify.accuracy(members, LABELS)
    np.testing.assert_allclose(accuracies[1], classify.accuracy(members[1], LABELS))


class Regularized(eqx.Module):
    net: nn.CNN
    l2: jax.Array

    def __call__(self, images):
        return self.net(images)


def regularized_loss(model, batch, key):
    return classify.cross_entropy(l2=model.l2)(model, batch, key)


def test_a_sweep_has_a_strength_for_each_model():
    strengths = jnp.array([0.0, 0.1])
    swept = fit.sweep(
        regularized_loss,
        lambda setting: Regularized(network(layers=(Dense(5),)), setting),
        IMAGES,
        settings=strengths,
        optimizer=lambda setting: optax.sgd(0.1),
        steps=2,
        batch_size=10,
        key=KEY,
        valid=IMAGES,
        valid_loss=classify.error_rate(batch_size=10),
    )
    start = network(layers=(Dense(5),))
    assert swept.history["loss"].shape == (2, 2)
    np.testing.assert_allclose(
        np.diff(swept.history["loss"][0]), 0.1 * nn.square_norm(start), rtol=1e-9
    )
    errors = 1 - classify.accuracy(classify.member_probabilities(swept.models, IMAGES), LABELS)
    np.testing.assert_allclose(errors, swept.history["valid_loss"].min(axis=0))


def test_confusions_are_sklearns():
    probabilities = probable(50, 4)
    labels = RNG.integers(3, size=50)  # none of the last class
    expected = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(4))
    np.testing.assert_array_equal(
        classify.confusion_matrix(probabilities, labels), expected, strict=True
    )
    np.testing.assert_allclose(
        classify.accuracy(probabilities, labels), np.trace(expected) / expected.sum()
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: classify.cross_entropy(label_smoothing=1.0), ValueError, "label_smoothing"),
        (lambda: classify.cross_entropy(l2=-1.0), ValueError, "l2 must not be negative"),
        (lambda: classify.error_rate(batch_size=0), ValueError, "batch_size"),
        (
            lambda: classify.error_rate()(lambda x: linear(x)[:, :3], IMAGES, None),
            ValueError,
            "the 4 classes of the images; it has 3",
        ),
        (
            lambda: classify.cross_entropy()(lambda x: x, IMAGES, None),
            ValueError,
            r"\(23, classes\); got \(23, 6, 6, 1\)",
        ),
        (lambda: classify.logits(linear, IMAGES.images[0]), ValueError, r"got \(6, 6, 1\)"),
        (lambda: classify.logits(linear, IMAGES.images[:0]), ValueError, "not empty"),
        (
            lambda: classify.logits(linear, np.zeros((2, 6, 6, 1), np.uint8)),
            TypeError,
            "Images.scaled",
        ),
        (lambda: classify.logits(linear, IMAGES, batch_size=0), ValueError, "batch_size"),
        (lambda: classify.probabilities(linear, IMAGES, views=0), ValueError, "views"),
        (lambda: classify.probabilities(linear, IMAGES, views=2), ValueError, "augment and key"),
        (lambda: classify.probabilities(linear, IMAGES, key=KEY), ValueError, "more than 1"),
        (lambda: classify.accuracy(probable(5, 4), [0, 1]), ValueError, r"shape \(5,\)"),
        (lambda: classify.accuracy(np.zeros((0, 4)), []), ValueError, "not empty"),
        (lambda: classify.accuracy(probable(2, 4), [0.0, 1.0]), TypeError, "integers"),
        (lambda: classify.accuracy(probable(2, 4), [0, 4]), ValueError, "got 4 at index 1"),
        (lambda: classify.accuracy(probable(2, 4) * np.nan, [0, 1]), ValueError, "finite"),
        (lambda: classify.confusion_matrix(probable(3, 2, 4), [0, 1]), ValueError, "one model"),
    ],
)
def test_bad_input_is_refused(as_a_user, call, error, message):
    with pytest.raises(error, match=message):
        call()
