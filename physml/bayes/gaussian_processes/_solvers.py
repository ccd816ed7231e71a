"""The linear algebra of Gaussian processes: exact, and by inducing points for many rows."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Int

from physml._numerics.checks import require_count
from physml.bayes.gaussian_processes._kernels import AnyKernel, gram, require_points, variances

_REFINEMENTS = 10
_ROUNDING = 2.0  # of a Cholesky factor, in epsilons times the trace of the matrix


class Exact(eqx.Module):
    r"""The exact solver, by a Cholesky factor: for up to a few thousand rows.

    The log marginal likelihood of y (Rasmussen and Williams, eq. 2.30) is

    $$-\tfrac12 y^\top K^{-1} y - \tfrac12 \log |K| - \tfrac n2 \log 2\pi,$$

    with K the kernel's matrix plus the noise. $2 \epsilon \operatorname{tr} K$ is added to the
    diagonal, the size of the factor's rounding, so that data without noise can be fitted; iterative
    refinement takes it out of the mean again.
    """

    def prepare(self, kernel: AnyKernel, x: Float[Array, "rows inputs"]) -> "Exact":
        """This solver; raises ValueError if the kernel does not fit the inputs."""
        require_points(kernel, x)
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
        covariance = gram(kernel, x, x) + jnp.diag(noise)
        tiny = rounding(covariance) * jnp.eye(len(x), dtype=x.dtype)
        factor = jnp.linalg.cholesky(covariance + tiny)
        weights = jax.lax.fori_loop(
            0,
            _REFINEMENTS,
            lambda _, w: w + cho_solve((factor, True), y - covariance @ w),
            cho_solve((factor, True), y),
        )
        return ExactPosterior(kernel, x, factor, weights)


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
    halves = jnp.sum(jnp.log(jnp.diag(factor))) + 0.5 * len(y) * math.log(2 * math.pi)
    return -0.5 * jnp.sum(y * weights) - y.shape[1] * halves, weights


def _covariance(kernel: AnyKernel, noise: Array, x: Array) -> Array:
    covariance = gram(kernel, x, x)
    return covariance + jnp.diag(noise + rounding(covariance))


def rounding(covariance: Float[Array, "rows rows"]) -> Float[Array, ""]:
    """The variance that the rounding of a Cholesky factorisation amounts to."""
    return _ROUNDING * jnp.finfo(covariance.dtype).eps * jnp.trace(covariance)


class Inducing(eqx.Module):
    r"""The solver for many rows: what the rows say is kept at `num` of their inputs, far apart.

    Its likelihood is Titsias' lower bound of the log marginal likelihood,

    $$\log \mathcal N(y \mid 0, Q + D) - \tfrac12 \operatorname{tr} D^{-1}(K - Q),
    \qquad Q = K_{nm} K_{mm}^{-1} K_{mn},$$

    with the noise D. It needs n m² operations, and is exact where all inputs are kept.

    Attributes:
        num: how many inputs are kept, at most.
        points: the inputs that are kept, (num, inputs); None before the rows are known.

    Source: M. K. Titsias, Variational learning of inducing variables in sparse Gaussian processes,
    AISTATS 2009, eq. 9.
    """

    num: int = eqx.field(static=True)
    points: Float[Array, "num inputs"] | None = None

    def __check_init__(self) -> None:
        require_count(num=self.num)

    def prepare(self, kernel: AnyKernel, x: Float[Array, "rows inputs"]) -> "Inducing":
        """The solver with its points; raises ValueError if the kernel does not fit the inputs."""
        require_points(kernel, x)
        kept = far_apart(x, min(self.num, len(x)))
        return Inducing(self.num, x[kept])

    def log_likelihood(
        self,
        kernel: AnyKernel,
        noise: Float[Array, " rows"],
        x: Float[Array, "rows inputs"],
        y: Float[Array, "rows outputs"],
    ) -> Float[Array, ""]:
        """The lower bound of the log marginal likelihood; the noise is a variance."""
        posterior, known, variance = self._reduced(kernel, noise, x, y)
        explained = jnp.sum(posterior.rotated**2) - jnp.sum(y**2 / variance[:, None])
        lost = jnp.sum((variances(kernel, x) - jnp.sum(known**2, axis=0)) / variance)
        halves = jnp.sum(jnp.log(jnp.diag(posterior.inner)))
        halves += 0.5 * jnp.sum(jnp.log(2 * math.pi * variance))
        return 0.5 * explained - y.shape[1] * (halves + 0.5 * lost)

    def condition(
        self,
        kernel: AnyKernel,
        noise: Float[Array, " rows"],
        x: Float[Array, "rows inputs"],
        y: Float[Array, "rows outputs"],
    ) -> "InducingPosterior":
        """What is known of the function once y has been seen."""
        return self._reduced(kernel, noise, x, y)[0]

    def _reduced(
        self, kernel: AnyKernel, noise: Array, x: Array, y: Array
    ) -> tuple["InducingPosterior", Array, Array]:
        assert self.points is not None
        small = gram(kernel, self.points, self.points)
        tiny = rounding(small)
        factor = jnp.linalg.cholesky(small + tiny * jnp.eye(len(small), dtype=small.dtype))
        known = solve_triangular(factor, gram(kernel, self.points, x), lower=True)
        variance = noise + tiny
        scaled = known / jnp.sqrt(variance)[None]
        inner = jnp.linalg.cholesky(jnp.eye(len(small), dtype=small.dtype) + scaled @ scaled.T)
        rotated = solve_triangular(inner, (known / variance[None]) @ y, lower=True)
        return InducingPosterior(kernel, self.points, factor, inner, rotated), known, variance


class InducingPosterior(eqx.Module):
    """A Gaussian process given what many rows say at a few points.

    Attributes:
        kernel: of the process before.
        points: the few.
        factor: the Cholesky factor of their covariance.
        inner: that of the identity plus what the rows add to the precision.
        rotated: the values' part of the mean, in the basis of both factors.
    """

    kernel: AnyKernel
    points: Float[Array, "num inputs"]
    factor: Float[Array, "num num"]
    inner: Float[Array, "num num"]
    rotated: Float[Array, "num outputs"]

    def mean(self, points: Float[Array, "points inputs"]) -> Float[Array, "points outputs"]:
        return self._bases(points)[1].T @ self.rotated

    def variance(self, points: Float[Array, "points inputs"]) -> Float[Array, " points"]:
        prior, seen = self._bases(points)
        left = jnp.sum(seen**2, axis=0) - jnp.sum(prior**2, axis=0)
        return jnp.maximum(variances(self.kernel, points) + left, 0.0)

    def covariance(self, points: Float[Array, "points inputs"]) -> Float[Array, "points points"]:
        prior, seen = self._bases(points)
        return gram(self.kernel, points, points) - prior.T @ prior + seen.T @ seen

    def _bases(self, points: Array) -> tuple[Array, Array]:
        prior = solve_triangular(self.factor, gram(self.kernel, self.points, points), lower=True)
        return prior, solve_triangular(self.inner, prior, lower=True)


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
