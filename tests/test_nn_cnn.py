"""Oracles: Flax's own convolution and pooling, scipy's correlation, Keras's parameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from physml import fit, nn
from physml.nn import Dense, Dropout, Filters, Pool


def images(*shape):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape))


def draw(key, shape, dtype):
    """An initialiser that has nothing to compile."""
    return jnp.asarray(np.prod(shape[:-1]) ** -0.5 * images(*shape), dtype)


def cnn(in_shape=(8, 8, 1), layers=nn.ARCHITECTURES["digits"], out_features=10, **options):
    options = {"kernel_init": draw, "bias_init": draw} | options
    return nn.CNN(in_shape, layers, out_features, rngs=nnx.Rngs(0), **options)


def test_correlation_is_scipys():
    x, kernel = images(7, 6, 2), images(3, 3, 2, 4)
    found = jax.jit(nn.correlate)(x, kernel)
    for f in range(4):
        maps = [correlate2d(x[..., c], kernel[..., c, f], mode="valid") for c in range(2)]
        np.testing.assert_allclose(found[..., f], sum(maps), atol=1e-13)


def assert_same(ours, layer, flaxs, flaxs_layer, x):
    """Both give the same values, and the same gradients in the images and in the weights."""

    @functools.partial(jax.jit, static_argnums=0)
    def found(function, layer, x):
        def value(layer, x):
            y = function(layer, x)
            return jnp.sum(jnp.sin(y)), y

        grad = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
        (_, y), (weights, inputs) = grad(layer, x)
        return y, inputs, weights.kernel[...], weights.bias[...]

    both = found(ours, layer, x), found(flaxs, flaxs_layer, x)
    for one, other, atol in zip(*both, (1e-13, 1e-13, 1e-12, 1e-12), strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    # The last is Winograd's; with 9 x 8 pixels its tiles reach over the edge for VALID and SAME.
    [(3, 1, 1), (3, 3, 1), (3, 3, 2), (3, 4, 1), (3, 2, 3), (17, 3, 1)],
)
def test_conv_is_flaxs_in_value_and_gradient(channels, size, stride, padding):
    drawn = {"padding": padding, "kernel_init": draw, "bias_init": draw, "rngs": nnx.Rngs(0)}
    ours = nn.Conv(channels, 5, size, stride=stride, **drawn)
    flaxs = nnx.Conv(channels, 5, (size, size), strides=stride, param_dtype=float, **drawn)
    flaxs.kernel[...], flaxs.bias[...] = ours.kernel[...], ours.bias[...]
    x = images(2, 9, 8, channels)

    assert_same(lambda layer, x: layer(x), ours, lambda layer, x: layer(x), flaxs, x)


def test_winograds_algorithm_in_float32():
    # On the smallest image, and no worse than a few roundings of the 288 terms of each sum.
    for shape in ((2, 3, 3, 32), (3, 14, 14, 32)):
        x, kernel = images(*shape), images(3, 3, 32, 8)
        size = shape[1] - 2
        exact = jax.jit(lambda x, k, n=size: nn._conv._by_patches(x, k, 1, n, n))(x, kernel)
        found = jax.jit(nn.correlate)(*(array.astype(jnp.float32) for array in (x, kernel)))
        assert np.abs(np.asarray(found, float) - exact).max() < 3e-6 * np.abs(exact).max()


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "size"),
    [(3, 5, 3, 2), pytest.param(2, 16, 4, 3, marks=pytest.mark.slow), (17, 5, 3, 2)],
)
def test_the_largest_of_blocks_is_flaxs_in_value_and_gradient(
    channels, filters, kernel, size, padding
):
    ours = nn.Conv(channels, filters, kernel, padding=padding, bias_init=draw, rngs=nnx.Rngs(0))
    x = images(2, 9, 8, channels)

    def flaxs(layer, x):
        y = jax.lax.conv_general_dilated(
            x, layer.kernel[...], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return nnx.max_pool(y + layer.bias[...][None, None, None], (size, size), (size, size))

    assert_same(lambda layer, x: layer(x, max_pool=size), ours, flaxs, ours, x)
    strided = nn.Conv(channels, 5, kernel, stride=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="max_pool must be 1 for a stride of 2, got 3"):
        strided(x, max_pool=3)


def test_a_value_that_is_none_is_not_lost_in_pooling():
    # Where some of a block's pixels are NaN, so is the block, also beside a gradient.
    x = images(1, 6, 6, 1).at[0, 3, 3, 0].set(jnp.nan)
    kernel = images(1, 1, 1, 1)
    value, _ = jax.jit(jax.value_and_grad(lambda k: jnp.sum(nn.correlate_max(x, k, 2))))(kernel)
    assert jnp.isnan(value)


@pytest.mark.parametrize("activation", ["gelu", "sin", "tanh"])
def test_the_activation_comes_before_the_pooling(activation):
    net = cnn(layers=[Filters(4), Pool(), Filters(3, 2), Pool(2, "mean")], activation=activation)
    x, h = images(5, 8, 8, 1), images(5, 8, 8, 1)
    for block, kind in zip(net.blocks, ["max", "mean"], strict=False):
        h = nn.pool(nn.ACTIVATIONS[activation](block.layer.affine(h)), 2, kind)
    np.testing.assert_allclose(jax.jit(net.features)(x), h.reshape(5, -1), atol=1e-13)


def test_conv_starts_as_flaxs():
    ours = nn.Conv(3, 8, 3, rngs=nnx.Rngs(4))
    flaxs = nnx.Conv(3, 8, (3, 3), param_dtype=ours.kernel.dtype, rngs=nnx.Rngs(4))
    np.testing.assert_array_equal(ours.kernel[...], flaxs.kernel[...])
    np.testing.assert_array_equal(ours.bias[...], flaxs.bias[...])
    wide = nn.Conv(10, 400, 3, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.var(wide.kernel[...]), 1 / 90, rtol=0.03)


def test_a_sum_of_products_is_computed_once():
    """A CPU's compiler would compute it anew for each of the sixteen gradients that use it."""
    layer, x = nn.Conv(16, 4, 3, rngs=nnx.Rngs(0)), images(2, 10, 10, 16)
    gradient = jax.jit(jax.grad(lambda layer, x: jnp.sum(layer(x, max_pool=2)), argnums=(0, 1)))
    program = gradient.lower(layer, x).compile().as_text()
    calls = [line for line in program.splitlines() if " fusion(" in line]
    many = [line for line in calls if line.split(" fusion(")[1].split(")")[0].count("%") >= 9]
    # Four tiles, and the gradients in the images and in the filters.
    assert len(many) <= 6, many


