"""Laplace's approximation of a Gaussian process behind classes: its mode, and what it predicts."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, sigmoid
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from physml._numerics.units import max_of

_NEWTON_STEPS = 100  # at most; ten are usual
_FRACTIONS = 0.5 ** np.arange(8)  # of a Newton step, of which the best is taken
_NODES = np.linspace(-9.0, 9.0, 361)  # of a standard normal variable


class Mode(NamedTuple):
    """Laplace's approximation of one process.

    Attributes:
        log_likelihood: the approximate log marginal likelihood.
        slope: the derivative of the log likelihood by f, at the mode.
        root: the square root of W, its second derivative negated.
        factor: the Cholesky factor of B = I + W^(1/2) K W^(1/2).
    """

    log_likelihood: Float[Array, ""]
    slope: Float[Array, " rows"]
    root: Float[Array, " rows"]
    factor: Float[Array, "rows rows"]


def laplace(covariance: Float[Array, "rows rows"], y: Float[Array, " rows"]) -> Mode:
    """The mode of f given signs y, by Newton's method (Rasmussen and Williams, algorithm 3.1)."""
    search = jax.lax.stop_gradient(covariance)
    tolerance = float(jnp.finfo(y.dtype).eps) ** 0.5

    def unfinished(state: tuple) -> Array:
        step, _, gain = state
        return (step < _NEWTON_STEPS) & (gain > tolerance)

    def advance(state: tuple) -> tuple:
        # f = K a, so that a fraction of a step needs no product of matrices.
        step, (f, a), _ = state
        f_full, a_full = _newton(search, y, f)
        parts = jnp.asarray(_FRACTIONS, y.dtype)[:, None]
        f_tried = f[None] + parts * (f_full - f)[None]
        a_tried = a[None] + parts * (a_full - a)[None]
        best = jnp.argmax(jax.vmap(lambda f, a: _log_joint(f, a, y))(f_tried, a_tried))
        return step + 1, (f_tried[best], a_tried[best]), max_of(jnp.abs(f_full - f))

    nothing = (jnp.zeros_like(y), jnp.zeros_like(y))
    first = (0, nothing, jnp.asarray(jnp.inf, y.dtype))
    _, (f, _), _ = jax.lax.while_loop(unfinished, advance, first)
    # Newton's step does not depend on f at the mode. So the derivative of one more step by the
    # covariance is that of the mode itself.
    f, a = _newton(covariance, y, f)
    root, factor = _factor(covariance, f)
    value = _log_joint(f, a, y) - jnp.sum(jnp.log(jnp.diag(factor)))
    return Mode(value, y * sigmoid(-y * f), root, factor)


def _newton(covariance: Array, y: Array, f: Array) -> tuple[Array, Array]:
    """Newton's step: f and a = K^-1 f where the log joint density, expanded at f, is largest."""
    root, factor = _factor(covariance, f)
    b = root**2 * f + y * sigmoid(-y * f)
    a = b - root * cho_solve((factor, True), root * (covariance @ b))
    return covariance @ a, a


def _factor(covariance: Array, f: Array) -> tuple[Array, Array]:
    root = jnp.sqrt(sigmoid(f) * sigmoid(-f))
    scaled = root[:, None] * covariance * root[None]
    return root, jnp.linalg.cholesky(jnp.eye(len(f), dtype=f.dtype) + scaled)


def _log_joint(f: Array, a: Array, y: Array) -> Array:
    """The log density of f and y, up to a constant, with a = K^-1 f."""
    return jnp.sum(log_sigmoid(y * f)) - 0.5 * jnp.sum(a * f)


def averaged_sigmoid(
    mean: Float[Array, " points"], sd: Float[Array, " points"]
) -> Float[Array, " points"]:
    """The mean of the logistic function of normal variables, by the trapezoidal rule.

    The error is of the size exp(-2 pi^2 / (h sd)), with h the distance of the nodes: 3e-6 for a
    standard deviation of 30, rounding below 10.
    """
    nodes = jnp.asarray(_NODES, mean.dtype)
    weights = jnp.exp(-0.5 * nodes**2) * (_NODES[1] - _NODES[0]) / math.sqrt(2 * math.pi)
    return sigmoid(mean[:, None] + sd[:, None] * nodes[None]) @ weights
