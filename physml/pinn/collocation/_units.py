"""Numbers of components that each have a unit of their own."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def in_units(
    change: Float[Array, " dim"], unit: Float[Array, " dim"], otherwise: Float[ArrayLike, ""]
) -> Float[Array, " dim"]:
    """Each change in its own unit: zero where nothing changes, `otherwise` where the unit is zero.

    Below the smallest normal number every unit counts as zero, and every change as none.
    """
    tiny = jnp.finfo(unit.dtype).tiny
    ratio = jnp.where(unit >= tiny, change / jnp.maximum(unit, tiny), otherwise)
    return jnp.where(change < tiny, 0.0, ratio)


def powers_of_two(size: Float[Array, " dim"], rates: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Units in which components are of size one: multiplying by them rounds nothing.

    A component that is zero is measured by what the others give it, if anything.
    """
    size = jnp.where(size > 0, size, rates)
    usable = (size > 0) & jnp.isfinite(size)
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(jnp.where(usable, size, 1.0))[1])
