"""Noise models: what lies between the values of a solution and their observations.

`pinn.identify` fits by them, `bayes` samples by them.
"""

import abc
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlogy
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from physml._numerics.calls import require_fields
from physml._numerics.checks import is_concrete, require_positive

Scale = float | Float[Array | np.ndarray, "..."] | None
"""A known scale: one number, one for each column, or one for each observation, (n, obs)."""

_LEAST = 1e-3  # of an observation that is positive, or of a count: the least value that is likely
_EM_STEPS = 50


class Whitened(NamedTuple):
    r"""Observations as least squares take them: a step of theirs is one of Fisher's scoring.

    Attributes:
        r: minus the score of the value, over the root of its information: mean 0, variance 1.
        slope: the root of the Fisher information of the value, by which r grows with it.
        cost: minus twice the log of the density, without what does not depend on the value; zero
            where value and observation agree. Half its derivative is r slope.
    """

    r: Float[Array, "..."]
    slope: Float[Array, "..."]
    cost: Float[Array, "..."]


class Noise(eqx.Module):
    """What lies between the solution's values and the observations, all of them independent."""

    scale: eqx.AbstractVar[Scale]
    """The scale where it is known; where it is None there is one for each column to be found."""

    has_scale: ClassVar[bool] = True
    is_relative: ClassVar[bool] = False
    """Whether the scale has no unit."""

    @abc.abstractmethod
    def log_density(
        self, values: Float[Array, "n obs"], ys: Float[Array, "n obs"], scale: Array
    ) -> Float[Array, "n obs"]:
        """The log of the density of each observation; minus infinity where it is impossible.

        Args:
            values: what the solution has there.
            ys: the observations.
            scale: (n, obs); a noise without a scale does not look at it.
        """

    @abc.abstractmethod
    def whiten(self, values: Array, ys: Array, scale: Array) -> Whitened:
        """Values and observations as least squares take them, of one shape.

        Where a value is impossible, or nearly so, the cost goes on as a parabola.
        """

    @abc.abstractmethod
    def sample(
        self, key: PRNGKeyArray, values: Float[Array, "n obs"], scale: Array
    ) -> Float[Array, "n obs"]:
        """New observations of the values."""

    @abc.abstractmethod
    def guess(self, values: Float[Array, "n obs"], ys: Float[Array, "n obs"]) -> Array:
        """The likeliest scale of each column, (obs,), from the residuals of a fit.

        An observation that is NaN does not count.
        """

    def check(self, ys: Float[Array, "n obs"]) -> None:
        """Raise ValueError unless the noise can have given the observations, NaN left aside."""

    @property
    def scale_is_unknown(self) -> bool:
        """Whether a scale is among the unknowns."""
        return self.has_scale and self.scale is None


class _Scaled(Noise):
    def __check_init__(self):
        require_fields(self)
        if self.scale is not None:
            require_positive(scale=self.scale)


class NormalNoise(_Scaled):
    r"""$y = v + \sigma \varepsilon$, ε standard normal; the scale is σ in the data's units."""

    scale: Scale = None

    def log_density(self, values, ys, scale):
        return _normal((ys - values) / scale) - jnp.log(scale)

    def whiten(self, values, ys, scale):
        r = (values - ys) / scale
        return Whitened(r, 1 / scale, r**2)

    def sample(self, key, values, scale):
        return values + scale * jax.random.normal(key, values.shape, values.dtype)

    def guess(self, values, ys):
        return jnp.sqrt(jnp.nanmean((ys - values) ** 2, axis=0))


class LogNormalNoise(_Scaled):
    r"""$\log y = \log v + \sigma \varepsilon$: a relative error; the scale is σ, without a unit.

    The solution is the median of the observations, which are positive.
    """

    scale: Scale = None

    is_relative = True

    def log_density(self, values, ys, scale):
        possible = values > 0
        r = (jnp.log(ys) - jnp.log(jnp.where(possible, values, 1.0))) / scale
        return jnp.where(possible, _normal(r) - jnp.log(scale) - jnp.log(ys), -jnp.inf)

    def whiten(self, values, ys, scale):
        def exact(values):
            r = (jnp.log(values) - jnp.log(ys)) / scale
            return Whitened(r, 1 / (scale * values), r**2)

        return _continued(exact, values, _LEAST * ys)

    def sample(self, key, values, scale):
        return values * jnp.exp(scale * jax.random.normal(key, values.shape, values.dtype))

    def guess(self, values, ys):
        tiny = _LEAST * jnp.mean(jnp.abs(values), axis=0, keepdims=True)
        ratios = jnp.log(ys) - jnp.log(jnp.maximum(values, tiny))
        return jnp.sqrt(jnp.nanmean(ratios**2, axis=0))

    def check(self, ys):
        if is_concrete(ys) and np.any(np.asarray(ys) <= 0):
            raise ValueError("ys must be positive for lognormal noise, got numbers that are not")


