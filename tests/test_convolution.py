"""Oracles: the numbers that the lectures print, scipy, numpy's polynomials, Flax's layers."""

import cmath
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal
from flax import nnx
from helpers import refusals

from physml import convolution as conv
from physml import neuron

RNG = np.random.default_rng(0)
IMAGE = np.arange(1, 17).reshape(4, 4)
SIGNAL = RNG.normal(size=11)
PICTURE = RNG.normal(size=(9, 7))
METHODS = ("direct", "toeplitz", "fft")


def normal(key, shape, dtype):
    """Draws a layer's kernel without compiling a program for every shape."""
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)


OPTIONS = {"kernel_init": normal, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}


def test_the_printed_convolution_is_a_cross_correlation():
    printed = "[[8. 8. 8.]\n [8. 8. 8.]\n [8. 8. 8.]]"
    assert str(np.asarray(conv.cross_correlate(IMAGE, conv.EDGE_BELOW))) == printed
    np.testing.assert_array_equal(conv.convolve(IMAGE, conv.EDGE_BELOW), np.full((3, 3), -8))


def test_the_printed_max_pool():
    assert str(np.asarray(conv.max_pool(IMAGE))) == "[[ 6.  8.]\n [14. 16.]]"


@pytest.mark.parametrize(("x", "window"), [(SIGNAL, (4,)), (PICTURE, (3, 2))], ids=["1-D", "2-D"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "full"])
def test_both_operations_against_scipy(x, window, stride, padding):
    kernel = np.random.default_rng(1).normal(size=window)
    p = 0 if padding == "valid" else [k - 1 for k in window]
    every = (slice(None, None, stride),) * x.ndim
    for ours, scipys in (
        (conv.convolve, scipy.signal.convolve),
        (conv.cross_correlate, scipy.signal.correlate),
    ):
        expected = scipys(x, kernel, padding, method="direct")[every]
        np.testing.assert_allclose(ours(x, kernel, stride, p), expected, rtol=1e-13, atol=1e-14)


def test_full_convolution_commutes_and_cross_correlation_does_not():
    def full(operation, x, kernel):
        return np.asarray(operation(x, kernel, padding=[k - 1 for k in kernel.shape]))

    kernel = np.random.default_rng(1).normal(size=(3, 2))
    product = full(conv.convolve, PICTURE, kernel)
    np.testing.assert_allclose(product, full(conv.convolve, kernel, PICTURE), atol=1e-14)
    there = full(conv.cross_correlate, PICTURE, kernel)
    back = full(conv.cross_correlate, kernel, PICTURE)
    np.testing.assert_allclose(there, back[::-1, ::-1], atol=1e-14)
    assert np.abs(there - back).max() > 1


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [((3,), 2, 1), ((3, 3), 1, 1), ((3, 2), (2, 3), (0, 2)), ((5, 3), 2, 0)],
)
def test_cross_correlation_is_the_convolutional_layer(window, stride, padding):
    x = SIGNAL if len(window) == 1 else PICTURE
    pads = [(p, p) for p in np.broadcast_to(padding, x.ndim)]
    layer = nnx.Conv(1, 1, window, stride, padding=pads, **OPTIONS)
    kernel = layer.kernel[..., 0, 0]
    ours = conv.cross_correlate(x, kernel, stride, padding)
    assert ours.shape == conv.output_shape(x.shape, window, stride, padding)
    np.testing.assert_allclose(ours, layer(jnp.asarray(x)[..., None])[..., 0], atol=1e-14)


def test_the_lectures_volumes_layer_by_layer():
    image = jnp.asarray(np.random.default_rng(2).normal(size=(32, 32, 3)))
    layer = nnx.Conv(3, 12, (3, 3), **OPTIONS)
    scores = nnx.Linear(16 * 16 * 12, 10, **OPTIONS)

    filtered = functools.partial(conv.cross_correlate, image, padding=(1, 1, 0))
    volume = jax.vmap(filtered, in_axes=-1, out_axes=-1)(layer.kernel[...])[:, :, 0]
    assert volume.shape == (*conv.output_shape((32, 32), 3, padding=1), 12) == (32, 32, 12)
    np.testing.assert_allclose(volume, layer(image), atol=1e-14)
    pooled = conv.max_pool(volume, (2, 2, 1))
    assert pooled.shape == (*conv.output_shape((32, 32), 2, 2), 12) == (16, 16, 12)
    assert scores(pooled.ravel()).shape == (10,)

    sizes = [sum(x.size for x in jax.tree.leaves(module)) for module in (layer, scores)]
    assert conv.convolution_parameters((3, 3), 3, 12) == sizes[0] == 336
    assert conv.dense_parameters(16 * 16 * 12, 10) == sizes[1] == 30730


