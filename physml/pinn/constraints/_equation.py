"""An implicit system at points of time, and its derivatives."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from physml._numerics.compiled import constant, watched
from physml.systems import ImplicitSystem


class Derivatives(NamedTuple):
    """What the equations miss, F(t, y, y'), and its derivatives in t, y and y'."""

    missed: Float[np.ndarray, " dim"]
    by_time: Float[np.ndarray, " dim"]
    by_state: Float[np.ndarray, "dim dim"]
    by_rate: Float[np.ndarray, "dim dim"]


class Equation(eqx.Module):
    """F(t, y, y') = 0 with its arguments."""

    system: ImplicitSystem
    args: PyTree

    def single(self, t: Array, y: Array, dy: Array) -> Float[Array, " dim"]:
        """F at one time."""
        return self.system(t, y, dy, self.args)

    def missed(
        self, times: Float[Array, " points"], y: Float[Array, "dim points"], dy: Array
    ) -> Float[Array, "dim points"]:
        """F at many times."""
        return jax.vmap(self.single, in_axes=(0, 1, 1), out_axes=1)(times, y, dy)

    def linearised(
        self, times: Float[Array, " points"], y: Float[Array, "dim points"], dy: Array
    ) -> tuple[Array, Float[Array, "points dim dim"], Float[Array, "points dim dim"]]:
        """F at many times, and its derivatives in y and in y'."""

        def at(t: Array, y: Array, dy: Array) -> tuple[Array, Array, Array]:
            missed, tangent = jax.linearize(lambda y, dy: self.single(t, y, dy), y, dy)
            identity, zero = jnp.eye(len(y), dtype=y.dtype), jnp.zeros_like(y)
            by_state = jax.vmap(lambda x: tangent(x, zero), out_axes=1)(identity)
            by_rate = jax.vmap(lambda x: tangent(zero, x), out_axes=1)(identity)
            return missed, by_state, by_rate

        missed, by_state, by_rate = jax.vmap(at, in_axes=(0, 1, 1))(times, y, dy)
        return missed.T, by_state, by_rate

    def derivatives(self, t: ArrayLike, y: np.ndarray, dy: np.ndarray) -> Derivatives:
        """F and its derivatives at one time, on the host."""
        given = constant(t, y.dtype), constant(y), constant(dy)
        return Derivatives(*map(np.asarray, _derivatives(self, *given)))


@watched
@eqx.filter_jit
def _derivatives(equation: Equation, t: Array, y: Array, dy: Array) -> tuple[Array, ...]:
    missed, by_state, by_rate = equation.linearised(t[None], y[:, None], dy[:, None])
    _, by_time = jax.jvp(lambda t: equation.single(t, y, dy), (t,), (jnp.ones_like(t),))
    return missed[:, 0], by_time, by_state[0], by_rate[0]
