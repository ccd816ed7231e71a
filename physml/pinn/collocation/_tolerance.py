"""When a solution is good enough: tolerances, and what rounding leaves of a right-hand side."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from physml.pinn.collocation._linearised import VectorField

ROUNDINGS = 32.0  # at most so many of them spoil a right-hand side


class Tolerance(NamedTuple):
    """The relative tolerance, and the absolute one that the user gave, if any.

    Nobody knows beforehand in which units a component is large or small. So without an absolute
    tolerance the relative one refers to the largest value that a component has had so far.
    """

    rtol: Float[Array, ""]
    atol: Float[Array, "*dim"] | None

    def of(
        self, u: Float[Array, "dim *points"], met: Float[Array, " dim"] | None = None
    ) -> Float[Array, " dim"]:
        """The error allowed in each component of a function with values u.

        Args:
            u: the values.
            met: the largest absolute value of each component before.
        """
        size = jnp.max(jnp.abs(u), axis=tuple(range(1, u.ndim)))
        if self.atol is not None:
            return self.atol + self.rtol * size
        return self.rtol * (size if met is None else jnp.maximum(size, met))

    def share(
        self, share: ArrayLike, scale: Float[Array, " dim"], noise: Float[Array, " dim"]
    ) -> Float[Array, " dim"]:
        """A share of each component's size, or all of it where the component is but rounding."""
        size = jnp.where(scale > noise, share * scale, noise)
        return size if self.atol is None else size + self.atol


def rounding(
    field: VectorField, times: Float[Array, " points"], u: Float[Array, "dim points"]
) -> Float[Array, " dim"]:
    r"""How far rounding spoils f(t, u), at most: by how much f changes with the last digits of u.

    That is about $\epsilon \sum_j |\partial f_i / \partial u_j| \max |u_j|$, and what f itself
    rounds. Where large terms cancel it exceeds f, and no fit makes the residual smaller.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], u.shape)
    size = jnp.max(jnp.abs(u), axis=1, keepdims=True)
    step = 4 * jnp.finfo(u.dtype).eps * size * jnp.asarray(signs, u.dtype)
    change = jnp.abs(field(times, u + step) - field(times, u))
    return ROUNDINGS / 4 * jnp.max(jnp.where(jnp.isfinite(change), change, 0.0), axis=1)
