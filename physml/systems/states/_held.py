"""A system that holds what its right-hand side reads from outside."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.batch import over_batch
from physml._numerics.calls import holding
from physml.systems._base import System, Time
from physml.systems.states._wrapped import Wrapped


class Held(Wrapped):
    """A system whose traced numbers from outside are leaves, as parameters are.

    So derivatives in them and batches of them reach it wherever it is solved.
    """

    rates: Callable

    @classmethod
    def of(
        cls,
        system: System,
        t: Array | jax.ShapeDtypeStruct,
        y: Float[Array, " dim"],
        args: PyTree,
    ) -> "Held":
        """The system for times, states and arguments like these."""
        return cls(system, holding(lambda t, y, args: system(t, y, args), t, y, args))

    def vector_field(self, t: Time, y: Float[Array, "dim *batch"], args: PyTree) -> Array:
        return over_batch(lambda t, y: self.rates(t, y, args), t, y)

    def divergence(
        self, t: Time, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """The trace of the Jacobian by forward-mode differentiation."""

        def trace(t: Array, y: Array) -> Array:
            return jnp.trace(jax.jacfwd(self.rates, argnums=1)(t, y, args))

        return over_batch(trace, t, y)

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return self.system.jump_times(t0, t1)
