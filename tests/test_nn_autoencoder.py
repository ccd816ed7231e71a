"""Autoencoders as networks: shapes, what they are made of, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import refusals

from physml import nn

ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)))
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8, 12, 2)))


def dense(**options):
    return nn.Autoencoder.dense(6, (10, 4), 3, rngs=nnx.Rngs(0), **options)


def convolutional():
    return nn.Autoencoder.convolutional((8, 12, 2), (3, 4), 5, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "x"),
    [(dense, ROWS), (lambda: dense(linear_layers=2), ROWS), (convolutional, IMAGES)],
)
def test_encode_and_decode_make_the_whole(make, x):
    network = make()
    z = network.encode(x)
    assert z.shape == (5, network.latent)
    np.testing.assert_allclose(network(x), network.decode(z))
    np.testing.assert_allclose(network(x), network.readout(network.features(x)))
    assert network(x).shape == x.shape
    variational = nn.Variational(network, rngs=nnx.Rngs(1))
    mean, log_variance = variational.distribution(x)
    np.testing.assert_array_equal(mean, z)
    assert log_variance.shape == z.shape and variational(x).shape == x.shape


def test_the_decoder_mirrors_the_encoder():
    network = dense()
    sizes = [
        [layer.out_features for layer in part.hidden] for part in (network.encoder, network.decoder)
    ]
    assert sizes == [[10, 4], [4, 10]]


def test_matrices_between_multiply_the_latent_numbers():
    network = dense(linear_layers=2)
    first, second = (layer.kernel[...] for layer in network.linear)
    expected = network.encoder(ROWS) @ first @ second
    np.testing.assert_allclose(network.encode(ROWS), expected)


def test_pixels_are_doubled_between_layers():
    decoder = nn.ImageDecoder(2, (4, 4, 1), (3,), activation="identity", rngs=nnx.Rngs(0))
    kernel = jnp.zeros((3, 3, 3, 3)).at[1, 1].set(jnp.eye(3))  # leaves the maps as they are
    decoder.layers[0].kernel[...] = kernel
    maps = decoder.features(ROWS[:, :2])
    small = decoder.dense(ROWS[:, :2]).reshape(5, 2, 2, 3)
    np.testing.assert_allclose(maps, small.repeat(2, axis=1).repeat(2, axis=2))


def test_float32_weights():
    network = dense(dtype=jnp.float32)
    assert network.encode(ROWS.astype(jnp.float32)).dtype == jnp.float32


@refusals(
    (lambda: nn.ImageDecoder(2, (6, 8, 1), (3, 3), rngs=nnx.Rngs(0)), "height must be a multiple"),
    (lambda: nn.ImageDecoder(2, (8, 8, 1), (), rngs=nnx.Rngs(0)), "filters must have a layer"),
    (lambda: nn.Autoencoder(nn.MLP(2, (), 1, rngs=nnx.Rngs(0)), nn.MLP(1, (), 2, rngs=nnx.Rngs(0)),
                            linear_layers=1), "rngs must be given"),
    (lambda: nn.Autoencoder(3, 4), "encoder must be a network with", TypeError),
    (lambda: nn.Variational(nn.MLP(2, (), 1, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
     "network must be an nn.Autoencoder", TypeError),
)  # fmt: skip
def test_bad_input_is_refused(case):
    case()
