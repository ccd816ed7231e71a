"""The root of a function of a vector, whatever the units of its components."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physml._numerics.units import in_units, max_of, min_of, rounding

_MOST_STEPS, _MOST_HALVINGS = 50, 10
_LOOKS = 2  # at the function, to see what rounding leaves of it


class _State(NamedTuple):
    """Where Newton's method stands."""

    a: Float[Array, " dim"]
    done: Bool[Array, ""]
    regular: Bool[Array, ""]
    count: Int[Array, ""]


def solve_for(
    function: Callable[[Array], Array], start: Float[Array, " dim"]
) -> tuple[Float[Array, " dim"], Bool[Array, ""], Bool[Array, ""]]:
    """A root of a function, with derivatives of all orders in what the function depends on.

    Newton's method with the damping of the natural monotonicity test, which no change of the units
    of the arguments or of the values touches.

    Returns:
        The root, NaN where none was found; whether one was found; and whether the derivative was
        regular at the last step.

    Source: P. Deuflhard, Newton Methods for Nonlinear Problems (Springer 2011), section 3.3.
    """

    def find(function: Callable, start: Array) -> tuple[Array, tuple[Array, Array]]:
        begun = _State(start, jnp.asarray(False), jnp.asarray(True), jnp.asarray(0))
        going = lambda s: ~s.done & s.regular & (s.count < _MOST_STEPS)  # noqa: E731
        last = jax.lax.while_loop(going, lambda s: _step(function, s), begun)
        # A last step outside of the loop, where double-double arithmetic sees it.
        a = last.a - jnp.linalg.solve(jax.jacfwd(function)(last.a), function(last.a))
        found = last.done & last.regular & jnp.all(jnp.isfinite(a))
        # As numbers, because older versions of JAX have no derivative of what else comes out.
        said = found.astype(a.dtype), last.regular.astype(a.dtype)
        return jnp.where(found, a, jnp.nan), said

    def solve_linear(linear: Callable, known: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(known)), known)

    root, (found, regular) = jax.lax.custom_root(
        function, jax.lax.stop_gradient(start), find, solve_linear, has_aux=True
    )
    return root, found > 0, regular > 0


def _step(function: Callable[[Array], Array], state: _State) -> _State:
    a = state.a
    value, jacobian = function(a), jax.jacfwd(function)(a)
    looked = jnp.repeat(a[:, None], _LOOKS, axis=1)
    times = jnp.zeros(_LOOKS, a.dtype)
    noise = rounding(lambda _, u: jax.vmap(function, 1, 1)(u), times, looked)
    step, unsure = jnp.linalg.solve(jacobian, jnp.stack([-value, noise], axis=1)).T
    unit = jnp.maximum(jnp.abs(a), jnp.abs(step))
    size = max_of(in_units(jnp.abs(step), unit, 0.0))

    def is_too_far(share: Array) -> Array:
        left = jnp.linalg.solve(jacobian, function(a + share * step))
        following = max_of(in_units(jnp.abs(left), unit, jnp.inf))
        return ~(following <= (1 - share / 4) * size)

    def halve(tried: tuple[Array, Array]) -> tuple[Array, Array]:
        return tried[0] / 2, tried[1] + 1

    going = lambda tried: is_too_far(tried[0]) & (tried[1] < _MOST_HALVINGS)  # noqa: E731
    share, _ = jax.lax.while_loop(going, halve, (jnp.ones_like(size), jnp.asarray(0)))
    after = a + share * step
    eps = jnp.finfo(a.dtype).eps
    # The next step, at the end, squares what is missing.
    close = jnp.sqrt(eps) * jnp.abs(after) + 8 * jnp.abs(unsure)
    small = jnp.all(jnp.abs(step) <= close)
    after = jnp.where(small, a + step, after)
    regular = _is_regular(jacobian) & jnp.all(jnp.isfinite(step))
    return _State(after, small, regular, state.count + 1)


def _is_regular(matrix: Float[Array, "dim dim"]) -> Bool[Array, ""]:
    """Whether a matrix is regular beyond rounding, once its rows and columns have one unit."""

    def scaled(matrix: Array, axis: int) -> Array:
        size = max_of(jnp.abs(matrix), axis=axis, keepdims=True)
        return matrix / jnp.where(size > 0, size, 1.0)

    triangles, _, _ = jax.lax.linalg.lu(scaled(scaled(matrix, 1), 0))
    least = min_of(jnp.abs(jnp.diagonal(triangles)))
    return least > 16 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps
