"""Functions over batches, and what ends early in them: loops, work that no member needs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

_GROUP = 64  # rows


@jax.custom_batching.custom_vmap
def largest_of_batch(x: Array) -> Array:
    """The largest count, or whether any is true, over all members of a vmapped batch.

    Without a batch it is the value itself.

    If the condition of a while loop differs between members, every iteration copies all that the
    loop carries, long buffers too. With a condition on the largest value an iteration writes only
    what it sets; the loop's body must then leave members that have finished as they are.
    """
    return x


@largest_of_batch.def_vmap
def _(axis_size: int, in_batched: list[bool], x: Array) -> tuple[Array, bool]:
    del axis_size
    of_all = jnp.max(x, axis=0) if in_batched[0] else x  # noqa: TID251  counts are never NaN
    return largest_of_batch(of_all), False


def where_needed(
    needed: Bool[Array, ""],
    work: Callable[[PyTree[Array], Bool[Array, ""]], PyTree[Array]],
    value: PyTree[Array],
) -> PyTree[Array]:
    """`work(value, needed)` where it is needed, else the value.

    A condition that is mapped over computes both of its branches for all members. This is a loop
    of one turn, which a batch enters only if a member needs it. The work must depend on what it is
    given, the value or the condition, or the compiler does it before the loop.
    """
    return jax.lax.while_loop(
        lambda carry: carry[1], lambda carry: (work(*carry), jnp.asarray(False)), (value, needed)
    )[0]


def map_used(
    function: Callable[[PyTree[Array]], PyTree[Array]], rows: PyTree[Array], count: Int[Array, ""]
) -> PyTree[Array]:
    """A function of the rows of long buffers, computed as far as they are used.

    Args:
        function: of a group of rows, on its leading axis, to as many rows.
        rows: the buffers.
        count: how many rows are used. Beyond the group that the last of them lies in, rows of the
            result are zero.
    """
    total = len(jax.tree.leaves(rows)[0])
    size = min(_GROUP, total)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[:size], rows))
    results = jax.tree.map(lambda x: jnp.zeros((total, *x.shape[1:]), x.dtype), shapes)

    def advance(carry: tuple[Array, PyTree[Array]]) -> tuple[Array, PyTree[Array]]:
        group, results = carry
        first = jnp.minimum(group * size, total - size)  # the last group may repeat some rows
        given = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), rows)
        return group + 1, jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, first, 0),
            results,
            function(given),
        )

    used = largest_of_batch(count)
    start = jnp.zeros_like(used), results
    return jax.lax.while_loop(lambda carry: carry[0] * size < used, advance, start)[1]


def over_batch(
    single: Callable[[Any, Array], Array], t: ArrayLike, y: Float[Array, "dim *batch"]
) -> Array:
    """A function of one time and state over the trailing axes of y, and over those of t if any."""
    for axis in range(1, y.ndim):
        # The last vmap is the outermost: it takes the last axis.
        t_axis = axis - 1 if jnp.ndim(t) > 0 else None
        single = jax.vmap(single, in_axes=(t_axis, axis), out_axes=-1)
    return single(t, y)
