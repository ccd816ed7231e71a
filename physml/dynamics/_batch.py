"""Trajectories with leading axes: checked, and gathered into one axis."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike

from physml._numerics.checks import floating_array, require_finite


def time_series(name: str, values: Array) -> Array:
    """Values as an array (*batch, time, dim) that is not empty."""
    values = floating_array(name, values)
    if values.ndim < 2 or values.size == 0:
        raise ValueError(
            f"{name} must have shape (*batch, time, dim), not empty, got {values.shape}"
        )
    return values


def flatten(
    history: Array, t0: ArrayLike, name: str = "history"
) -> tuple[Array, Array, tuple[int, ...]]:
    """Trajectories and their times with one leading axis, and the axes that were gathered in it."""
    history = time_series(name, history)
    require_finite(name, history)
    *batch, time, dim = history.shape
    t0s = per_item("t0", t0, tuple(batch), history.dtype)
    return history.reshape(-1, time, dim), t0s.reshape(-1), tuple(batch)


def per_item(name: str, value: ArrayLike, batch: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A scalar or one value for each item of the batch, as an array of the batch's shape."""
    shape = np.shape(value)
    if shape not in ((), batch):
        raise ValueError(f"{name} must be a scalar or have shape {batch}, got shape {shape}")
    if name == "t0":
        require_finite(name, value)
    return jnp.broadcast_to(jnp.asarray(value, dtype), batch)
