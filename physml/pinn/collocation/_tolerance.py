"""When a solution is good enough: tolerances, and what rounding leaves of a right-hand side."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from physml.pinn.collocation._linearised import VectorField

ROUNDINGS = 32.0  # the error of a right-hand side, in units of that by one rounding of its input


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
    field: VectorField,
    times: Float[Array, " points"],
    u: Float[Array, "dim points"],
) -> Float[Array, " dim"]:
    r"""The error of f(t, u) by the rounding of u, largest over the points.

    It is about $\epsilon \sum_j |\partial f_i / \partial u_j| \max |u_j|$: a derivative in one
    direction whose signs differ from point to point. Where large terms cancel it exceeds f itself,
    and no fit can make a residual smaller.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], u.shape)
    size = jnp.max(jnp.abs(u), axis=1, keepdims=True)
    step = ROUNDINGS * jnp.finfo(u.dtype).eps * size * jnp.asarray(signs, u.dtype)
    _, change = jax.jvp(lambda u: field(times, u), (u,), (step,))
    return jnp.max(jnp.where(jnp.isfinite(change), jnp.abs(change), 0.0), axis=1)