CONV = nn.Conv(2, 5, 3, rngs=nnx.Rngs(0))


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, k: nn.correlate(x, k, stride=0), "stride must be at least 1, got 0"),
        (lambda x, k: nn.correlate(x, k, padding="FULL"), "padding must be one of .*, got 'FULL'"),
        (
            lambda x, k: nn.correlate(x[0, ..., 0], k),
            r"x must have .*channels\), got shape \(4, 4\)",
        ),
        (
            lambda x, k: nn.correlate(x[..., :1], k),
            r"kernel must have .*1, filters\), got shape \(3, 3, 2, 5",
        ),
        (lambda x, k: nn.correlate(x[:, :2], k), r"at least \(3, 3\) pixels, got \(2, 4\)"),
        (lambda x, k: nn.correlate_max(x, k, 3), r"at least \(5, 5\) pixels, got \(4, 4\)"),
        (lambda x, k: nn.correlate_max(x, k, 0), "size must be at least 1, got 0"),
        (lambda x, k: nn.pool(x, 0), "size must be at least 1, got 0"),
        (lambda x, k: nn.pool(x, 5), r"at least 5 x 5 pixels, one block, got \(1, 4, 4, 2\)"),
        (lambda x, k: nn.pool(x, 2, "MAX"), "kind must be one of .'max', 'mean'., got 'MAX'"),
        (lambda x, k: CONV(x, max_pool=0), "max_pool must be at least 1, got 0"),
    ],
)
def test_layers_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)))


