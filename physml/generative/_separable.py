"""Least squares in which a linear layer follows what comes before it (variable projection)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def unexplained(
    features: Float[Array, "rows terms"], targets: Float[Array, "rows outputs"], damping: float
) -> Float[Array, "more outputs"]:
    r"""What the best weights leave of the targets: $T - F W$ and $\mu W$, for the least of both.

    The derivative is Kaufman's: that of F and T with the weights as they are, projected on what the
    features do not reach. It costs no derivative of a decomposition, and is exact where nothing is
    left. Columns of F that are zero get no weight.

    Source: L. Kaufman, "A variable projection method for solving separable nonlinear least squares
    problems", BIT 15 (1975).
    """
    rows, terms = features.shape
    here = jax.lax.stop_gradient(features)
    damped = damping * jnp.sqrt(float(rows)) * jnp.eye(terms, dtype=features.dtype)
    q, triangle = jnp.linalg.qr(jnp.concatenate([here, damped]))
    q, triangle = jax.lax.stop_gradient((q, triangle))
    below = jnp.zeros((terms, targets.shape[1]), targets.dtype)
    targets = jnp.concatenate([targets, below])
    weights = jax.scipy.linalg.solve_triangular(triangle, q.T @ jax.lax.stop_gradient(targets))
    left = targets - jnp.concatenate([(features - here) @ weights, below])
    return left - q @ (q.T @ left)


def distant_rows(rows: Float[np.ndarray, "rows dim"], num: int) -> np.ndarray:
    """The numbers of `num` rows, each as far as can be from those before it.

    They cover the data's extent evenly, the rare parts too.
    """
    num = min(num, len(rows))
    found = [int(np.argmax((rows**2).sum(axis=1)))]
    nearest = np.full(len(rows), np.inf)
    while len(found) < num:
        nearest = np.minimum(nearest, ((rows - rows[found[-1]]) ** 2).sum(axis=1))
        found.append(int(np.argmax(nearest)))
    return np.asarray(found)
