"""Random Fourier features against their formula and their kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from physml import nn


def test_features_are_cosines_and_sines_of_frozen_frequencies():
    layer = nn.FourierFeatures(2, 5, scale=3.0, rngs=nnx.Rngs(0))
    x = jnp.array([[0.3, -0.7]])
    angles = np.asarray(x) @ np.asarray(layer.frequencies[...])
    np.testing.assert_allclose(layer(x), np.c_[np.cos(angles), np.sin(angles)], rtol=1e-12)
    assert not jax.tree.leaves(nnx.state(layer, nnx.Param))
    again = nn.FourierFeatures(2, 5, scale=3.0, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.frequencies[...], again.frequencies[...])


def test_inner_products_are_a_gaussian_kernel():
    """Bochner: the mean of cos(w d) over w ~ N(0, s^2) is exp(-s^2 d^2 / 2)."""
    num = 20_000
    layer = nn.FourierFeatures(1, num, scale=1.5, rngs=nnx.Rngs(0))
    features = np.asarray(layer(jnp.array([[0.0], [0.8]])))
    np.testing.assert_allclose(features[0] @ features[1] / num, np.exp(-0.72), atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frequencies": 0}, "num_frequencies must be at least 1"),
        ({"scale": -1.0}, "scale must be positive"),
        ({"dtype": jnp.int32}, "dtype must be a floating dtype"),
    ],
)
def test_bad_input(options, message):
    options = {"in_features": 1, "num_frequencies": 3, "rngs": nnx.Rngs(0)} | options
    with pytest.raises((TypeError, ValueError), match=message):
        nn.FourierFeatures(**options)
