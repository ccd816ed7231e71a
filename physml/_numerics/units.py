"""Numbers of components that each have a unit of their own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

ROUNDINGS = 32.0  # at most so many of them spoil a right-hand side


def in_units(
    change: Float[Array, "*shape"], unit: Float[Array, "*shape"], otherwise: Float[ArrayLike, ""]
) -> Float[Array, "*shape"]:
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
    # What is multiplied and divided by them does not depend on them.
    size = jax.lax.stop_gradient(jnp.where(size > 0, size, rates))
    usable = (size > 0) & jnp.isfinite(size)
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(jnp.where(usable, size, 1.0))[1])


def rounding(
    field: Callable[[Array, Array], Array],
    times: Float[Array, "*batch"],
    u: Float[Array, "inputs *batch"],
) -> Float[Array, " dim"]:
    r"""How far rounding spoils f(t, u), at most: by how much f changes with the last digits of u.

    That is about $\epsilon \sum_j |\partial f_i / \partial u_j| \max |u_j|$, and what f itself
    rounds. Where large terms cancel it exceeds f, and no fit makes the residual smaller.
    """
    return ROUNDINGS / 4 * response(field, times, u, 4 * jnp.finfo(u.dtype).eps)


def response(
    field: Callable[[Array, Array], Array],
    times: Float[Array, "*batch"],
    u: Float[Array, "inputs *batch"],
    share: Float[ArrayLike, ""],
) -> Float[Array, " dim"]:
    """The largest change of f(t, u) if each input changes by a share of its size, up or down."""
    change = jnp.abs(responses(field, times, u, share))
    return jnp.max(change, axis=tuple(range(1, u.ndim)))


def responses(
    field: Callable[[Array, Array], Array],
    times: Float[Array, "*batch"],
    u: Float[Array, "inputs *batch"],
    share: Float[ArrayLike, ""],
) -> Float[Array, "dim *batch"]:
    """The change of f(t, u) if each input changes by a share of its size, up or down."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], u.shape)
    size = jnp.max(jnp.abs(u), axis=tuple(range(1, u.ndim)), keepdims=True)
    step = share * size * jnp.asarray(signs, u.dtype)
    change = field(times, u + step) - field(times, u)
    return jnp.where(jnp.isfinite(change), change, 0.0)
