"""Pooling of images, and the largest of several arrays, with gradients that are fast on a CPU."""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_one_of

Image = Float[Array, "*batch height width channels"]
FeatureMaps = Float[Array, "*batch new_height new_width maps"]

Pooling = Literal["max", "mean"]


@checked
def pool(x: Image, size: int, kind: Pooling = "max") -> FeatureMaps:
    """The largest value, or the mean, of each block of `size` x `size` pixels.

    Rows and columns that fill no block are left out. Blocks do not overlap, so this is a reshape
    and a reduction, whose gradient is much faster on the CPU than that of a sliding window. Pixels
    of a block that are equally large share its gradient.

    Raises:
        ValueError: a size below one, an image smaller than a block, or an unknown kind.
    """
    require_count(size=size)
    require_one_of(get_args(Pooling), kind=kind)
    rows, columns = x.shape[-3] // size, x.shape[-2] // size
    if rows < 1 or columns < 1:
        raise ValueError(f"x must have at least {size} x {size} pixels, one block, got {x.shape}")
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
    # JAX's own rule, except that a sum of slices counts the largest: on a CPU, JAX's reduction of
    # this layout took a third of the training step of a small network.
    (blocks,), (changes,) = primals, tangents
    size = blocks.shape[-2]
    largest = _largest(blocks)
    slices = [blocks[..., :, u, :, v, :] for u in range(size) for v in range(size)]
    count = sum((part == largest).astype(blocks.dtype) for part in slices)
    chosen = blocks == jnp.broadcast_to(largest[..., :, None, :, None, :], blocks.shape)
    return largest, jnp.where(chosen, changes, 0).sum(axis=(-4, -2)) / count


@jax.custom_jvp
def largest_of(parts: list[Array]) -> Array:
    """The elementwise maximum of arrays of one shape."""
    return functools.reduce(jnp.maximum, parts)


@largest_of.defjvp
def _(primals: tuple[list[Array]], tangents: tuple[list[Array]]) -> tuple[Array, Array]:
    # JAX's own rule shares the gradient among equals. For that it reads all parts once more, and a
    # training step takes a quarter longer.
    (parts,), (changes,) = primals, tangents
    largest, change = parts[0], changes[0]
    for part, its_change in zip(parts[1:], changes[1:], strict=True):
        change = jnp.where(part > largest, its_change, change)
        largest = jnp.maximum(part, largest)  # NaN if one of them is
    return largest, change
