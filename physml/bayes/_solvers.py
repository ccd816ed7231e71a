"""The linear algebra of Gaussian processes: exact, by inducing points, for time series."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Int

from physml.bayes._kernels import AnyKernel, gram, variances

_ROUNDING = 4.0  # of a Cholesky factor, in epsilons times the trace of the matrix


class Exact(eqx.Module):
    r"""The exact solver, by a Cholesky factor: for up to a few thousand rows.

    The log marginal likelihood of y (Rasmussen and Williams, eq. 2.30) is

    $$-\tfrac12 y^\top K^{-1} y - \tfrac12 \log |K| - \tfrac n2 \log 2\pi,$$

    with K the kernel's matrix plus the noise. $4 \epsilon \operatorname{tr} K$ is added to the
    diagonal, the size of the factor's rounding, so that data without noise can be fitted.
    """

    def prepare(self, kernel: AnyKernel, x: Float[Array, "rows inputs"]) -> "Exact":
        return self

    def log_likelihood(
        self,
        kernel: AnyKernel,
        noise: Float[Array, " rows"],
        x: Float[Array, "rows inputs"],
        y: Float[Array, "rows outputs"],
    ) -> Float[Array, ""]:
        """The log marginal likelihood of all outputs together; the noise is a variance."""
        return gaussian_log_density(_covariance(kernel, noise, x), y)

    def condition(
        self,
        kernel: AnyKernel,
        noise: Float[Array, " rows"],
        x: Float[Array, "rows inputs"],
        y: Float[Array, "rows outputs"],
    ) -> "ExactPosterior":
        """What is known of the function once y has been seen."""
        factor = jnp.linalg.cholesky(_covariance(kernel, noise, x))
        return ExactPosterior(kernel, x, factor, cho_solve((factor, True), y))


class ExactPosterior(eqx.Module):
    """A Gaussian process given its values, with noise, at rows.

    Attributes:
        kernel: of the process before.
        x: the rows' inputs.
        factor: the lower Cholesky factor of the covariance of the rows' values.
        weights: that covariance's inverse times the values.
    """

    kernel: AnyKernel
    x: Float[Array, "rows inputs"]
    factor: Float[Array, "rows rows"]
    weights: Float[Array, "rows outputs"]

    def mean(self, points: Float[Array, "points inputs"]) -> Float[Array, "points outputs"]:
        return gram(self.kernel, points, self.x) @ self.weights

    def variance(self, points: Float[Array, "points inputs"]) -> Float[Array, " points"]:
        known = solve_triangular(self.factor, gram(self.kernel, self.x, points), lower=True)
        return jnp.maximum(variances(self.kernel, points) - jnp.sum(known**2, axis=0), 0.0)

    def covariance(self, points: Float[Array, "points inputs"]) -> Float[Array, "points points"]:
        known = solve_triangular(self.factor, gram(self.kernel, self.x, points), lower=True)
        return gram(self.kernel, points, points) - known.T @ known


@jax.custom_jvp
def gaussian_log_density(
    covariance: Float[Array, "rows rows"], y: Float[Array, "rows outputs"]
) -> Float[Array, ""]:
    """The log density of columns that are normal with mean zero and this covariance.

    It is NaN where the covariance is not positive definite. The derivative is Rasmussen and
    Williams' eq. 5.9, which needs half the time of differentiating the Cholesky factorisation.
    """
    return _log_density(jnp.linalg.cholesky(covariance), y)[0]


@gaussian_log_density.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (covariance, y), (change, y_change) = primals, tangents
    factor = jnp.linalg.cholesky(covariance)
    value, weights = _log_density(factor, y)
    inverse = cho_solve((factor, True), jnp.eye(len(y), dtype=y.dtype))
    slope = 0.5 * (weights @ weights.T - y.shape[1] * inverse)
    return value, jnp.sum(slope * change) - jnp.sum(weights * y_change)


def _log_density(factor: Array, y: Array) -> tuple[Array, Array]:
    weights = cho_solve((factor, True), y)
    halves = jnp.sum(jnp.log(jnp.diag(factor))) + 0.5 * len(y) * np.log(2 * np.pi)
    return -0.5 * jnp.sum(y * weights) - y.shape[1] * halves, weights


def _covariance(kernel: AnyKernel, noise: Array, x: Array) -> Array:
    covariance = gram(kernel, x, x)
    return covariance + jnp.diag(noise + rounding(covariance))


def rounding(covariance: Float[Array, "rows rows"]) -> Float[Array, ""]:
    """The variance that the rounding of a Cholesky factorisation amounts to."""
    return _ROUNDING * jnp.finfo(covariance.dtype).eps * jnp.trace(covariance)


@functools.partial(jax.jit, static_argnums=1)
def far_apart(points: Float[Array, "rows inputs"], num: int) -> Int[Array, " num"]:
    """Rows that lie far apart: each the farthest from those before, the first from the centre.

    Source: T. F. Gonzalez, Theor. Comput. Sci. 38 (1985) 293.
    """

    def squares(centre: Array) -> Array:
        return jnp.sum((points - centre[None]) ** 2, axis=1)

    def add(nearest: Array, _: None) -> tuple[Array, Array]:
        row = jnp.argmax(nearest)
        return jnp.minimum(nearest, squares(points[row])), row

    first = jnp.argmax(squares(jnp.mean(points, axis=0)))
    _, rows = jax.lax.scan(add, squares(points[first]), length=num - 1)
    return jnp.concatenate([first[None], rows])
