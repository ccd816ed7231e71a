"""The largest value of a vmapped batch, for loops that run until its last member has finished."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


@jax.custom_batching.custom_vmap
def largest_of_batch(x: Array) -> Array:
    """The largest value over all members of a vmapped batch; without a batch, the value itself.

    If the condition of a while loop differs between members, every iteration copies all that the
    loop carries, long buffers too. With a condition on the largest value an iteration writes only
    what it sets; the loop's body must then leave members that have finished as they are.
    """
    return x


@largest_of_batch.def_vmap
def _(axis_size: int, in_batched: list[bool], x: Array) -> tuple[Array, bool]:
    del axis_size
    return largest_of_batch(jnp.max(x, axis=0) if in_batched[0] else x), False