class StudentNoise(_Scaled):
    r"""$y = v + s t$ with t of Student's distribution: some observations are far off.

    Attributes:
        degrees: the degrees of freedom ν; with 4 an outlier of ten scales is one in two thousand,
            and the noise tends to a normal one as ν grows.
        scale: s in the data's units, which is less than the standard deviation.
    """

    degrees: float = 4.0
    scale: Scale = None

    def __check_init__(self):
        require_fields(self)
        require_positive(degrees=self.degrees)

    def log_density(self, values, ys, scale):
        nu = jnp.asarray(self.degrees, values.dtype)
        peak = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * jnp.log(nu * math.pi)
        r = (ys - values) / scale
        return peak - jnp.log(scale) - (nu + 1) / 2 * jnp.log1p(r**2 / nu)

    def whiten(self, values, ys, scale):
        nu = jnp.asarray(self.degrees, values.dtype)
        r = (values - ys) / scale
        root = jnp.sqrt((nu + 1) / (nu + 3))
        score = (nu + 1) * r / (nu + r**2)
        cost = (nu + 1) * jnp.log1p(r**2 / nu)
        return Whitened(score / root, root / scale, cost)

    def sample(self, key, values, scale):
        nu = jnp.asarray(self.degrees, values.dtype)
        return values + scale * jax.random.t(key, nu, values.shape, values.dtype)

    def guess(self, values, ys):
        # 1.48 median |r| is the standard deviation of normal residuals, outliers left aside.
        squares, nu = (ys - values) ** 2, jnp.asarray(self.degrees, values.dtype)
        middle = 1.48 * jnp.sqrt(jnp.nanmedian(squares, axis=0))
        first = jnp.maximum(middle**2, 0.01 * jnp.nanmean(squares, axis=0))
        first = jnp.where(first > 0, first, 1.0)

        def again(_, square):  # the EM algorithm, which weighs each residual by its size
            return jnp.nanmean((nu + 1) * squares / (nu + squares / square[None]), axis=0)

        return jnp.sqrt(jax.lax.fori_loop(0, _EM_STEPS, again, first))


class PoissonNoise(Noise):
    """Observations are counts whose mean is the solution. There is no scale."""

    scale: None = None

    has_scale = False

    def log_density(self, values, ys, scale):
        possible = (values > 0) | ((values == 0) & (ys == 0))
        mean = jnp.where(values > 0, values, 1.0)
        log = xlogy(ys, mean) - jnp.maximum(values, 0.0) - gammaln(ys + 1)
        return jnp.where(possible, log, -jnp.inf)

    def whiten(self, values, ys, scale):
        def exact(values):
            root = jnp.sqrt(values)
            cost = 2 * (xlogy(ys, ys) - xlogy(ys, values) - ys + values)
            return Whitened((values - ys) / root, 1 / root, cost)

        return _continued(exact, values, jnp.full_like(values, _LEAST))

    def sample(self, key, values, scale):
        return jax.random.poisson(key, jnp.maximum(values, 0.0)).astype(values.dtype)

    def guess(self, values, ys):
        return jnp.zeros(0, values.dtype)

    def check(self, ys):
        if is_concrete(ys):
            counts = np.asarray(ys)
            counts = counts[~np.isnan(counts)]
            if np.any(counts < 0) or np.any(counts != np.round(counts)):
                raise ValueError("ys must be counts for Poisson noise, got other numbers")


def _continued(exact: Callable[[Array], Whitened], values: Array, least: Array) -> Whitened:
    """What is exact for values from `least` on, and goes on as a parabola below."""
    r, slope, cost = exact(jnp.maximum(values, least))
    below = slope * jnp.minimum(values - least, 0.0)
    return Whitened(r + below, slope, cost + 2 * r * below + below**2)


def _normal(r: ArrayLike) -> Array:
    """The log of the standard normal density."""
    return -0.5 * jnp.square(r) - 0.5 * math.log(2 * math.pi)
