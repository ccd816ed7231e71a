"""Kernels and pooling windows that slide over a signal or an image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, floating_arrays
from physml.convolution._sizes import PerAxis, output_shape, per_axis


@checked
def cross_correlate(
    x: Real[ArrayLike, "*shape"],
    kernel: Real[ArrayLike, "*window"],
    stride: PerAxis = 1,
    padding: PerAxis = 0,
) -> Float[Array, "*out"]:
    r"""The cross-correlation, what `nnx.Conv` and every deep-learning library compute.

    $$S(i, j) = \sum_{m, n} I(s i + m - p, \; s j + n - p) \, K(m, n)$$

    with $I = 0$ outside the image; likewise in one dimension or more than two. (The lecture prints
    $j - n$ for $j + n$, and its code calls this operation a convolution.) A filter of a network
    reaches through the full depth of a (height, width, channels) volume: it is a kernel of
    (k, k, channels) with `padding=(p, p, 0)`, and `jax.vmap` makes many filters of one.

    >>> image = np.arange(1, 10).reshape(3, 3)
    >>> convolution.cross_correlate(image, convolution.EDGE_BELOW).tolist()
    [[6.0, 6.0], [6.0, 6.0]]
    >>> convolution.convolve(image, convolution.EDGE_BELOW).tolist()
    [[-6.0, -6.0], [-6.0, -6.0]]

    Args:
        x: the signal or image, $I$.
        kernel: $K$, with as many axes as `x`. Integers take the dtype of the other array.
        stride: $s$, for all axes or for each.
        padding: $p$, the zeros put before and behind, for all axes or for each.

    Returns:
        An array of `output_shape(x.shape, kernel.shape, stride, padding)`.

    Raises:
        TypeError: an argument holds no real numbers, or a stride or padding is no integer.
        ValueError: `x` and `kernel` differ in their number of axes or have none, a stride is below
            one, a padding below zero, or the kernel is larger than the padded image.
    """
    x, kernel = same_axes(x=x, kernel=kernel)
    output_shape(x.shape, kernel.shape, stride, padding)  # raises unless the kernel fits
    stride, padding = per_axis("stride", stride, x.ndim), per_axis("padding", padding, x.ndim, 0)
    return _correlate(x, kernel, stride, padding)


@checked
def convolve(
    x: Real[ArrayLike, "*shape"],
    kernel: Real[ArrayLike, "*window"],
    stride: PerAxis = 1,
    padding: PerAxis = 0,
) -> Float[Array, "*out"]:
    r"""The convolution: the cross-correlation with the kernel mirrored along every axis.

    $$S(i, j) = \sum_{m, n} I(s i - p + k_1 - 1 - m, \; s j - p + k_2 - 1 - n) \, K(m, n)$$

    for a kernel of $k_1 \times k_2$. At stride one, with `padding` one less than the kernel's
    length, this is the full convolution $(I * K)(i, j) = \sum I(i - m, j - n) K(m, n)$, which is
    commutative; without padding it is the part of that where the kernel lies wholly on the image.
    For a network that learns its kernels the two operations are equivalent: with one it learns the
    mirror images of the kernels that it learns with the other.

    Args, returns and raises as `cross_correlate`.
    """
    x, kernel = same_axes(x=x, kernel=kernel)
    return cross_correlate(x, jnp.flip(kernel), stride, padding)


@checked
def max_pool(
    x: Real[ArrayLike, "*shape"], window: PerAxis = 2, stride: PerAxis | None = None
) -> Float[Array, "*out"]:
    r"""The largest value in every window, $\max_{m, n} x(s i + m, s j + n)$.

    Args:
        x: the image, or (height, width, channels) with `window=(k, k, 1)`.
        window: the window's length, for all axes or for each.
        stride: $s$, from one window to the next; the window's length unless given.

    Returns:
        An array of `output_shape(x.shape, window, stride)`: rows and columns that fill no whole
        window are left out.

    Raises:
        TypeError: `x` holds no real numbers, or a window or stride is no integer.
        ValueError: a window or stride is below one, there are more or fewer of them than axes, or
            the window is larger than the image.
    """
    return _max_pool(*_pooling(x, window, stride))


@checked
def average_pool(
    x: Real[ArrayLike, "*shape"], window: PerAxis = 2, stride: PerAxis | None = None
) -> Float[Array, "*out"]:
    r"""The mean of every window, $\frac{1}{k_1 k_2} \sum_{m, n} x(s i + m, s j + n)$.

    Args, returns and raises as `max_pool`.
    """
    return _average_pool(*_pooling(x, window, stride))


def same_axes(**arrays: ArrayLike) -> tuple[Array, Array]:
    """Two arrays in their common floating dtype, with as many axes and none of these empty.

    Raises:
        TypeError: one holds no real numbers.
        ValueError: one is empty or has no axes, or they differ in their number of axes.
    """
    (name, other_name) = arrays
    x, other = floating_arrays(**arrays)
    for label, array in ((name, x), (other_name, other)):
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"{label} must have axes and entries, got shape {array.shape}")
    if x.ndim != other.ndim:
        raise ValueError(
            f"{other_name} must have as many axes as {name}, got shapes {other.shape} and {x.shape}"
        )
    return x, other


def _pooling(
    x: ArrayLike, window: PerAxis, stride: PerAxis | None
) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    x = floating_array("x", x)
    if x.ndim == 0:
        raise ValueError("x must have axes, got a number")
    stride = window if stride is None else stride
    output_shape(x.shape, window, stride)  # raises unless the window fits
    return x, per_axis("window", window, x.ndim), per_axis("stride", stride, x.ndim)


# What is compiled, on arguments that have been checked


def _windows(x: Array, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """Every window, as an array (place, offset, place, offset, ...): one pair for each axis."""
    for axis, (k, s) in enumerate(zip(window, stride, strict=True)):
        first = np.arange(0, x.shape[2 * axis] - k + 1, s)
        x = jnp.take(x, first[:, None] + np.arange(k), axis=2 * axis, mode="clip")
    return x


def _offsets(dims: int) -> tuple[int, ...]:
    """The axes of the offsets in what `_windows` returns."""
    return tuple(range(1, 2 * dims, 2))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _correlate(x: Array, kernel: Array, stride: tuple[int, ...], padding: tuple[int, ...]) -> Array:
    # A gather and a matrix product: lax.conv is slow in scan and vmap on a CPU. The precision is
    # for accelerators, which would round float32 to fewer digits first.
    windows = _windows(jnp.pad(x, [(p, p) for p in padding]), kernel.shape, stride)
    axes = (_offsets(x.ndim), tuple(range(x.ndim)))
    return jnp.tensordot(windows, kernel, axes, precision="highest")


@functools.partial(jax.jit, static_argnums=(1, 2))
def _max_pool(x: Array, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    return _windows(x, window, stride).max(_offsets(x.ndim))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _average_pool(x: Array, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    return _windows(x, window, stride).mean(_offsets(x.ndim))
