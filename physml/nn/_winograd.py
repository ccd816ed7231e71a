"""Winograd's algorithm: 3 x 3 filters with 16 products for 4 pixels in place of 36."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

CHANNELS = 16  # with fewer, the sums that save products cost more than they save


def suits_winograd(kernel: Array) -> bool:
    """Whether the filters are 3 x 3 and have so many channels that the algorithm is faster."""
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] >= CHANNELS


def by_winograd(x: Array, kernel: Array, down: int, across: int) -> list[Array]:
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
        [product(d, g) for d, g in zip(*pair, strict=True)]
        for pair in zip(seen, weights, strict=True)
    ]
    first, second = _both_ways(lambda m: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]], products)
    return [_kept(tile, kernel) for tile in (*first, *second)]


def product(x: Array, matrix: Array) -> Array:
    """`x @ matrix` as one product of two matrices; with a batch's axes its gradient is slower."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _kept(x: Array, kernel: Array) -> Array:
    """`x` unchanged, written such that XLA computes it and its gradient once and keeps them.

    XLA's compiler for the CPU otherwise repeats sums and comparisons wherever they are used, and
    the gradient of each of the 16 products uses all 16. It keeps what it takes to be expensive, for
    example a quotient by a number that it does not know. `lax.optimization_barrier` does not help:
    XLA drops it too soon.
    """
    one = jax.lax.stop_gradient(1 + 0 * kernel.reshape(-1)[0])
    return x / one


def _both_ways(
    transform: Callable[[Sequence[Array]], list[Array]], table: Sequence[Sequence[Array]]
) -> list[list[Array]]:
    """The transform of each row of a table of arrays, then that of each column."""
    columns = [transform(column) for column in zip(*map(transform, table), strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]