def test_cross_correlation_has_the_layers_gradient():
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))
    x = jnp.asarray(PICTURE)

    def ours(x, kernel):
        return (conv.cross_correlate(x, kernel, 2, 1) ** 2).sum()

    def theirs(x, kernel):
        pads = ((1, 1), (1, 1))
        out = jax.lax.conv_general_dilated(x[None, None], kernel[None, None], (2, 2), pads)
        return (out**2).sum()

    gradients = jax.jit(lambda *args: [jax.grad(f, (0, 1))(*args) for f in (ours, theirs)])
    for a, b in zip(*gradients(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(("window", "stride"), [(2, None), (3, 2), ((2, 3), (3, 1))])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_is_the_pooling_layer(kind, window, stride):
    ours = {"max": conv.max_pool, "average": conv.average_pool}[kind]
    theirs = {"max": nnx.max_pool, "average": nnx.avg_pool}[kind]

    def pair(value):
        return tuple(int(v) for v in np.broadcast_to(value, 2))

    x = jnp.asarray(PICTURE)[..., None]
    with jax.numpy_dtype_promotion("standard"):  # Flax divides by an array of integers
        expected = theirs(x, pair(window), pair(stride or window))
    np.testing.assert_allclose(ours(PICTURE, window, stride), expected[..., 0], rtol=1e-13)


@pytest.mark.parametrize(
    ("kernel", "filtered"),
    [
        (conv.SOBEL_ROWS, lambda x: scipy.ndimage.sobel(x, axis=0, mode="constant")),
        (conv.SOBEL_COLUMNS, lambda x: scipy.ndimage.sobel(x, axis=1, mode="constant")),
        (conv.LAPLACIAN, lambda x: scipy.ndimage.laplace(x, mode="constant")),
        (np.full((3, 3), 1 / 9), lambda x: scipy.ndimage.uniform_filter(x, 3, mode="constant")),
    ],
    ids=["sobel rows", "sobel columns", "laplacian", "box"],
)
def test_filters_made_by_hand(kernel, filtered):
    found = conv.cross_correlate(PICTURE, kernel, padding=1)
    np.testing.assert_allclose(found, filtered(PICTURE), atol=1e-14)


def test_smoothing_filters():
    np.testing.assert_allclose(conv.box_filter((3, 3)), np.full((3, 3), 1 / 9), rtol=1e-15)
    # scipy cuts its Gaussian at radius truncate * sigma.
    found = conv.convolve(PICTURE, conv.gaussian_filter((5, 5), 0.8), padding=2)
    expected = scipy.ndimage.gaussian_filter(PICTURE, 0.8, mode="constant", truncate=2.5)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    for shape in [(4,), (3, 5), (1,)]:
        kernel = np.asarray(conv.gaussian_filter(shape, 1e-3 if shape == (4,) else 1.0))
        np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-15)
        np.testing.assert_array_equal(kernel, np.flip(kernel))
    with pytest.raises(ValueError, match="read-only"):
        conv.SOBEL_COLUMNS[0, 0] = 0


def test_convolution_matrix_is_toeplitz():
    alpha = SIGNAL[:3]
    a, b, c = alpha
    # As the lecture prints it.
    expected = [[a, 0, 0, 0], [b, a, 0, 0], [c, b, a, 0], [0, c, b, a], [0, 0, c, b], [0, 0, 0, c]]
    np.testing.assert_array_equal(conv.convolution_matrix(alpha, (4,)), expected)
    np.testing.assert_array_equal(scipy.linalg.convolution_matrix(alpha, 4), expected)


def test_convolution_matrix_of_an_image():
    kernel = np.random.default_rng(1).normal(size=(2, 3))
    full = np.asarray(conv.convolution_matrix(kernel, PICTURE.shape)) @ PICTURE.ravel()
    np.testing.assert_allclose(full, scipy.signal.convolve2d(PICTURE, kernel).ravel(), atol=1e-14)


def test_convolution_matrix_takes_no_more_room_than_it_must():
    multiply = functools.partial(conv.polynomial_product, method="toeplitz")
    ones = jax.ShapeDtypeStruct((500,), jnp.float32)
    memory = jax.jit(multiply).lower(ones, ones).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2 * 4 * 999 * 500


@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        (SIGNAL, np.array([2.0, -1.0, 0.5])),
        (SIGNAL, np.array([0.0, 1.0, 3.0, 1.0])),  # long division fails: it divides by the zero
        (PICTURE, np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0]])),
    ],
)
def test_deconvolution_undoes_convolution(x, kernel):
    y = scipy.signal.convolve(x, kernel, method="direct")
    np.testing.assert_allclose(conv.deconvolve(y, kernel), x, atol=1e-11)
    if x.ndim == 1 and kernel[0]:
        np.testing.assert_allclose(scipy.signal.deconvolve(y, kernel)[0], x, atol=1e-11)


