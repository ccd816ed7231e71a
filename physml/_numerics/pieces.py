"""Which piece of an interval a point is in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def piece_at(starts: Float[Array | np.ndarray, " pieces"], t: Float[ArrayLike, "*shape"]) -> Any:
    """The index of the last piece that starts at or before t; of the first if none does.

    NumPy arrays are searched on the host, JAX arrays under any transformation. In a buffer, the
    starts of pieces that do not exist are infinite.
    """
    if isinstance(starts, np.ndarray):
        return np.maximum(np.searchsorted(starts, t, side="right") - 1, 0)
    last = starts.shape[0] - 1
    levels = last.bit_length()

    def advance(level: Array, piece: Array) -> Array:
        ahead = jnp.minimum(piece + (1 << (levels - 1 - level)), last)
        return jnp.where(starts[ahead] <= t, ahead, piece)

    # By hand: `jnp.searchsorted` takes far longer to compile.
    return jax.lax.fori_loop(0, levels, advance, jnp.zeros_like(t, int))
