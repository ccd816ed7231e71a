"""How the error passes a jump of the right-hand side that depends on the state.

Such a jump lies in a window of its own, a very short one (see `_acceptance`). An error c of the
state moves the time of the jump by some tau, and changes the state behind it by tau times the jump
of f. The derivative of f does not know that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from physml._numerics.units import max_of, min_of
from physml.pinn.collocation import VectorField

_ROUNDS, _POINTS = 7, 48


class Jump(NamedTuple):
    """A jump of f in a window.

    Attributes:
        there: whether there is one; without one the rest means nothing.
        start, span: of the window.
        reach: how far from the window's start the jump of a neighbouring solution is looked for.
        before, after: f at the window's first and last Gauss point.
    """

    there: Bool[Array, ""]
    start: Float[Array, ""]
    span: Float[Array, ""]
    reach: Float[Array, ""]
    before: Float[Array, " dim"]
    after: Float[Array, " dim"]

    @property
    def unresolved(self) -> Float[Array, " dim"]:
        """What the time of the jump, known to rounding, leaves open in the state behind it."""
        eps = jnp.finfo(self.span.dtype).eps
        late = self.span / 16 + 8 * eps * jnp.abs(self.start)
        return jnp.abs(self.after - self.before) * late


def jump_in(
    start: Float[Array, ""],
    end: Float[Array, ""],
    beside: Float[Array, ""],
    rates: Float[Array, "dim points"],
) -> Jump:
    """The jump in a window, if f changes between two neighbouring points and hardly elsewhere.

    It is one only in a window much shorter than the longer one of its neighbours, `beside`. f is
    not asked at the window's ends: a declared jump there belongs to another window.
    """
    steps = max_of(jnp.abs(jnp.diff(rates, axis=1)), axis=1)
    change = max_of(rates, axis=1) - min_of(rates, axis=1)
    enough = 1e-6 * max_of(jnp.abs(rates), axis=1)
    there = jnp.any((steps > 0.3 * change) & (change > enough)) & (end - start < 1e-3 * beside)
    return Jump(there, start, end - start, beside / 4, rates[:, 0], rates[:, -1])


def change_across(
    field: VectorField, jump: Jump, state: Float[Array, " dim"]
) -> Float[Array, " dim"]:
    """How a solution that starts in `state` changes over the window of a jump.

    Its own jump may lie before or behind the window. It is found by evaluating f along a straight
    line in ever smaller intervals; if there is none in reach, the change is infinite.
    """
    difference = jump.after - jump.before
    size = jnp.maximum(jnp.abs(jump.before), jnp.abs(jump.after))
    most = jnp.argmax(jnp.abs(difference) / jnp.where(size > 0, size, 1.0))
    powers = jnp.exp2(-jnp.arange(_POINTS - 1, -1, -1.0, dtype=state.dtype))
    evenly = jnp.arange(1, _POINTS + 1, dtype=state.dtype) / _POINTS

    def is_after(delays: Array) -> Array:
        line = state[:, None] + jnp.outer(jump.before, delays)
        rates = field(jump.start + delays, line)[most]
        return (rates - jump.before[most]) / difference[most] > 0.5

    already = is_after(jnp.zeros_like(powers))[0]
    direction = jnp.where(already, -1.0, 1.0)

    def closer(turn: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        delays = low + (high - low) * jnp.where(turn == 0, powers, evenly)
        flipped = is_after(direction * delays) != already
        first = jnp.argmax(flipped)
        above = jnp.where(jnp.any(flipped), delays[first], jnp.inf)
        return jnp.where(first > 0, delays[jnp.maximum(first - 1, 0)], low), above

    turns = jnp.where(jump.there, _ROUNDS, 0)
    none = jnp.zeros_like(jump.span)
    _, delay = jax.lax.fori_loop(0, turns, closer, (none, jump.reach))
    return jump.before * jump.span + difference * (jump.span - direction * delay)
