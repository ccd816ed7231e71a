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
    low, high = jnp.zeros_like(t, int), jnp.full_like(t, last, int)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high + 1) // 2
        later = starts[middle] <= t
        return jnp.where(later, middle, low), jnp.where(later, high, middle - 1)

    # By hand: `jnp.searchsorted` takes four times as long to compile.
    return jax.lax.fori_loop(0, last.bit_length(), halve, (low, high))[0]
