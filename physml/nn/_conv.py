"""Convolution and pooling of images, on the CPU also fast in a scan or a vmap."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from physml.nn._common import check_one_of, check_positive, find_dtype

Padding = Literal["VALID", "SAME"]
"""Only whole patches of the image, or zeros around it so that stride 1 keeps its size."""

Pooling = Literal["max", "mean"]

Image = Float[Array, "*batch height width channels"]
FeatureMaps = Float[Array, "*batch new_height new_width maps"]

WINOGRAD_CHANNELS = 16  # with fewer, sums to save products cost more than they save
FEW_FILTERS = 16  # fewer are as fast before the pixels as after them, and twice as fast in a vmap


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
    made of matrix products: XLA's own convolution is an order of magnitude slower there inside a
    loop (jax issue 12868), and so is one vmapped over its weights. Filters of 3 x 3 with stride 1
    are applied by Winograd's algorithm, which needs 16 multiplications where the sum needs 36
    (Lavin, Gray, arXiv 1509.09308); its rounding errors are a few times larger. Others multiply
    patches. Other backends get their native convolution.

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


def correlate_max(
    x: Image,
    kernel: Float[Array, "rows columns channels filters"],
    size: int,
    *,
    padding: Padding = "VALID",
) -> FeatureMaps:
    """`pool(correlate(x, kernel, padding=padding), size)`: the largest of each block of pixels.

    On the CPU the pixels of a block are computed apart and compared where they are, and those that
    fill no block are not computed, which makes such a layer up to twice as fast. Of pixels that are
    equally large the first has the gradient there; elsewhere they share it, as in `pool`.

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
    check_positive(stride=stride, size=size)
    check_one_of(Padding, padding=padding)
    if kernel.ndim != 4 or x.ndim < 3 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "x must have shape (..., height, width, channels) and kernel (rows, columns, channels, "
            f"filters); got {x.shape} and {kernel.shape}"
        )
    least = tuple(size + (n - 1 if padding == "VALID" else 0) for n in kernel.shape[:2])
    if any(n < at_least for n, at_least in zip(x.shape[-3:-1], least, strict=True)):
        raise ValueError(f"x must have images of at least {least} pixels; got {x.shape[-3:-1]}")


def _by_products(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    x = _padded(x, kernel, stride, padding)
    rows, columns = _places(x, kernel, stride)
    if stride > 1 or not _suits_winograd(kernel):
        return _by_patches(x, kernel, stride, rows, columns)
    tiles = _by_winograd(x, kernel, -(-rows // 2), -(-columns // 2))
    y = jnp.stack([jnp.stack(tiles[:2], axis=-2), jnp.stack(tiles[2:], axis=-2)], axis=-4)
    *batch, down, _, across, _, filters = y.shape
    return y.reshape(*batch, 2 * down, 2 * across, filters)[..., :rows, :columns, :]


def _max_by_products(x: Array, kernel: Array, *, size: int, padding: Padding) -> Array:
    x = _padded(x, kernel, 1, padding)
    rows, columns = (count // size for count in _places(x, kernel, 1))
    if size == 2 and _suits_winograd(kernel):
        return _largest_of(_by_winograd(x, kernel, rows, columns))
    filters_first = kernel.shape[-1] < FEW_FILTERS
    product = _product_filters_first if filters_first else _product
    corners = [(u, v) for u in range(size) for v in range(size)]
    largest = _largest_of(
        [
            _by_patches(x[..., u:, v:, :], kernel, size, rows, columns, product=product)
            for u, v in corners
        ]
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


def _suits_winograd(kernel: Array) -> bool:
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] >= WINOGRAD_CHANNELS


def _product(x: Array, matrix: Array) -> Array:
    # As one product of two matrices: with the batch's axes left apart its gradient takes longer.
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _product_filters_first(x: Array, matrix: Array) -> Array:
    return jnp.tensordot(matrix, x, ((0,), (x.ndim - 1,)))


def _by_patches(
    x: Array,
    kernel: Array,
    stride: int,
    rows: int,
    columns: int,
    product: Callable[[Array, Array], Array] = _product,
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
    return product(patches, kernel.reshape(-1, kernel.shape[-1]))


def _by_winograd(x: Array, kernel: Array, down: int, across: int) -> list[Array]:
    r"""Filters of 3 x 3 with stride 1: the four pixels of each 2 x 2 tile of outputs.

    $$Y = A^T \bigl[(G g G^T) \odot (B^T d B)\bigr] A$$

    where d are the 4 x 4 pixels that a tile sees, g is a filter, and the product in the middle sums
    over the channels: 16 products of matrices.

    Args:
        x: images; zeros are put below and to the right if tiles reach over the edge.
        kernel: the filters.
        down, across: the number of tiles.
    """
    over = [
        max(0, 2 * n + 2 - size) for n, size in zip((down, across), x.shape[-3:-1], strict=True)
    ]
    if any(over):
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(0, n) for n in over] + [(0, 0)])
    x = _kept(x, kernel)
    pixels = [
        [x[..., i : i + 2 * down - 1 : 2, j : j + 2 * across - 1 : 2, :] for j in range(4)]
        for i in range(4)
    ]
    seen = _both_ways(lambda d: [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]], pixels)
    weights = _both_ways(
        lambda g: [g[0], 0.5 * (g[0] + g[1] + g[2]), 0.5 * (g[0] - g[1] + g[2]), g[2]],
        [[kernel[i, j] for j in range(3)] for i in range(3)],
    )
    # One after another: the gradient of one batched product takes twice as long.
    products = [
        [_product(d, g) for d, g in zip(*pair, strict=True)]
        for pair in zip(seen, weights, strict=True)
    ]
    first, second = _both_ways(lambda m: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]], products)
    return [_kept(tile, kernel) for tile in (*first, *second)]


