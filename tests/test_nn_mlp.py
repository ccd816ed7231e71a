"""Oracles: the formulas in numpy, Flax's own layers, linear algebra on the frozen features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import central_difference
from hypothesis import given, settings
from hypothesis import strategies as st

from physml import nn


def dense(layer):
    return np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])


def names(state):
    return [".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]


NUMPY_ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "sin": np.sin,
    "identity": lambda x: x,
}


def test_dropout_keeps_the_mean_and_ends_with_training():
    net = nn.MLP(3, (4000,), 1, dropout=0.25, rngs=nnx.Rngs(0))
    plain = nn.MLP(3, (4000,), 1, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=3))
    whole = np.asarray(plain.features(x))
    dropped = np.asarray(net.features(x))
    assert abs(np.mean(dropped == 0) - 0.25) < 0.03
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75)
    assert np.any(np.asarray(net.features(x)) != dropped), "each call draws anew"
    net.eval()
    np.testing.assert_array_equal(net(x), plain(x))
    with pytest.raises(ValueError, match=r"dropout must be .*got 1\.0"):
        nn.MLP(3, (4,), 1, dropout=1.0, rngs=nnx.Rngs(0))


def test_every_activation_has_an_oracle():
    assert set(NUMPY_ACTIVATIONS) == set(nn.ACTIVATIONS)


@pytest.mark.parametrize("activation", nn.ACTIVATIONS)
def test_mlp_is_its_formula(activation):
    options = {"activation": activation, "bias_init": nnx.initializers.normal(1.0)}
    net = nn.MLP(3, (5, 4), 2, **options, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(7, 3))
    h, act = x, NUMPY_ACTIVATIONS[activation]
    for layer in net.hidden:
        w, b = dense(layer)
        h = act(h @ w + b)
    w, b = dense(net.readout)
    np.testing.assert_allclose(net.features(jnp.asarray(x)), h, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net(jnp.asarray(x)), h @ w + b, rtol=1e-12, atol=1e-13)


def test_mlp_takes_any_function_as_activation():
    net = nn.MLP(2, (3,), 1, activation=jnp.cos, rngs=nnx.Rngs(0))
    x = jnp.ones(2)
    w, b = dense(net.hidden[0])
    np.testing.assert_allclose(net.features(x), np.cos(np.ones(2) @ w + b), rtol=1e-14)


def test_mlp_without_hidden_layers_is_affine():
    net = nn.MLP(3, (), 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 3))
    np.testing.assert_array_equal(net.features(x), x)
    np.testing.assert_allclose(net(x), x @ dense(net.readout)[0], rtol=1e-14)


@settings(deadline=None, max_examples=10)
@given(
    hidden=st.lists(st.integers(1, 6), max_size=3),
    batch=st.lists(st.integers(1, 3), max_size=2),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_mlp_shapes_and_dtypes(hidden, batch, dtype):
    def build_and_call(x):  # traced without being compiled
        net = nn.MLP(3, hidden, 2, dtype=dtype, rngs=nnx.Rngs(0))
        return net(x), jax.tree.leaves(net)

    out, leaves = jax.eval_shape(build_and_call, jax.ShapeDtypeStruct((*batch, 3), dtype))
    assert out.shape == (*batch, 2)
    assert len(leaves) == 2 * (len(hidden) + 1)
    assert {leaf.dtype for leaf in (out, *leaves)} == {jnp.dtype(dtype)}


def test_mlp_weights_have_the_default_float_dtype():
    assert nn.MLP(3, (4,), 2, rngs=nnx.Rngs(0)).readout.kernel.dtype == jnp.float64


def test_mlp_initialisers():
    ones, zeros = nnx.initializers.ones_init(), nnx.initializers.zeros_init()
    net = nn.MLP(3, (4,), 2, kernel_init=ones, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(net.readout.kernel[...], 1)
    net = nn.MLP(3, (4,), 2, kernel_init=ones, readout_init=zeros, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(net.hidden[0].kernel[...], 1)
    np.testing.assert_array_equal(net(jnp.ones(3)), 0)
    wide = nn.MLP(100, (400,), 1, rngs=nnx.Rngs(0)).hidden[0]
    np.testing.assert_allclose(dense(wide)[0].var(), 1 / 100, rtol=0.03)


def test_mlp_is_a_pytree_that_jax_takes():
    x = jnp.ones((4, 3))

    def loss(net):
        return (net(x) ** 2).mean()

    build = jax.vmap(lambda key: nn.MLP(3, (4,), 2, rngs=nnx.Rngs(key)))
    ensemble = jax.jit(build)(jax.random.split(jax.random.key(0), 6))
    losses = jax.jit(jax.vmap(loss))(ensemble)
    assert losses.shape == np.unique(losses).shape == (6,)
    net = nn.MLP(3, (4,), 2, rngs=nnx.Rngs(0))
    slope = jax.grad(loss)(net).readout.kernel[0, 0]
    expected = central_difference(loss, net, net.readout.kernel, (0, 0))
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


NORMAL = jax.random.normal(jax.random.key(7), (500, 3))
DATA = jnp.array([[3.0, -1.0, 20.0]]) + jnp.array([[5.0, 0.1, 8.0]]) * NORMAL


def test_frozen_units_bend_at_data_rows():
    net = nn.MLP.frozen(DATA, 40, 2, rngs=nnx.Rngs(0))
    w, b = dense(net.hidden[0])
    rows = np.asarray(DATA)
    # Unit j vanishes at its centre, which is one of the rows; each unit draws its own.
    arguments = rows @ w + b
    np.testing.assert_allclose(np.abs(arguments).min(axis=0), 0, atol=1e-12)
    assert len(np.unique(np.abs(arguments).argmin(axis=0))) > 30
    np.testing.assert_allclose(net.features(DATA), np.tanh(arguments), atol=1e-12)


def test_frozen_units_may_share_the_mean_as_centre():
    net = nn.MLP.frozen(DATA, 40, 2, centres="mean", rngs=nnx.Rngs(0))
    np.testing.assert_allclose(net.features(DATA.mean(axis=0)), 0, atol=1e-14)


@pytest.mark.parametrize("width", [4, 5])
def test_fourier_features_are_sines_and_versines(width):
    x = jnp.linspace(-4.0, 4.0, 3 * width).reshape(3, width)
    half = width // 2
    expected = np.c_[np.sin(x[:, :half]), 1 - np.cos(x[:, half:])]
    np.testing.assert_allclose(nn.fourier(x), expected, atol=1e-15)
    # No digit of a small 1 - cos x = x^2 / 2 is lost.
    np.testing.assert_allclose(nn.fourier(jnp.full(2, 1e-9))[1], 5e-19, rtol=1e-14)


@pytest.mark.parametrize("scale", [0.25, 1.5])
def test_frozen_weights_are_in_units_of_the_data(scale):
    net = nn.MLP.frozen(DATA, 4000, 1, scale=scale, rngs=nnx.Rngs(0))
    weights = dense(net.hidden[0])[0] * np.asarray(DATA).std(axis=0)[:, None]
    np.testing.assert_allclose(weights.std(axis=1), scale, rtol=0.04)
    np.testing.assert_allclose(weights.mean(axis=1), 0, atol=0.06 * scale)


def test_frozen_weights_may_have_a_scale_for_each_component():
    scales = jnp.array([0.5, 1e-3, 2.0])
    net = nn.MLP.frozen(DATA, 4000, 1, scale=scales, rngs=nnx.Rngs(0))
    weights = dense(net.hidden[0])[0] * np.asarray(DATA).std(axis=0)[:, None]
    np.testing.assert_allclose(weights.std(axis=1), scales, rtol=0.04)
    for wrong in (jnp.ones(2), jnp.ones((3, 1)), jnp.array([1.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match=r"^scale must"):
            nn.MLP.frozen(DATA, 8, 1, scale=wrong, rngs=nnx.Rngs(0))


def test_frozen_scale_is_a_quarter_unless_given():
    given_scale = nn.MLP.frozen(DATA, 8, 2, scale=0.25, rngs=nnx.Rngs(3))
    default = nn.MLP.frozen(DATA, 8, 2, rngs=nnx.Rngs(3))
    np.testing.assert_array_equal(dense(default.hidden[0])[0], dense(given_scale.hidden[0])[0])


def test_frozen_network_trains_its_readout_only():
    net = nn.MLP.frozen(DATA, 8, 2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(net(DATA), 0)
    assert names(nnx.state(net, nnx.Param)) == ["readout.bias", "readout.kernel"]
    assert names(nnx.state(net, nn.Frozen)) == ["hidden.0.bias", "hidden.0.kernel"]
    assert not issubclass(nn.Frozen, nnx.Param)


def test_frozen_network_takes_the_dtype_of_the_data():
    net = nn.MLP.frozen(DATA.astype(jnp.float32), 8, 2, activation="sin", rngs=nnx.Rngs(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(net))
    w, b = dense(net.hidden[0])
    x = DATA[:4].astype(jnp.float32)
    np.testing.assert_allclose(net.features(x), np.sin(np.asarray(x) @ w + b), atol=1e-5)


def test_frozen_features_fit_a_smooth_function():
    x = jax.random.uniform(jax.random.key(0), (400, 1), minval=-1.0, maxval=1.0)
    features = nn.MLP.frozen(x, 40, 1, scale=1.0, rngs=nnx.Rngs(0)).features(x)
    fitted, *_ = np.linalg.lstsq(features, jnp.sin(3 * x), rcond=1e-15)
    np.testing.assert_allclose(features @ fitted, jnp.sin(3 * x), atol=1e-8)


def test_ensembles_of_frozen_networks():
    build = jax.vmap(lambda key: nn.MLP.frozen(DATA, 8, 2, rngs=nnx.Rngs(key)))
    ensemble = jax.jit(build)(jax.random.split(jax.random.key(0), 3))
    kernels = ensemble.hidden[0].kernel[...]
    assert kernels.shape == (3, 3, 8) and len(np.unique(kernels[:, 0, 0])) == 3


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, got 0"),
        ({"hidden": (4, 0)}, r"hidden\[1\] must be at least 1, got 0"),
        ({"out_features": -1}, "out_features must be at least 1, got -1"),
        ({"activation": "tan"}, "activation must be one of .'tanh', .*, got 'tan'"),
        ({"dtype": "int32"}, "dtype must be a floating dtype such as jnp.float64, got 'int32'"),
    ],
)
def test_mlp_refuses(change, message):
    arguments = {"in_features": 3, "hidden": (4,), "out_features": 2} | change
    with pytest.raises(ValueError, match=message):
        nn.MLP(**arguments, rngs=nnx.Rngs(0))


def test_mlp_refuses_float64_while_x64_is_off():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="float32 while x64 is off, got float64"):
            nn.MLP(1, (2,), 1, dtype=jnp.float64, rngs=nnx.Rngs(0))
        assert nn.MLP(3, (4,), 2, rngs=nnx.Rngs(0)).readout.kernel.dtype == jnp.float32


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("data", "scale", "message"),
    [
        (jnp.ones((0, 3)), 0.25, "not empty"),
        (jnp.full((5, 3), jnp.inf), 0.25, "data must be finite"),
        (jnp.ones((5, 3)), 0.25, "data must vary in every component"),
        (DATA, 0.0, "scale must be positive and finite, got 0.0"),
        (DATA[0], 0.25, r"data must have shape \(rows, dim\)"),
    ],
)
def test_frozen_refuses(data, scale, message):
    with pytest.raises(ValueError, match=message):
        nn.MLP.frozen(data, 8, 1, scale=scale, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("kind", "units", "matrices"),
    [(nn.MLP, (4, 5), [(3, 4), (4, 5)]), (nn.RNN, 4, [(3, 4), (4, 4)])],
)
def test_hidden_kernels_are_all_matrices_but_the_readouts(kind, units, matrices):
    cell = ("simple",) if kind is nn.RNN else ()
    params = nnx.state(kind(*cell, 3, units, 2, rngs=nnx.Rngs(0)), nnx.Param)
    chosen = zip(*map(jax.tree.leaves, (params, nn.hidden_kernels(params))), strict=True)
    assert sorted(param.shape for param, keep in chosen if keep) == matrices
