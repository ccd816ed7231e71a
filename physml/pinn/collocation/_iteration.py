"""Fixed-point iterations, and the tolerance that says when a solution is good enough."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

_MOST_STEPS = 60  # more would cost as much as a factorisation


class Tolerance(NamedTuple):
    """The relative and the absolute tolerance."""

    rtol: Float[Array, ""]
    atol: Float[Array, ""]

    def of(self, u: Float[Array, "dim *points"]) -> Float[Array, " dim"]:
        """The error allowed in each component of a function with values u: atol + rtol max |u|."""
        return self.atol + self.rtol * jnp.max(jnp.abs(u), axis=tuple(range(1, u.ndim)))


def iterate(
    step: Callable[[Array], tuple[Array, Float[Array, ""]]],
    start: Array,
    *,
    enough: Float[ArrayLike, ""],
    limit: Float[ArrayLike, ""],
    polish: bool = False,
) -> tuple[Array, Float[Array, ""], Int[Array, ""]]:
    """Fixed-point (Picard) iterations: the last iterate, the size of its step, and their number.

    They end once a step's size is at most `enough`; they are given up after 60 steps, or after one
    whose size is `limit` or more.

    Args:
        step: the next iterate, and the size of the step to it.
        start: the first iterate.
        enough: the size of a step that is small enough.
        limit: the size of a step that shows divergence.
        polish: go on below `enough` for as long as a step is 0.7 times the one before, or less.
    """
    most = jnp.asarray(jnp.finfo(start.dtype).max, start.dtype)

    def unfinished(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, size, before, count = carry
        goes_on = (size > enough) | (size < 0.7 * before) if polish else size > enough
        return goes_on & (count < _MOST_STEPS) & ((size < limit) | (count == 0))

    def advance(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, size, _, count = carry
        return *step(x), size, count + 1

    x, size, _, count = jax.lax.while_loop(unfinished, advance, (start, most, most, jnp.asarray(0)))
    return x, size, count
