"""Which piece of an interval a point lies in."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def piece_at(starts: Float[Array | np.ndarray, " pieces"], t: Float[ArrayLike, "*shape"]) -> Any:
    """The index of the last piece that starts at or before t; of the first, if none does.

    On the host for NumPy's arrays, elsewhere under any transformation. Starts of pieces that do
    not exist, in a buffer, are infinite.
    """
    if isinstance(starts, np.ndarray):
        return np.maximum(np.searchsorted(starts, t, side="right") - 1, 0)
    return jnp.maximum(jnp.searchsorted(starts, t, side="right") - 1, 0)
