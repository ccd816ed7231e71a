"""Oracles: the cells' formulas in numpy, Flax's own recurrent modules, linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import central_difference

from physml import nn

CELLS = ["simple", "gru", "lstm"]
FLAX = {"simple": nnx.SimpleCell, "gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell}
NORMAL = jax.random.normal(jax.random.key(7), (300, 2))
DATA = jnp.array([[3.0, -1.0]]) + jnp.array([[5.0, 0.1]]) * NORMAL


def sigma(x):
    return 1 / (1 + np.exp(-x))


def simple_step(parameters, h, x):
    w, b, u = parameters
    h = np.tanh(x @ w + b + h @ u)
    return h, h


def gru_step(parameters, h, x):
    w, b, u = parameters
    wr, wz, wn = np.split(x @ w + b, 3, axis=-1)
    ur, uz, un = np.split(h @ u, 3, axis=-1)
    r, z = sigma(wr + ur), sigma(wz + uz)
    h = (1 - z) * np.tanh(wn + r * un) + z * h
    return h, h


def lstm_step(parameters, carry, x):
    w, b, u = parameters
    c, h = carry
    i, f, g, o = np.split(x @ w + b + h @ u, 4, axis=-1)
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    h = sigma(o) * np.tanh(c)
    return (c, h), h


STEPS = {"simple": simple_step, "gru": gru_step, "lstm": lstm_step}


def parameters(cell):
    bias = cell.dense_i.bias if cell.dense_i.use_bias else cell.dense_h.bias
    return tuple(np.asarray(v[...]) for v in (cell.dense_i.kernel, bias, cell.dense_h.kernel))


def randomise_biases(net):
    for cell in net.cells:
        linear = cell.dense_i if cell.dense_i.use_bias else cell.dense_h
        linear.bias[...] = jax.random.normal(jax.random.key(5), linear.bias.shape)
    return net


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("build", ["trained", "frozen"])
def test_scan_is_the_formula(kind, build):
    if build == "trained":
        net = randomise_biases(nn.RNN(kind, 2, 4, 3, rngs=nnx.Rngs(0)))
    else:
        net = nn.RNN.frozen(kind, DATA, 4, 3, rngs=nnx.Rngs(0))
    xs = np.asarray(DATA[:30]).reshape(3, 10, 2)
    zeros = np.zeros((3, 4))
    carry, expected = (zeros, zeros) if kind == "lstm" else zeros, []
    for k in range(10):
        carry, h = STEPS[kind](parameters(net.cells[0]), carry, xs[:, k])
        expected.append(h)
    last, features = net.scan(net.initial_carry((3,)), jnp.asarray(xs))
    np.testing.assert_allclose(features, np.stack(expected, axis=1), rtol=1e-11, atol=1e-13)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), last, (carry,))


@pytest.mark.parametrize("kind", CELLS)
def test_scan_equals_flax(kind):
    net = nn.RNN(kind, 2, 4, 3, dtype=jnp.float64, rngs=nnx.Rngs(0))
    cell = FLAX[kind](2, 4, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    xs = jnp.asarray(DATA[:12]).reshape(2, 6, 2)
    expected = nnx.RNN(cell)(xs)
    _, features = net.scan(net.initial_carry((2,)), xs)
    np.testing.assert_allclose(features, expected, rtol=1e-14)


@pytest.mark.parametrize("kind", CELLS)
def test_stacked_layers_feed_each_other(kind):
    net = nn.RNN(kind, 2, (4, 4), 3, rngs=nnx.Rngs(0))
    carry, _ = net.advance(net.initial_carry(), DATA[0])
    following, features = net.advance(carry, DATA[1])
    lower, h = net.cells[0](carry[0], DATA[1])
    upper, top = net.cells[1](carry[1], h)
    jax.tree.map(np.testing.assert_array_equal, following, (lower, upper))
    np.testing.assert_array_equal(features, top)
    assert features.shape == (4,)


@pytest.mark.parametrize("kind", CELLS)
def test_advance_call_and_scan_agree(kind):
    net = nn.RNN(kind, 2, (4,), 3, rngs=nnx.Rngs(0))
    xs = DATA[:5]
    last, features = net.scan(net.initial_carry(), xs)
    carry = net.initial_carry()
    for k in range(5):
        advanced, h = net.advance(carry, xs[k])
        carry, out = net(carry, xs[k])
        jax.tree.map(np.testing.assert_array_equal, carry, advanced)
        np.testing.assert_allclose(h, features[k], rtol=1e-14)
        np.testing.assert_allclose(out, net.readout(features[k]), rtol=1e-14)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), carry, last)


def test_initial_carry_is_zero_of_the_batch_shape():
    net = nn.RNN("lstm", 2, (4, 4), 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    carry = net.initial_carry((5, 6))
    assert [[m.shape for m in layer] for layer in carry] == [[(5, 6, 4)] * 2, [(5, 6, 4)] * 2]
    assert all(m.dtype == jnp.float32 and not m.any() for m in jax.tree.leaves(carry))
    assert net.initial_carry(dtype=jnp.float64)[0][0].dtype == jnp.float64


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(kind, dtype):
    def build_and_call(x):  # traced without being compiled
        net = nn.RNN(kind, 2, 4, 3, dtype=dtype, rngs=nnx.Rngs(0))
        return net, net(net.initial_carry(), x)

    leaves = jax.tree.leaves(jax.eval_shape(build_and_call, jnp.ones(2, dtype)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}


def test_back_propagation_through_time():
    net = nn.RNN("gru", 2, 4, 3, rngs=nnx.Rngs(0))
    xs = DATA[:8]

    def loss(net):
        _, features = net.scan(net.initial_carry(), xs)
        return (net.readout(features) ** 2).sum()

    slope = jax.jit(jax.grad(loss))(net).cells[0].dense_h.kernel[1, 2]
    expected = central_difference(loss, net, net.cells[0].dense_h.kernel, (1, 2))
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", CELLS)
def test_initializers_draw_what_they_are_named_for(kind):
    constants = {"kernel_init": 1.0, "bias_init": 2.0, "recurrent_init": 3.0, "readout_init": 4.0}
    draws = {name: nnx.initializers.constant(value) for name, value in constants.items()}
    net = nn.RNN(kind, 2, (4, 4), 3, rngs=nnx.Rngs(0), **draws)
    for cell in net.cells:
        for found, value in zip(parameters(cell), (1.0, 2.0, 3.0), strict=True):
            np.testing.assert_array_equal(found, value)
    np.testing.assert_array_equal(net.readout.kernel[...], 4.0)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_keep_bias_is_the_share_of_the_memory_that_is_kept(kind):
    """Without input and recurrence a memory fades by sigma(keep_bias) a step."""
    still = dict.fromkeys(("kernel_init", "recurrent_init"), nnx.initializers.zeros_init())
    net = nn.RNN(kind, 2, (4, 4), 3, keep_bias=-2.0, **still, rngs=nnx.Rngs(0))
    ones = jax.tree.map(jnp.ones_like, net.initial_carry())
    carry, _ = net.advance(ones, DATA[0])
    kept = [layer[0] if kind == "lstm" else layer for layer in carry]
    np.testing.assert_allclose(kept, sigma(-2.0), rtol=1e-14)


@pytest.mark.parametrize("kind", CELLS)
def test_frozen_recurrent_matrices_have_the_spectral_radius(kind):
    net = nn.RNN.frozen(kind, DATA, 4, 3, spectral_radius=0.8, rngs=nnx.Rngs(0))
    u = np.asarray(net.cells[0].dense_h.kernel[...])
    for block in np.split(u, u.shape[1] // 4, axis=1):
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(block)), 0.8, rtol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(block, 2), 0.8, rtol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_frozen_units_bend_at_data_rows(kind):
    w, b, _ = parameters(nn.RNN.frozen(kind, DATA, 4, 3, rngs=nnx.Rngs(0)).cells[0])
    np.testing.assert_allclose(np.abs(np.asarray(DATA) @ w + b).min(axis=0), 0, atol=1e-12)
    doubled = nn.RNN.frozen(kind, DATA, 4, 3, scale=0.5, rngs=nnx.Rngs(0))  # 0.25 unless given
    np.testing.assert_allclose(parameters(doubled.cells[0])[0], 2 * w, rtol=1e-14)


def test_frozen_weights_are_in_units_of_the_data():
    net = nn.RNN.frozen("simple", DATA, 100, 3, scale=0.5, rngs=nnx.Rngs(0))
    weights = parameters(net.cells[0])[0] * np.asarray(DATA).std(axis=0)[:, None]
    np.testing.assert_allclose(weights.std(axis=1), 0.5, rtol=0.2)


def test_frozen_simple_cell_takes_an_activation():
    options = {"centres": "mean", "activation": nn.fourier}
    net = nn.RNN.frozen("simple", DATA, 6, 2, **options, rngs=nnx.Rngs(0))
    (cell,) = net.cells
    h, x = jnp.linspace(-1.0, 1.0, 6), DATA[0]
    _, features = net.advance((h,), x)
    u = x @ cell.dense_i.kernel[...] + cell.dense_i.bias[...] + h @ cell.dense_h.kernel[...]
    np.testing.assert_allclose(features, np.r_[np.sin(u[:3]), 1 - np.cos(u[3:])], atol=1e-14)
    _, at_mean = net.advance((jnp.zeros(6),), DATA.mean(axis=0))
    np.testing.assert_allclose(at_mean, 0, atol=1e-13)


def test_frozen_simple_cell_without_memory_is_the_frozen_mlp():
    net = nn.RNN.frozen("simple", DATA, 4, 3, spectral_radius=0.0, rngs=nnx.Rngs(0))
    w, b, _ = parameters(net.cells[0])
    carry = (jnp.full((300, 4), 0.7),)
    _, features = net.advance(carry, DATA)
    np.testing.assert_allclose(features, np.tanh(np.asarray(DATA) @ w + b), rtol=1e-10, atol=1e-13)


def test_frozen_simple_cell_forgets_its_first_carry():
    net = nn.RNN.frozen("simple", DATA, 4, 3, spectral_radius=0.5, rngs=nnx.Rngs(0))
    (first,), _ = net.scan((jnp.full(4, 0.9),), DATA[:20])
    (second,), _ = net.scan((jnp.full(4, -0.9),), DATA[:20])
    assert jnp.linalg.norm(first - second) <= 0.5**20 * 1.8 * 4**0.5


@pytest.mark.parametrize("kind", CELLS)
def test_frozen_network_trains_its_readout_only(kind):
    net = nn.RNN.frozen(kind, DATA, 4, 3, rngs=nnx.Rngs(0))
    trained = [path for path, _ in nnx.to_flat_state(nnx.state(net, nnx.Param))]
    assert trained == [("readout", "bias"), ("readout", "kernel")]
    assert len(jax.tree.leaves(nnx.state(net, nn.Frozen))) == 3
    _, out = net(net.initial_carry(), DATA[0])
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("kind", CELLS)
def test_frozen_network_takes_the_dtype_of_the_data(kind):
    def build(key):  # traced without being compiled
        return nn.RNN.frozen(kind, DATA.astype(jnp.float32), 4, 3, rngs=nnx.Rngs(key))

    leaves = jax.tree.leaves(jax.eval_shape(build, jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "elman"}, "cell must be one of .'simple', 'gru', 'lstm'., got 'elman'"),
        ({"hidden": ()}, "hidden must have at least one layer"),
        ({"hidden": (4, 0)}, r"hidden\[1\] must be at least 1, got 0"),
        ({"in_features": 0}, "in_features must be at least 1"),
        ({"out_features": 0}, "out_features must be at least 1"),
        ({"dtype": "int32"}, "dtype must be a floating dtype"),
        ({"cell": "simple", "keep_bias": 1.0}, "keep_bias must be 0 for a 'simple' cell, got 1.0"),
    ],
)
def test_rnn_refuses(change, message):
    arguments = {"cell": "gru", "in_features": 3, "hidden": 4, "out_features": 2} | change
    with pytest.raises(ValueError, match=message):
        nn.RNN(**arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spectral_radius": -1.0}, "spectral_radius must not be negative, got -1"),
        ({"scale": -1.0}, "scale must be positive"),
    ],
)
def test_frozen_rnn_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        nn.RNN.frozen("gru", DATA, 4, 1, **change, rngs=nnx.Rngs(0))
