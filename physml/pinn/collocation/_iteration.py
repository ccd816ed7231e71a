"""Fixed-point iterations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

_MOST_STEPS = 60  # more would cost as much as a factorisation


def iterate(
    step: Callable[[PyTree[Array]], tuple[PyTree[Array], Float[Array, ""]]],
    start: PyTree[Array],
    *,
    enough: Float[ArrayLike, ""],
    limit: Float[ArrayLike, ""],
    spared: int = 1,
    polish: bool = False,
) -> tuple[PyTree[Array], Float[Array, ""], Int[Array, ""]]:
    """Fixed-point (Picard) iterations: the last iterate, the size of its step, and their number.

    They end once a step's size is at most `enough`; they are given up after 60 steps, or after one
    whose size is `limit` or more.

    Args:
        step: the next iterate, and the size of the step to it.
        start: the first iterate.
        enough: the size of a step that is small enough.
        limit: the size of a step that shows divergence.
        spared: the number of first steps that may be larger: at least one.
        polish: go on below `enough` for as long as a step is 0.7 times the one before, or less.
    """
    kind = jax.tree.leaves(start)[0].dtype
    most = jnp.asarray(jnp.finfo(kind).max, kind)

    def unfinished(carry: tuple[PyTree, Array, Array, Array]) -> Array:
        _, size, before, count = carry
        goes_on = (size > enough) | (size < 0.7 * before) if polish else size > enough
        return goes_on & (count < _MOST_STEPS) & ((size < limit) | (count < spared))

    def advance(carry: tuple[PyTree, Array, Array, Array]) -> tuple[PyTree, Array, Array, Array]:
        x, size, _, count = carry
        return *step(x), size, count + 1

    x, size, _, count = jax.lax.while_loop(unfinished, advance, (start, most, most, jnp.asarray(0)))
    return x, size, count
