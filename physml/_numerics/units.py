"""Sizes and changes of components, each of which has a unit of its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

ROUNDINGS = 32.0  # the rounding of f, in units of its change when u changes by one epsilon
_TRUSTED = 1e-2  # the largest relative error of a component that is looked at after a step


def max_of(
    x: Float[Array, "..."], axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False
) -> Float[Array, "..."]:
    """The largest numbers along axes, NaN where one of them is.

    On CPUs XLA hands `jnp.max` of 4096 numbers or more, those of a batch included, to a library
    that forgets a NaN, and with it what was largest before (openxla/xla issue 21461): a solution
    that is lost would look as one without error. A reduction by a function of our own compiles
    faster than these two, but XLA cannot reduce by it what is divided among devices.
    """
    lost = jnp.any(jnp.isnan(x), axis, keepdims=keepdims)
    return jnp.where(lost, jnp.nan, jnp.max(x, axis, keepdims=keepdims))  # noqa: TID251


def min_of(
    x: Float[Array, "..."], axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False
) -> Float[Array, "..."]:
    """The smallest numbers along axes, NaN where one of them is; see `max_of`."""
    return -max_of(-x, axis, keepdims=keepdims)


def in_units(
    change: Float[Array, "*shape"], unit: Float[Array, "*shape"], otherwise: Float[ArrayLike, ""]
) -> Float[Array, "*shape"]:
    """Each change in its own unit: zero where nothing changes, `otherwise` where the unit is zero.

    A change or a unit below the smallest normal number counts as zero.
    """
    tiny = jnp.finfo(unit.dtype).tiny
    ratio = jnp.where(unit >= tiny, change / jnp.maximum(unit, tiny), otherwise)
    return jnp.where(change < tiny, 0.0, ratio)


def powers_of_two(size: Float[Array, " dim"], rates: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Powers of two as units, in which each component is about 1; to multiply by them is exact.

    Where `size` is zero, the unit is of the size of `rates`; where that is zero too, the unit is 1.
    """
    # Results do not depend on the units, so derivatives leave them out.
    size = jax.lax.stop_gradient(jnp.where(size > 0, size, rates))
    usable = (size > 0) & jnp.isfinite(size)
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(jnp.where(usable, size, 1.0))[1])


def rounding(
    field: Callable[[Array, Array], Array],
    times: Float[Array, "*batch"],
    u: Float[Array, "inputs *batch"],
) -> Float[Array, " dim"]:
    r"""A bound of the rounding error of f(t, u): how much f changes with the last digits of u.

    It is a multiple of $\epsilon \sum_j |\partial f_i / \partial u_j| \max |u_j|$, large enough for
    the rounding inside f too. Where large terms cancel, this error is larger than f itself, and no
    fit can make the residual smaller.
    """
    return ROUNDINGS / 4 * response(field, times, u, 4 * jnp.finfo(u.dtype).eps)


def response(
    field: Callable[[Array, Array], Array],
    times: Float[Array, "*batch"],
    u: Float[Array, "inputs *batch"],
    share: Float[ArrayLike, ""],
) -> Float[Array, " dim"]:
    """The largest change of f(t, u) when each input changes by a share of its size, up or down."""
    change = jnp.abs(responses(field, times, u, share))
    return max_of(change, axis=tuple(range(1, u.ndim)))


def responses(
    field: Callable[[Array, Array], Array],
    times: Float[Array, "*batch"],
    u: Float[Array, "inputs *batch"],
    share: Float[ArrayLike, ""],
) -> Float[Array, "dim *batch"]:
    """The change of f(t, u) when each input changes by a share of its size, up or down."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], u.shape)
    size = max_of(jnp.abs(u), axis=tuple(range(1, u.ndim)), keepdims=True)
    step = share * size * jnp.asarray(signs, u.dtype)
    change = field(times, u + step) - field(times, u)
    return jnp.where(jnp.isfinite(change), change, 0.0)


def seen_on_the_way(
    start: Float[Array, "dim *batch"],
    end: Float[Array, "dim *batch"],
    error: Float[Array, "dim *batch"],
    looks: int,
) -> Float[Array, "dim looks *batch"]:
    """States between the two ends of a step, at which the rounding of f can be looked at.

    A component whose error is not small beside it stays where it was: a step that was rejected may
    have led anywhere.
    """
    trusted = jnp.abs(error) <= _TRUSTED * jnp.maximum(jnp.abs(start), jnp.abs(end))
    change = jnp.where(trusted, end - start, 0.0)
    shares = jnp.asarray(np.linspace(0.0, 1.0, looks), start.dtype)
    shares = shares.reshape(1, looks, *[1] * (start.ndim - 1))
    return start[:, None] + shares * change[:, None]
