"""Convolution of images that is fast on the CPU too, inside a scan or a vmap."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_one_of
from physml.nn._pool import FeatureMaps, Image, largest_of, pool
from physml.nn._weights import find_dtype
from physml.nn._winograd import by_winograd, product, suits_winograd

Padding = Literal["VALID", "SAME"]
"""Only whole patches of the image, or zeros around it so that stride 1 keeps its size."""

FEW_FILTERS = 16  # fewer are put on the first axis, which is twice as fast in a vmap


@checked
def correlate(
    x: Image,
    kernel: Float[Array, "rows columns channels filters"],
    *,
    stride: int = 1,
    padding: Padding = "VALID",
) -> FeatureMaps:
    r"""The cross-correlation that a convolutional layer computes.

    $$y_{ijf} = \sum_{u,v,c} W_{uvcf}\, x_{s i + u,\, s j + v,\, c}$$

    with stride s, after zeros were put around the image if the padding is "SAME". On the CPU it is
    made of matrix products, because XLA's own convolution is an order of magnitude slower there
    inside a loop (jax issue 12868) or vmapped over its weights. Filters of 3 x 3 with stride 1 are
    applied by Winograd's algorithm, which needs 16 multiplications where the sum needs 36 (Lavin,
    Gray, arXiv 1509.09308); its rounding errors are a few times larger. Other filters multiply
    patches. Other backends use their native convolution.

    Args:
        x: images, channels last.
        kernel: the filters.
        stride: how far apart patches are.
        padding: "VALID" or "SAME".

    Raises:
        ValueError: other axes or channels than the kernel asks for, an image smaller than it, a
            stride below one, or an unknown padding.
    """
    _check(x, kernel, stride, padding)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_by_products, stride=stride, padding=padding),
        default=functools.partial(_natively, stride=stride, padding=padding),
    )


@checked
def correlate_max(
    x: Image,
    kernel: Float[Array, "rows columns channels filters"],
    size: int,
    *,
    padding: Padding = "VALID",
) -> FeatureMaps:
    """`pool(correlate(x, kernel, padding=padding), size)`: the largest of each block of pixels.

    On the CPU one array holds the first pixel of all blocks, the next one the second pixel, and so
    on; their elementwise maximum is the result. Pixels outside all blocks are not computed. Such a
    layer is up to twice as fast. If pixels of a block are equally large, on the CPU the first gets
    the gradient; on other backends they share it, as in `pool`.

    Args:
        x, kernel, padding: as for `correlate`, with stride 1.
        size: rows and columns of a block.

    Raises:
        ValueError: as `correlate`, or no block of outputs in an image.
    """
    _check(x, kernel, 1, padding, size)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_max_by_products, size=size, padding=padding),
        default=lambda x, kernel: pool(_natively(x, kernel, stride=1, padding=padding), size),
    )


def _check(x: Array, kernel: Array, stride: int, padding: Padding, size: int = 1) -> None:
    require_count(stride=stride, size=size)
    require_one_of(get_args(Padding), padding=padding)
    if kernel.ndim != 4 or x.ndim < 3 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "x must have shape (..., height, width, channels) and kernel (rows, columns, channels, "
            f"filters), got {x.shape} and {kernel.shape}"
        )
    least = tuple(size + (n - 1 if padding == "VALID" else 0) for n in kernel.shape[:2])
    if any(n < at_least for n, at_least in zip(x.shape[-3:-1], least, strict=True)):
        raise ValueError(f"x must have images of at least {least} pixels, got {x.shape[-3:-1]}")


def _by_products(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    x = _padded(x, kernel, stride, padding)
    rows, columns = _places(x, kernel, stride)
    if stride > 1 or not suits_winograd(kernel):
        return _by_patches(x, kernel, stride, rows, columns)
    tiles = by_winograd(x, kernel, -(-rows // 2), -(-columns // 2))
    y = jnp.stack([jnp.stack(tiles[:2], axis=-2), jnp.stack(tiles[2:], axis=-2)], axis=-4)
    *batch, down, _, across, _, filters = y.shape
    return y.reshape(*batch, 2 * down, 2 * across, filters)[..., :rows, :columns, :]


def _max_by_products(x: Array, kernel: Array, *, size: int, padding: Padding) -> Array:
    x = _padded(x, kernel, 1, padding)
    rows, columns = (count // size for count in _places(x, kernel, 1))
    if size == 2 and suits_winograd(kernel):
        return largest_of(by_winograd(x, kernel, rows, columns))
    filters_first = kernel.shape[-1] < FEW_FILTERS
    multiply = _product_filters_first if filters_first else product
    corners = [(u, v) for u in range(size) for v in range(size)]
    largest = largest_of(
        [_by_patches(x[..., u:, v:, :], kernel, size, rows, columns, multiply) for u, v in corners]
    )
    return jnp.moveaxis(largest, 0, -1) if filters_first else largest


def _padded(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    pads = jax.lax.padtype_to_pads(x.shape[-3:-1], kernel.shape[:2], (stride, stride), padding)
    if not any(before or after for before, after in pads):
        return x
    return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)])


def _places(x: Array, kernel: Array, stride: int) -> tuple[int, int]:
    """In how many rows and columns of an image a kernel fits."""
    rows, columns = (
        (whole - part) // stride + 1
        for whole, part in zip(x.shape[-3:-1], kernel.shape[:2], strict=True)
    )
    return rows, columns


def _product_filters_first(x: Array, matrix: Array) -> Array:
    return jnp.tensordot(matrix, x, ((0,), (x.ndim - 1,)))


def _by_patches(
    x: Array,
    kernel: Array,
    stride: int,
    rows: int,
    columns: int,
    multiply: Callable[[Array, Array], Array] = product,
) -> Array:
    patches = jnp.concatenate(
        [
            x[
                ...,
                u : u + stride * (rows - 1) + 1 : stride,
                v : v + stride * (columns - 1) + 1 : stride,
                :,
            ]
            for u in range(kernel.shape[0])
            for v in range(kernel.shape[1])
        ],
        axis=-1,
    )
    return multiply(patches, kernel.reshape(-1, kernel.shape[-1]))


def _natively(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    batch = x.shape[:-3]
    y = jax.lax.conv_general_dilated(
        x.reshape(-1, *x.shape[-3:]),
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*batch, *y.shape[1:])


class Conv(nnx.Module):
    """A convolutional layer: `correlate` with a kernel, plus a bias for each filter.

    It has the parameters of `nnx.Conv`, and computes the same.

    >>> layer = nn.Conv(3, 32, 5, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 16, 16, 3))).shape
    (2, 12, 12, 32)
    """

    @checked
    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Padding = "VALID",
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),  # noqa: B008 -- a pure function
        bias_init: nnx.Initializer = nnx.initializers.zeros_init(),  # noqa: B008 -- a pure function
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            in_features: the channels of the images.
            out_features: the number of filters.
            kernel_size: rows and columns of a filter.
            stride: how far apart patches are.
            padding: "VALID" or "SAME".
            kernel_init: draws the filters, by default with variance 1 / (pixels of a patch).
            bias_init: draws the biases, by default zero.
            dtype: the weights' dtype; JAX's default float unless given.
            rngs: the random numbers.

        Raises:
            ValueError: a size below one, an unknown padding, or a dtype that cannot be had.
        """
        require_count(in_features=in_features, out_features=out_features)
        require_count(kernel_size=kernel_size, stride=stride)
        require_one_of(get_args(Padding), padding=padding)
        dtype = find_dtype(dtype)
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, dtype))
        self.bias = nnx.Param(bias_init(rngs.params(), (out_features,), dtype))
        self.stride = stride
        self.padding: Padding = padding

    @checked
    def __call__(self, x: Image, *, max_pool: int = 1) -> FeatureMaps:
        """The layer's outputs, or the largest of each block of `max_pool` x `max_pool` of them.

        Raises:
            ValueError: pooling of a layer with a stride, or as `correlate_max`.
        """
        require_count(max_pool=max_pool)
        if max_pool > 1 and self.stride > 1:
            raise ValueError(f"max_pool must be 1 for a stride of {self.stride}, got {max_pool}")
        kernel, bias = self.kernel[...], self.bias[...]
        dtype = jnp.result_type(x, kernel)
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        if max_pool > 1:
            y = correlate_max(x, kernel, max_pool, padding=self.padding)
        else:
            y = correlate(x, kernel, stride=self.stride, padding=self.padding)
        return y + jnp.broadcast_to(bias.astype(dtype), y.shape)
