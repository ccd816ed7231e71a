"""The tolerances that say when a solution is good enough."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from physml._numerics.units import max_of


class Tolerance(NamedTuple):
    """The relative tolerance, and the absolute one that the user gave, if any.

    An absolute tolerance has the unit of the state, and so there is none by default. Then the
    relative one refers to what a component has been so far, too: it is met by one that starts at
    zero, crosses zero, or dies out.
    """

    rtol: Float[Array, ""]
    atol: Float[Array, "*dim"] | None

    @property
    def advice(self) -> str:
        """What a message says where a tolerance could not be met."""
        if self.atol is not None:
            return ""
        return (
            " Every component is resolved to rtol of its own size, however small it is; with "
            "atol=..., in the units of the state, errors below that size are allowed."
        )

    def of(
        self, u: Float[Array, "dim *points"], met: Float[Array, " dim"] | None = None
    ) -> Float[Array, " dim"]:
        """The error allowed in each component of a function with values u.

        Args:
            u: the values.
            met: the size that each component has had before.
        """
        size = max_of(jnp.abs(u), axis=tuple(range(1, u.ndim)))
        if self.atol is not None:
            return self.atol + self.rtol * size
        return self.rtol * (size if met is None else jnp.maximum(size, met))

    def share(
        self, share: ArrayLike, scale: Float[Array, " dim"], noise: Float[Array, " dim"]
    ) -> Float[Array, " dim"]:
        """A share of each component's size, or all of it where the component is but rounding."""
        size = jnp.where(scale > noise, share * scale, noise)
        return size if self.atol is None else size + self.atol
