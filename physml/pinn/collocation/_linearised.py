"""The equation linearised about a trajectory, in the integral form of Gauss collocation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

VectorField = Callable[[Array, Float[Array, "dim *batch"]], Float[Array, "dim *batch"]]
"""f(t, y), of one time or a time for each member of a trailing batch."""


def jacobian_at(
    field: VectorField, times: Array, u: Float[Array, "dim points"]
) -> Float[Array, "dim dim points"]:
    """$f_y$ at each of the points: the rate of its first axis in the state of its second."""
    _, tangent = jax.linearize(lambda u: field(times, u), u)
    directions = jnp.broadcast_to(jnp.eye(len(u), dtype=u.dtype)[:, :, None], (len(u), *u.shape))
    return jax.vmap(tangent, out_axes=1)(directions)


def propagate(
    jacobian: Float[Array, "dim dim points"],
    half: Array,
    integrals: Float[Array, "nodes points"],
    known: Float[Array, "dim nodes *columns"],
) -> Float[Array, "dim nodes *columns"]:
    r"""The c of $c_p = known_p + \tfrac h2 \sum_j W_{pj} f_y(t_j, u_j)\, c_j$, by LU.

    The nodes are the points and, after them, the end of the window.
    """
    dim, _, num_points = jacobian.shape
    matrix = half * jnp.einsum("pq,ijq->ipjq", integrals[:-1], jacobian)
    matrix = matrix.reshape(dim * num_points, dim * num_points)
    identity = jnp.eye(dim * num_points, dtype=known.dtype)
    inside = jnp.linalg.solve(identity - matrix, known[:, :-1].reshape(dim * num_points, -1))
    inside = inside.reshape(dim, num_points, *known.shape[2:])
    rates = jnp.einsum("ijq,jq...->iq...", jacobian, inside)
    last = known[:, -1] + half * jnp.einsum("q,iq...->i...", integrals[-1], rates)
    return jnp.concatenate([inside, last[:, None]], axis=1)
