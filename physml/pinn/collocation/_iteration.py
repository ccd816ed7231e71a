"""Fixed-point iterations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

_MOST_STEPS = 60  # more would cost as much as a factorisation
_MEMORY = 12  # steps that `accelerate` combines


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


def accelerate(
    step: Callable[[Array], tuple[Array, Float[Array, ""]]],
    start: Float[Array, "dim terms"],
    weights: Float[Array, " dim"],
    *,
    enough: Float[ArrayLike, ""],
    limit: Float[ArrayLike, ""],
) -> tuple[Array, Float[Array, ""], Int[Array, ""]]:
    r"""`iterate` with Anderson's acceleration, for steps that hardly contract or do not at all.

    The next iterate is the step from that combination of the last ones whose step is smallest. For
    a linear equation it is what GMRES finds, without the products of GMRES with the matrix. Below
    `enough` the iterations go on for as long as a step is 0.7 times the one before, or less.

    Args:
        step, start, enough, limit: as for `iterate`.
        weights: the components' weights in the size of a step: one over what matters in each.

    Source: H. F. Walker, P. Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer.
    Anal. 49 (2011) 1715.
    """
    most = jnp.asarray(jnp.finfo(start.dtype).max, start.dtype)
    history = jnp.zeros((_MEMORY, *start.shape), start.dtype)
    tiny = 64 * jnp.finfo(start.dtype).eps

    def unfinished(carry: tuple) -> Array:
        _, size, before, count, *_ = carry
        goes_on = (size > enough) | (size < 0.7 * before)
        return goes_on & (count < _MOST_STEPS) & ((size < limit) | (count == 0))

    def advance(carry: tuple) -> tuple:
        x, before, _, count, last_x, last_change, iterates, changes = carry
        new, size = step(x)
        change = new - x
        row = jnp.where(count > 0, (count - 1) % _MEMORY, _MEMORY)  # out of bounds: nothing is set
        iterates = iterates.at[row].set(x - last_x)
        changes = changes.at[row].set(change - last_change)
        # Columns of length one: the first differences are larger than the last by many orders.
        columns = (weights[None, :, None] * changes).reshape(_MEMORY, -1)
        length = jnp.linalg.norm(columns, axis=1)
        length = jnp.where(length > 0, length, 1.0)
        columns = columns / length[:, None]
        gram = columns @ columns.T
        used = jnp.diagonal(gram) > 0
        gram = gram + jnp.diag(jnp.where(used, tiny, 1.0))
        shares = jnp.linalg.solve(gram, columns @ (weights[:, None] * change).ravel()) / length
        mixed = new - jnp.tensordot(shares, iterates + changes, 1)
        return mixed, size, before, count + 1, x, change, iterates, changes

    zero = jnp.zeros_like(start)
    begin = start, most, most, jnp.asarray(0), zero, zero, history, history
    x, size, _, count, *_ = jax.lax.while_loop(unfinished, advance, begin)
    return x, size, count
