"""The largest and the smallest of many numbers, where one that is NaN must not be lost."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def max_of(
    x: Float[Array, "..."], axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False
) -> Float[Array, "..."]:
    """The largest numbers along axes, NaN where one of them is.

    On CPUs XLA compiles `jnp.max` of some thousand numbers to instructions that forget a NaN, and
    with it what was largest before (openxla/xla issue 21461): a solution that is lost would look as
    one without error.
    """
    lost = jnp.any(jnp.isnan(x), axis, keepdims=keepdims)
    return jnp.where(lost, jnp.nan, jnp.max(x, axis, keepdims=keepdims))  # noqa: TID251


def min_of(
    x: Float[Array, "..."], axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False
) -> Float[Array, "..."]:
    """The smallest numbers along axes, NaN where one of them is; see `max_of`."""
    return -max_of(-x, axis, keepdims=keepdims)