def test_a_convolution_is_native_on_accelerators_and_a_matrix_product_on_the_cpu():
    net, x = cnn(dtype="float32"), jnp.zeros((2, 8, 8, 1), jnp.float32)

    def train(nets, x):  # in a loop and for many nets, where XLA's convolution is slow on a CPU
        def loss(nets):
            return jnp.sum(jax.vmap(lambda net: net(x))(nets) ** 2)

        return jax.lax.fori_loop(0, 3, lambda _, nets: jax.grad(loss)(nets), nets)

    nets = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), net)
    traced = jax.jit(train).trace(nets, x)
    for platform, native in (("cpu", False), ("cuda", True), ("tpu", True)):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.convolution" in program) == native, platform


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_the_native_convolution_gives_the_same(stride, padding):
    # What other backends run, run here.
    x, kernel = images(2, 3, 9, 8, 2), images(4, 4, 2, 3)
    options = {"stride": stride, "padding": padding}
    native = jax.jit(lambda x, kernel: nn._conv._natively(x, kernel, **options))(x, kernel)
    ours = jax.jit(lambda x, kernel: nn.correlate(x, kernel, **options))(x, kernel)
    assert ours.shape == native.shape
    np.testing.assert_allclose(ours, native, atol=1e-13)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pooling_is_flaxs_in_value_and_gradient(kind, size):
    x = images(2, 7, 6, 3)
    flaxs = nnx.max_pool if kind == "max" else nnx.avg_pool

    def value_and_grad(pooled):
        def value(x):
            return jnp.sum(jnp.sin(y := pooled(x))), y

        return jax.jit(jax.value_and_grad(value, has_aux=True))(x)

    (_, y), grad = value_and_grad(lambda x: nn.pool(x, size, kind))
    with jax.numpy_dtype_promotion("standard"):  # Flax divides by an integer
        (_, flaxs_y), flaxs_grad = value_and_grad(lambda x: flaxs(x, (size, size), (size, size)))
    np.testing.assert_allclose(y, flaxs_y, atol=1e-15)
    np.testing.assert_allclose(grad, flaxs_grad, atol=1e-15)


def test_equal_pixels_share_the_gradient():
    grad = jax.grad(lambda x: nn.pool(x, 2)[0, 0, 0])(jnp.zeros((2, 2, 1)))
    np.testing.assert_array_equal(grad, 0.25)


@pytest.mark.parametrize(
    ("name", "shape", "total"),
    [
        # Keras prints the same for these networks.
        ("digits", (8, 8, 1), 5_160),
        ("cifar-tutorial", (32, 32, 3), 122_570),
        ("mnist", (28, 28, 1), 431_242),
        ("dense", (8, 8, 1), 3_760),
        ("mnist-strong", (28, 28, 1), 198_122),
    ],
)
def test_known_networks_have_their_parameters(name, shape, total):
    net = nnx.eval_shape(lambda: cnn(shape, nn.ARCHITECTURES[name]))
    assert sum(row.parameters for row in net.rows) == total
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param))) == total
    out = jax.eval_shape(lambda: cnn(shape, nn.ARCHITECTURES[name])(jnp.zeros((4, *shape))))
    assert out.shape == (4, 10) and out.dtype == jnp.float64


def test_the_summary_is_a_table():
    assert cnn((32, 32, 3), nn.ARCHITECTURES["cifar-tutorial"]).summary().splitlines() == [
        "layer              output shape  parameters",
        "convolution 3 x 3  30 x 30 x 32         896",
        "max pooling 2 x 2  15 x 15 x 32           0",
        "convolution 3 x 3  13 x 13 x 64      18,496",
        "max pooling 2 x 2  6 x 6 x 64             0",
        "convolution 3 x 3  4 x 4 x 64        36,928",
        "flatten            1024                   0",
        "dense              64                65,600",
        "readout            10                   650",
        "total                               122,570",
    ]
    layers = [Filters(4, stride=2, padding="SAME"), Pool(4, "mean"), Dropout(0.5)]
    names = ["convolution 3 x 3, stride 2", "mean pooling 4 x 4", "dropout 0.5"]
    assert [row.layer for row in cnn(layers=layers).rows] == [*names, "flatten", "readout"]