def test_deconvolution_of_noise_is_the_least_squares_solution():
    y, kernel = PICTURE, np.array([[1.0, 2.0], [0.5, 1.5]])
    units = np.eye(48).reshape(48, 8, 6)
    matrix = np.stack([scipy.signal.convolve2d(x, kernel).ravel() for x in units], axis=1)
    expected = np.linalg.lstsq(matrix, y.ravel(), rcond=None)[0].reshape(8, 6)
    np.testing.assert_allclose(conv.deconvolve(y, kernel), expected, rtol=1e-9)


def test_transposed_convolution_is_the_transpose():
    layer = nnx.ConvTranspose(
        1, 1, (3, 2), 2, padding="VALID", use_bias=False, transpose_kernel=True, **OPTIONS
    )
    kernel = layer.kernel[..., 0, 0]

    def forward(x):
        return conv.cross_correlate(x, kernel, stride=2)

    y = forward(jnp.asarray(PICTURE))
    transpose = jax.linear_transpose(forward, jax.ShapeDtypeStruct(PICTURE.shape, PICTURE.dtype))
    expected = np.asarray(layer(y[..., None])[..., 0])
    (found,) = transpose(y)
    np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=1e-14)
    np.testing.assert_array_equal(found[:, expected.shape[1] :], 0)  # columns no window reached


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "n"), [(3, 4), (1, 1), (9, 2)])
def test_polynomial_product(method, m, n):
    alpha, beta = SIGNAL[:m], SIGNAL[-n:]
    found = conv.polynomial_product(alpha, beta, method)
    expected = np.polynomial.polynomial.polymul(alpha, beta)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_allclose(found, np.convolve(alpha, beta), atol=1e-14)


class Counted(complex):
    """A complex number that counts the floating-point operations made with it."""

    operations = 0
    product, total = 1, 1  # of real numbers; 6 and 2 of complex ones

    def __mul__(self, other):
        Counted.operations += self.product
        return type(self)(complex(self) * other)

    def __add__(self, other):
        Counted.operations += self.total
        return type(self)(complex(self) + other)


class CountedComplex(Counted):
    product, total = 6, 2


def counted(function, *vectors, kind=Counted):
    Counted.operations = 0
    result = function(*([kind(v) for v in vector] for vector in vectors))
    return Counted.operations, np.real([complex(v) for v in result])


def direct(alpha, beta):
    delta = {}
    for i, a in enumerate(alpha):
        for j, b in enumerate(beta):
            delta[i + j] = delta[i + j] + a * b if i + j in delta else a * b
    return delta.values()


def matrix_times_vector(alpha, beta):
    rows = scipy.linalg.convolution_matrix(np.real(alpha), len(beta))
    products = [[Counted(t) * b for t, b in zip(row, beta, strict=True)] for row in rows]
    return [sum(row[1:], start=row[0]) for row in products]


def fourier(x, sign):
    if len(x) == 1:
        return x
    even, odd = fourier(x[::2], sign), fourier(x[1::2], sign)
    turned = [v * cmath.exp(sign * 2j * math.pi * k / len(x)) for k, v in enumerate(odd)]
    pairs = list(zip(even, turned, strict=True))
    return [e + t for e, t in pairs] + [e + -complex(t) for e, t in pairs]


