"""Which piece of an interval a point is in."""

from typing import Any

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
    return jnp.maximum(jnp.searchsorted(starts, t, side="right") - 1, 0)