@settings(deadline=None, max_examples=8)
@given(
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["VALID", "SAME"]),
    pooling=st.integers(1, 2),
    batch=st.lists(st.integers(1, 3), max_size=2),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_rows_say_the_shapes_there_are(size, kernel, stride, padding, pooling, batch, dtype):
    layers = [Filters(3, kernel, stride, padding), Pool(pooling), Dropout(0.1), Dense(5)]

    if min(-(-(n - (kernel - 1) * (padding == "VALID")) // stride) for n in size) < pooling:
        with pytest.raises(ValueError, match=r"layers\[1\], Pool.*the image .* is too small"):
            cnn((*size, 2), layers, 4)
        return
    rows = []

    def outputs(x):
        net = cnn((*size, 2), layers, 4, dtype=dtype)
        rows.extend(net.rows)
        found = [net.blocks[0].layer(x)]
        for block in net.blocks:
            x = block(x)
            found.append(x)
        return [*found, net.readout(x)]

    found = jax.eval_shape(outputs, jax.ShapeDtypeStruct((*batch, *size, 2), dtype))
    assert [row.shape for row in rows] == [y.shape[len(batch) :] for y in found]
    assert {y.shape[: len(batch)] for y in found} == {tuple(batch)}
    assert {y.dtype for y in found} == {jnp.dtype(dtype)}


def test_a_network_is_its_formula():
    net = cnn()
    x = images(5, 8, 8, 1)

    def relu(y):
        return np.maximum(y, 0)

    conv, dense = net.blocks[0].layer.affine, net.blocks[2].affine
    h = np.zeros((5, 6, 6, 10))
    for u, v in np.ndindex(3, 3):
        h += np.asarray(x)[:, u : u + 6, v : v + 6] * np.asarray(conv.kernel[...])[u, v]
    h = relu(h + np.asarray(conv.bias[...]))
    maps = h.reshape(5, 3, 2, 3, 2, 10).max(axis=(2, 4))
    h = maps.reshape(5, 90)
    h = relu(h @ np.asarray(dense.kernel[...]) + np.asarray(dense.bias[...]))
    features, (seen,), outputs = jax.jit(
        lambda net, x: (net.features(x), net.feature_maps(x), net(x))
    )(net, x)
    np.testing.assert_allclose(seen, maps, atol=1e-12)
    np.testing.assert_array_equal(net.kernels[0], conv.kernel[...])
    np.testing.assert_allclose(features, h, atol=1e-12)
    readout = net.readout
    expected = h @ np.asarray(readout.kernel[...]) + np.asarray(readout.bias[...])
    np.testing.assert_allclose(outputs, expected, atol=1e-12)


def test_batch_norm_learns_the_statistics_and_uses_them_afterwards():
    net = cnn(layers=[Filters(4, batch_norm=True), Dense(5, batch_norm=True)])
    x = 3 + images(50, 8, 8, 1)
    norm = net.blocks[0].norm
    inner = np.asarray(net.blocks[0].affine(x))
    y = np.asarray(net.blocks[0](x))
    standard = (inner - inner.mean((0, 1, 2))) / np.sqrt(inner.var((0, 1, 2)) + norm.epsilon)
    np.testing.assert_allclose(y, np.maximum(standard, 0), atol=1e-12)
    np.testing.assert_allclose(norm.mean[...], 0.1 * inner.mean((0, 1, 2)), rtol=1e-12)
    net.eval()
    one, many = net(x[:1]), net(x)
    np.testing.assert_allclose(one, many[:1], atol=1e-12)


def loss(net, batch, key):
    x, labels = batch
    logits = net(x)
    crossed = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return crossed, {"accuracy": jnp.mean(logits.argmax(axis=-1).astype(labels.dtype) == labels)}


@pytest.mark.slow
def test_a_network_with_everything_is_fitted():
    # Bars across or down, at random places.
    rng = np.random.default_rng(0)
    labels, places = rng.integers(0, 2, 200), rng.integers(0, 8, 200)
    x = 0.1 * rng.normal(size=(200, 8, 8, 1))
    for image, label, place in zip(x, labels, places, strict=True):
        image[place if label else slice(None), slice(None) if label else place] += 1
    net = cnn(layers=[Filters(8, batch_norm=True), Pool(6), Dropout(0.1)], out_features=2)
    x, labels = jnp.asarray(x), jnp.asarray(labels, jnp.int32)
    train, valid = (x[:150], labels[:150]), (x[150:], labels[150:])
    options = {"epochs": 30, "batch_size": 30, "key": jax.random.key(0), "valid": valid}
    found = fit.gradient(loss, net, train, optimizer=optax.adam(0.03), **options)
    found.model.eval()
    assert loss(found.model, valid, None)[1]["accuracy"] > 0.95


def test_ensembles_are_one_vmap():
    x = images(4, 8, 8, 1)
    build = jax.vmap(lambda key: nn.CNN((8, 8, 1), [Filters(3), Pool()], 2, rngs=nnx.Rngs(key)))
    nets = jax.jit(build)(jax.random.split(jax.random.key(0), 3))
    outputs = jax.jit(jax.vmap(lambda net: net(x)))(nets)
    second = jax.tree.map(lambda leaf: leaf[1], nets)
    np.testing.assert_allclose(outputs[1], second(x), atol=1e-13)
    assert len(np.unique(outputs[:, 0, 0])) == 3


def test_the_norms_are_of_kernels_alone():
    net = cnn()
    layers = [net.blocks[0].layer.affine, net.blocks[2].affine, net.readout]
    kernels = [np.asarray(layer.kernel[...]) for layer in layers]
    expected = sum(np.abs(kernel).sum() for kernel in kernels)
    np.testing.assert_allclose(jax.jit(nn.absolute_norm)(net), expected, rtol=1e-12)
    value, grad = jax.jit(jax.value_and_grad(nn.square_norm))(net)
    np.testing.assert_allclose(value, sum((kernel**2).sum() for kernel in kernels), rtol=1e-12)
    np.testing.assert_allclose(grad.readout.kernel[...], 2 * net.readout.kernel[...], rtol=1e-15)
    np.testing.assert_array_equal(grad.readout.bias[...], 0)


def test_networks_differentiate_twice():
    net, x = cnn(layers=[Filters(2), Pool(6, "mean")], activation="tanh"), images(1, 8, 8, 1)

    def value(s):
        return jnp.sum(net(s * x) ** 2)

    step = 1e-4
    first, second = jax.jit(lambda s: (jax.grad(value)(s), jax.jacfwd(jax.grad(value))(s)))(1.0)
    grad = jax.jit(jax.grad(value))
    np.testing.assert_allclose(second, (grad(1 + step) - grad(1 - step)) / (2 * step), rtol=1e-6)
    assert np.isfinite(first)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: {"in_shape": (0, 8, 1)}, "height must be at least 1, got 0"),
        (lambda: {"out_features": 0}, "out_features must be at least 1, got 0"),
        (lambda: {"activation": "tan"}, "activation must be one of"),
        (lambda: {"dtype": "int32"}, "dtype must be a floating dtype"),
    ],
)
def test_cnn_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        cnn(**change())


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [Filters(0)], "count must be at least 1, got 0"),
        (lambda: [Filters(3, 9)], r"layers\[0\], .*too small"),
        (lambda: [Filters(3), Pool(7)], r"layers\[1\], Pool.*too small"),
        (
            lambda: [Filters(3, 3, 1, "FULL")],
            "padding must be one of .'VALID', 'SAME'., got 'FULL'",
        ),
        (lambda: [Pool(kind="median")], "kind must be one of .*, got 'median'"),
        (lambda: [Dense(3), Filters(3)], r"layers\[1\], Filters.*must follow an image"),
        (lambda: [Dropout(1.0)], "rate must be at least 0 and less than 1, got 1.0"),
    ],
)
def test_cnn_refuses_layers(layers, message):
    with pytest.raises(ValueError, match=message):
        cnn(layers=layers())


@pytest.mark.usefixtures("as_a_user")
def test_cnn_refuses_other_images():
    net = cnn((32, 32, 3), [])
    message = r"shape \(\.\.\., 32, 32, 3\), channels last, got \(5, 3, "
    with pytest.raises(ValueError, match=message):
        net(jnp.zeros((5, 3, 32, 32)))
    with pytest.raises(TypeError, match=r"images must be floats, as Images\.scaled .*got uint8"):
        net(jnp.zeros((5, 32, 32, 3), jnp.uint8))


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: 3,
            r"layers\[0\] must be an nn\.Filters, .* or an nn\.Dropout, got 3",
        ),
        (
            lambda: Filters(3, (3, 3)),
            r"kernel must be an integer, got \(3, 3\)",
        ),
        (lambda: Pool((2, 2)), r"size must be an integer, got \(2, 2\)"),
        (lambda: Dense(3.5), r"units must be an integer, got 3\.5"),
    ],
)
def test_cnn_refuses_what_is_no_layer(layer, message):
    with pytest.raises(TypeError, match=message):
        cnn(layers=[layer()])