def _kept(x: Array, kernel: Array) -> Array:
    """`x`, which XLA is to compute once and keep, as is its gradient.

    Its compiler for the CPU else computes sums and comparisons anew wherever they are used, as each
    of the 16 products' gradients uses all 16 products; it keeps what it takes for expensive, such
    as a quotient by a number that it does not know. (It drops `lax.optimization_barrier` too soon.)
    """
    one = jax.lax.stop_gradient(1 + 0 * kernel.reshape(-1)[0])
    return x / one


def _both_ways(
    transform: Callable[[Sequence[Array]], list[Array]], table: Sequence[Sequence[Array]]
) -> list[list[Array]]:
    """The transform of each row of a table of arrays, then that of each column."""
    columns = [transform(column) for column in zip(*map(transform, table), strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


@jax.custom_jvp
def _largest_of(parts: list[Array]) -> Array:
    """The elementwise maximum of arrays of one shape."""
    return functools.reduce(jnp.maximum, parts)


@_largest_of.defjvp
def _(primals: tuple[list[Array]], tangents: tuple[list[Array]]) -> tuple[Array, Array]:
    # JAX's own rule shares the gradient among equals, which asks for all parts once more: a step of
    # training takes a quarter longer.
    (parts,), (changes,) = primals, tangents
    largest, change = parts[0], changes[0]
    for part, its_change in zip(parts[1:], changes[1:], strict=True):
        change = jnp.where(part > largest, its_change, change)
        largest = jnp.maximum(part, largest)  # NaN if one is
    return largest, change


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


def pool(x: Image, size: int, kind: Pooling = "max") -> FeatureMaps:
    """The largest value, or the mean, of each block of `size` x `size` pixels.

    Rows and columns that fill no block are left out. Blocks do not overlap, so this is a reshape
    and a reduction, whose gradient is much faster on the CPU than that of a sliding window. Pixels
    of a block that are equally large share its gradient.

    Raises:
        ValueError: a size below one, an image smaller than a block, or an unknown kind.
    """
    check_positive(size=size)
    check_one_of(Pooling, kind=kind)
    rows, columns = x.shape[-3] // size, x.shape[-2] // size
    if rows < 1 or columns < 1:
        raise ValueError(f"x must have at least {size} x {size} pixels, one block; got {x.shape}")
    x = x[..., : rows * size, : columns * size, :]
    blocks = x.reshape(*x.shape[:-3], rows, size, columns, size, x.shape[-1])
    return _largest(blocks) if kind == "max" else blocks.mean(axis=(-4, -2))


@jax.custom_jvp
def _largest(
    blocks: Float[Array, "*batch rows size columns size channels"],
) -> Float[Array, "*batch rows columns channels"]:
    return blocks.max(axis=(-4, -2))


@_largest.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # JAX's own rule but for how the largest are counted: as a sum of slices, since a reduction of
    # this layout took a third of the training step of a small network on a CPU.
    (blocks,), (changes,) = primals, tangents
    size = blocks.shape[-2]
    largest = _largest(blocks)
    slices = [blocks[..., :, u, :, v, :] for u in range(size) for v in range(size)]
    count = sum((part == largest).astype(blocks.dtype) for part in slices)
    chosen = blocks == jnp.broadcast_to(largest[..., :, None, :, None, :], blocks.shape)
    return largest, jnp.where(chosen, changes, 0).sum(axis=(-4, -2)) / count


class Conv(nnx.Module):
    """A convolutional layer: `correlate` with a kernel, plus a bias for each filter.

    It has the parameters of `nnx.Conv` and gives its numbers.

    ```python
    layer = Conv(3, 32, 5, rngs=nnx.Rngs(0))
    layer(images)  # (..., 32, 32, 3) -> (..., 28, 28, 32)
    ```
    """

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
        check_positive(
            in_features=in_features,
            out_features=out_features,
            kernel_size=kernel_size,
            stride=stride,
        )
        check_one_of(Padding, padding=padding)
        dtype = find_dtype(dtype)
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, dtype))
        self.bias = nnx.Param(bias_init(rngs.params(), (out_features,), dtype))
        self.stride = stride
        self.padding: Padding = padding

    def __call__(self, x: Image, *, max_pool: int = 1) -> FeatureMaps:
        """The layer's outputs, or the largest of each block of `max_pool` x `max_pool` of them.

        Raises:
            ValueError: pooling of a layer with a stride, or as `correlate_max`.
        """
        check_positive(max_pool=max_pool)
        if max_pool > 1 and self.stride > 1:
            raise ValueError(f"max_pool must be 1 for a stride of {self.stride}; got {max_pool}")
        kernel, bias = self.kernel[...], self.bias[...]
        dtype = jnp.result_type(x, kernel)
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        if max_pool > 1:
            y = correlate_max(x, kernel, max_pool, padding=self.padding)
        else:
            y = correlate(x, kernel, stride=self.stride, padding=self.padding)
        return y + jnp.broadcast_to(bias.astype(dtype), y.shape)
