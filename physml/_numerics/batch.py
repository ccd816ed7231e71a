"""What a loop that may be vmapped can know of its whole batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


@jax.custom_batching.custom_vmap
def largest_of_batch(x: Array) -> Array:
    """The largest of a value over all members of a vmapped batch; itself where there is none.

    A while loop whose condition differs between members selects all that it carries in every
    turn, long buffers too. With a condition on the largest no turn touches more than it sets:
    members that are through must then be kept as they are by the loop's body.
    """
    return x


@largest_of_batch.def_vmap
def _(axis_size: int, in_batched: list[bool], x: Array) -> tuple[Array, bool]:
    del axis_size
    return largest_of_batch(jnp.max(x, axis=0) if in_batched[0] else x), False