def by_transforms(alpha, beta):
    size = 2 ** math.ceil(math.log2(len(alpha) + len(beta) - 1))
    a, b = (fourier(x + [CountedComplex(0)] * (size - len(x)), -1) for x in (alpha, beta))
    return [complex(v) / size for v in fourier([p * q for p, q in zip(a, b, strict=True)], 1)]


@pytest.mark.parametrize(("m", "n"), [(3, 4), (4, 3), (1, 1), (8, 9), (5, 1)])
def test_operation_counts_are_those_counted(m, n):
    alpha, beta = SIGNAL[:m], SIGNAL[-n:]
    counts = {}
    for method, function, kind in (
        ("direct", direct, Counted),
        ("toeplitz", matrix_times_vector, Counted),
        ("fft", by_transforms, CountedComplex),
    ):
        counts[method], product = counted(function, alpha, beta, kind=kind)
        np.testing.assert_allclose(product[: m + n - 1], np.convolve(alpha, beta), atol=1e-13)
    assert conv.polynomial_product_operations(m, n) == counts


def test_operation_counts_of_long_polynomials():
    counts = {n: conv.polynomial_product_operations(n, n) for n in range(1, 1100)}
    fewer = [n for n, count in counts.items() if count["fft"] < count["direct"]]
    assert fewer[0] == 128
    assert max(set(counts) - set(fewer)) == 283


def test_output_shape():
    # Dumoulin and Visin (arXiv 1603.07285), figures 2.1 to 2.7.
    assert conv.output_shape((4, 4), 3) == (2, 2)
    assert conv.output_shape((5, 5), 4, padding=2) == (6, 6)
    assert conv.output_shape((5, 5), 3, padding=2) == (7, 7)
    assert conv.output_shape((5, 5), 3, stride=2) == (2, 2)
    assert conv.output_shape((6, 6), 3, stride=2, padding=1) == (3, 3)
    assert conv.output_shape((9, 6), (2, 3), (1, 2), (0, 1)) == (8, 3)


def test_parameter_counts_of_the_lecture():
    weights = {(32, 32, 3): 3072, (200, 200, 3): 120_000, (28, 28, 1): 784}
    weights |= {(128, 128, 1): 16384, (128, 128, 3): 49152}
    for shape, count in weights.items():
        assert conv.dense_parameters(math.prod(shape), 1) == count + 1
    sound = conv.dense_parameters(10**6, 10**4) + conv.dense_parameters(10**4, 1)
    assert sound == 10**10 + 10**4 + 10**4 + 1


def test_the_cifar_tutorials_network():
    shape, layers = (32, 32), [(3, 1), (2, 2), (3, 1), (2, 2), (3, 1)]
    for window, stride in layers:
        shape = conv.output_shape(shape, window, stride)
    assert shape == (4, 4)
    depths = [(3, 32), (32, 64), (64, 64)]
    counts = [conv.convolution_parameters((3, 3), *depth) for depth in depths]
    counts += [conv.dense_parameters(4 * 4 * 64, 64), conv.dense_parameters(64, 10)]
    assert counts == [896, 18496, 36928, 65600, 650]


@pytest.mark.parametrize("layers", [[], [(3, 1)], [(3, 2), (5, 1), (2, 3), (3, 1)]])
def test_receptive_field_is_what_an_output_depends_on(layers):
    def last(x):
        for window, stride in layers:
            x = conv.cross_correlate(x, np.ones(window), stride)
        return x[0]

    gradient = jax.jit(jax.grad(last))(jnp.ones(60))
    assert conv.receptive_field(layers) == np.count_nonzero(gradient)


def test_dtype_follows_the_data():
    x = PICTURE.astype(np.float32)
    assert conv.cross_correlate(x, conv.LAPLACIAN).dtype == jnp.float32
    assert conv.convolve(x, conv.box_filter((2, 2), x.dtype)).dtype == jnp.float32
    with jax.numpy_dtype_promotion("standard"):
        assert conv.convolve(x, conv.box_filter((2, 2))).dtype == jnp.float64
    assert conv.average_pool(x).dtype == jnp.float32
    for method in METHODS:
        assert conv.polynomial_product(x[0], np.array([1, 2]), method).dtype == jnp.float32


