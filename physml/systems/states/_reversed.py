"""A system that runs backwards in time, and when it does."""

from typing import SupportsFloat

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.checks import is_concrete
from physml.systems._base import System, Time
from physml.systems.states._wrapped import Wrapped


def is_backwards(t0: SupportsFloat, t1: SupportsFloat) -> bool:
    """Whether t1 is known to be earlier than t0."""
    if not (is_concrete(t0) and is_concrete(t1)):
        return False
    return bool(np.isfinite(float(t0)) and np.isfinite(float(t1)) and float(t1) < float(t0))


class Reversed(Wrapped):
    r"""The system of $v(\tau) = y(-\tau)$, $dv/d\tau = -f(-\tau, v)$, whose time grows.

    At a jump of f the value of f belongs to what follows it, which lies on the other side here: at
    the start, f is asked a rounding earlier.
    """

    start: Float[Array, ""] | None  # where f jumps at the start

    @classmethod
    def of(cls, system: System, t0: float) -> "Reversed":
        """The system backwards from the time t0."""
        jumps = not system.autonomous and len(system.jump_times(t0, t0))
        return cls(system, jnp.asarray(t0, float) if jumps else None)

    def _time(self, t: Time) -> Time:
        t = -jnp.asarray(t)
        if self.start is None:
            return t
        eps, start = jnp.finfo(t.dtype), self.start.astype(t.dtype)
        earlier = start - jnp.maximum(eps.eps * jnp.abs(start), eps.tiny)
        return jnp.where(t == start, earlier, t)

    def vector_field(self, t: Time, y: Float[Array, "dim *batch"], args: PyTree) -> Array:
        return -self.system.vector_field(self._time(t), y, args)

    def divergence(
        self, t: Time, y: Float[Array, "dim *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """That of the system, with the other sign."""
        return -self.system.divergence(self._time(t), y, args)

    def jump_times(self, t0: float | int, t1: float | int) -> np.ndarray:
        return -self.system.jump_times(-t1, -t0)[::-1]
