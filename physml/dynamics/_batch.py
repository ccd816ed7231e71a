"""Leading axes gathered into one, and the checks on what comes in."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike

from physml._numerics.checks import floating_array, is_concrete, require_finite


def flatten(
    history: Array, t0: ArrayLike, name: str = "history"
) -> tuple[Array, Array, tuple[int, ...]]:
    """Gather the leading axes of trajectories and their times into one; the axes come third."""
    history = floating_array(name, history)
    if history.ndim < 2 or history.size == 0:
        raise ValueError(
            f"{name} must have shape (*batch, time, dim), not empty; got {history.shape}"
        )
    require_finite(name, history)
    *batch, time, dim = history.shape
    t0s = per_item("t0", t0, tuple(batch), history.dtype)
    return history.reshape(-1, time, dim), t0s.reshape(-1), tuple(batch)


def per_item(name: str, value: ArrayLike, batch: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A scalar or one value for each item of the batch, as an array of the batch's shape."""
    shape = np.shape(value)
    if shape not in ((), batch):
        raise ValueError(f"{name} must be a scalar or of shape {batch}; got shape {shape}")
    return jnp.broadcast_to(jnp.asarray(value, dtype), batch)


def as_scale(scale: Array, dim: int) -> Array:
    """A positive scale for each component, as an array."""
    scale = floating_array("scale", scale)
    if scale.shape != (dim,):
        raise ValueError(f"scale must have shape ({dim},); got {scale.shape}")
    if is_concrete(scale) and not (np.asarray(scale) > 0).all():
        raise ValueError(f"scale must be positive; got {scale}")
    return scale
