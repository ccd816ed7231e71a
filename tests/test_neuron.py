"""Oracles: the numbers that the lecture notes print, numpy, Flax's layers, jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import refusals

from physml import neuron

X = np.array([0.5, 0.3, 0.1])
W = np.array([0.4, 0.2, 0.6])
B = 0.1
TARGET = 0.4


def test_gradient_step_gives_the_printed_numbers():
    w, b = neuron.gradient_step(W, B, X, TARGET)
    assert str(np.asarray(w)) == "[0.39513082 0.19707849 0.59902616]"
    assert float(b) == 0.09026164910025532


def test_gradient_by_hand_is_that_of_jax():
    b, target = jnp.asarray(B), jnp.asarray(TARGET)
    by_hand = neuron.squared_error_gradient(W, b, X, target)
    gradient = jax.grad(neuron.squared_error, argnums=(0, 1))
    by_jax = gradient(jnp.asarray(W), b, jnp.asarray(X), target)
    for ours, theirs in zip(by_hand, by_jax, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-15)


def test_gradient_step_moves_by_the_learning_rate():
    dw, db = neuron.squared_error_gradient(W, B, X, TARGET)
    w, b = neuron.gradient_step(W, B, X, TARGET, learning_rate=3.0)
    np.testing.assert_allclose(w, W - 3 * np.asarray(dw), rtol=1e-15)
    np.testing.assert_allclose(b, B - 3 * np.asarray(db), rtol=1e-15)
    before, after = (neuron.squared_error(*p, X, TARGET) for p in ((W, B), (w, b)))
    assert after < before


def test_neuron_is_a_linear_layer_of_one_output():
    layer = nnx.Linear(3, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    w, b = np.asarray(layer.kernel[:, 0]), 0.7
    layer.bias[...] = jnp.asarray([b])
    expected = np.asarray(layer(jnp.asarray(x)))[..., 0]
    np.testing.assert_allclose(neuron.neuron(x, w, b), 1 / (1 + np.exp(-expected)), rtol=1e-14)
    relu = neuron.neuron(x, w, b, activation=neuron.relu)
    np.testing.assert_allclose(relu, np.maximum(expected, 0), rtol=1e-14)
    np.testing.assert_allclose(neuron.neuron(X, W, B), 1 / (1 + np.exp(-0.42)), rtol=1e-15)


def test_sigmoid_and_its_derivative():
    x = np.linspace(-30, 30, 61)
    np.testing.assert_allclose(neuron.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-14)
    np.testing.assert_allclose(neuron.sigmoid_derivative(x), 0.25 / np.cosh(x / 2) ** 2, rtol=1e-13)
    by_jax = jax.vmap(jax.grad(neuron.sigmoid))(jnp.asarray(x))
    # JAX takes 1 - sigmoid, which for large x has lost its digits.
    np.testing.assert_allclose(neuron.sigmoid_derivative(x), by_jax, atol=1e-15)
    extremes = np.array([-800.0, 0.0, 800.0])
    np.testing.assert_array_equal(neuron.sigmoid(extremes), [0, 0.5, 1])
    np.testing.assert_array_equal(neuron.sigmoid_derivative(extremes), [0, 0.25, 0])


def test_relu_and_its_slope():
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(neuron.relu(x), [0, 0, 3])
    np.testing.assert_array_equal(jax.vmap(jax.grad(neuron.relu))(x), [0, 0, 1])


def test_dtype_follows_the_data():
    w, b = neuron.gradient_step(W.astype(np.float32), B, X.astype(np.float32), TARGET)
    assert w.dtype == b.dtype == jnp.float32
    rate = np.float64(1)
    w, _ = neuron.gradient_step(W.astype(np.float32), B, X.astype(np.float32), TARGET, rate)
    assert w.dtype == jnp.float32
    assert neuron.relu(np.array([-1, 2])).dtype == jnp.float64


@pytest.mark.usefixtures("as_a_user")
@refusals(
    ({"w": W[:2]}, r"x must have shape \(2,\), got shape \(3,\): w has inputs = 2"),
    ({"w": W[None]}, r"w must have shape \(inputs,\), got shape \(1, 3\)"),
    ({"w": W[:0]}, r"w must have shape \(inputs,\), not empty"),
    ({"b": W}, r"b must be a number, got shape \(3,\)"),
    ({"x": X[None]}, r"x must have shape \(3,\), got shape \(1, 3\): w has inputs = 3"),
    ({"target": X}, r"target must be a number, got shape \(3,\)"),
    ({"learning_rate": X}, r"learning_rate must be a number, got dtype .*\(3,\)", TypeError),
    ({"learning_rate": -1.0}, "learning_rate must be positive"),
)
def test_gradient_step_refuses(change):
    neuron.gradient_step(**({"w": W, "b": B, "x": X, "target": TARGET} | change))


@pytest.mark.usefixtures("as_a_user")
def test_neuron_refuses_what_is_no_number():
    with pytest.raises(TypeError, match="w must hold real numbers, got"):
        neuron.neuron(X, ["a", "b", "c"], B)