@pytest.mark.parametrize(
    "block",
    [
        lambda x: conv.cross_correlate(x, conv.LAPLACIAN),
        lambda x: conv.deconvolve(x, jnp.ones((2, 2), x.dtype)),
        lambda x: conv.polynomial_product(x[0], x[1], "toeplitz"),
        lambda x: neuron.neuron(x, x[0], x[0, 0]),
        lambda x: neuron.squared_error_gradient(x[0], x[0, 0], x[1], x[0, 0]),
    ],
)
def test_products_keep_all_digits_on_accelerators(block):
    """Which round float32 to fewer by default; seen in the program, as a CPU never does."""
    program = str(jax.make_jaxpr(block)(PICTURE.astype(np.float32)))
    products = program.count("dot_general[")
    assert products > 0
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.usefixtures("as_a_user")
@refusals(
    (
        lambda: conv.cross_correlate(PICTURE, SIGNAL),
        r"kernel must have as many axes as x, got shapes \(11,\) and \(9, 7\)",
    ),
    (
        lambda: conv.convolve(PICTURE, np.ones((3, 8))),
        r"window must fit into the padded input, of shape \(9, 7\), got \(3, 8\)",
    ),
    (lambda: conv.convolve(1.0, 2.0), r"x must have axes and entries"),
    (lambda: conv.convolve([], [1.0]), r"x must have .* got shape \(0,\)"),
    (lambda: conv.convolve(SIGNAL, ["a"]), "kernel must hold real numbers", TypeError),
    (lambda: conv.convolve(SIGNAL, [1, 2], 0), "stride must be at least 1, got 0"),
    (lambda: conv.convolve(SIGNAL, [1, 2], 1.0), "stride must be an integer", TypeError),
    (
        lambda: conv.convolve(PICTURE, [[1]], (1, 1, 1)),
        r"stride must have 2 entries, one for each axis, got \(1, 1, 1\)",
    ),
    (
        lambda: conv.convolve(PICTURE, [[1]], padding=(0, -1)),
        r"padding\[1\] must be at least 0, got -1",
    ),
    (lambda: conv.max_pool(PICTURE, 8), r"window must fit .*, got \(8, 8\)"),
    (lambda: conv.max_pool(PICTURE, 0), "window must be at least 1, got 0"),
    (lambda: conv.average_pool(3.0), "x must have axes, got a number"),
    (lambda: conv.average_pool(PICTURE, True), "window must be an integer", TypeError),
    (lambda: conv.box_filter(3), "shape must be a sequence of integers, got 3", TypeError),
    (
        lambda: conv.box_filter((3,), int),
        "dtype must .* such as jnp.float64, got",
        TypeError,
    ),
    (lambda: conv.gaussian_filter((3,), 1.0, int), "dtype must be a floating dtype", TypeError),
    (lambda: conv.gaussian_filter((3,), 0.0), "sigma must be positive and finite"),
    (
        lambda: conv.convolution_matrix([1, 2], (3, 3)),
        r"kernel must have entries and as many axes as shape \(3, 3\), got shape \(2,\)",
    ),
    (lambda: conv.deconvolve([1, 2], [1, 2, 3]), "y must be at least as long as"),
    (lambda: conv.deconvolve([1, 2], [0, 0]), "an entry that is not zero"),
    (
        lambda: conv.polynomial_product([1], [1], "karatsuba"),
        r"method must be one of \('direct', 'toeplitz', 'fft'\), got 'karatsuba'",
    ),
    (lambda: conv.polynomial_product([[1]], [[1]]), r"alpha must have .* \(m,\)"),
    (lambda: conv.polynomial_product_operations(0, 1), "m must be at least 1"),
    (lambda: conv.receptive_field([(3, 1), (2, 0)]), r"layers\[1\]\[1\] must be"),
    (
        lambda: conv.receptive_field([(3, 1, 1)]),
        r"layers\[0\] must be a pair .* got \(3, 1, 1",
        TypeError,
    ),
    (
        lambda: conv.receptive_field([3]),
        r"layers\[0\] must be a pair .* got 3",
        TypeError,
    ),
    (lambda: conv.convolution_parameters((3, 3), 0, 1), "channels must be at"),
    (lambda: conv.dense_parameters(3, 1.5), "outputs must be an integer, got 1.5", TypeError),
)
def test_bad_input_is_named(call):
    call()
