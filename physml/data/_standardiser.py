"""The affine map that gives every component mean 0 and standard deviation 1."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics import checks
from physml._numerics.units import max_of
from physml.data._arguments import require_arrays


class Standardiser(eqx.Module):
    """The affine map to mean 0 and standard deviation 1, per component.

    `standardiser(x)` is (x - mean) / std and `inverse` undoes it, on arrays (..., dim). A
    constant component has std 1: it is centred and not scaled.

    >>> standardiser = data.Standardiser.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> standardiser(jnp.array([1.0, 6.0])).tolist()
    [-1.0, 1.0]

    Attributes:
        mean: the mean of each component.
        std: the standard deviation of each component, positive.

    Raises:
        TypeError: what should be arrays is something else.
        ValueError: shapes that differ, values that are not finite, or a std that is not positive.
    """

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]

    def __check_init__(self):
        require_arrays(jnp.floating, mean=self.mean, std=self.std)
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std must have shape (dim,), got {self.mean.shape} and {self.std.shape}"
            )
        checks.require_finite("mean", self.mean)
        checks.require_positive(std=self.std)

    @classmethod
    def fit(cls, x: Float[Array | np.ndarray, "*batch dim"]) -> "Standardiser":
        """Mean and (population) standard deviation over all axes but the last.

        Each component is first divided by a power of two near its largest value, which changes no
        digit, so that squares neither overflow nor vanish, whatever the component's unit.

        Raises:
            TypeError: x holds no real numbers.
            ValueError: x has no rows, values that are not finite, or values whose differences are
                not finite.
        """
        x = checks.floating_array("x", x)
        if x.ndim < 2 or x.size == 0:
            raise ValueError(f"x must have shape (..., dim) with rows in it, got {x.shape}")
        checks.require_finite("x", x)
        rows = x.reshape(-1, x.shape[-1])
        low, high = rows.min(axis=0), rows.max(axis=0)
        checks.require_finite("the range of x", high - low)
        _, exponent = jnp.frexp(max_of(jnp.abs(rows), axis=0))
        rows = jnp.ldexp(rows, jnp.broadcast_to(-exponent, rows.shape))
        # The sum of many equal numbers is rounded; how far depends on the order of its terms.
        mean = jnp.where(low == high, rows[0], rows.mean(axis=0))
        std = jnp.sqrt(jnp.mean((rows - mean[None]) ** 2, axis=0))
        constant = std <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
        return cls(jnp.ldexp(mean, exponent), jnp.where(constant, 1.0, jnp.ldexp(std, exponent)))

    def __call__(self, x: Float[Array | np.ndarray, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """(x - mean) / std.

        Raises:
            TypeError: x holds no real numbers.
            ValueError: x has another number of components.
        """
        x = self._checked(x)
        return (x - jnp.broadcast_to(self.mean, x.shape)) / jnp.broadcast_to(self.std, x.shape)

    def inverse(self, x: Float[Array | np.ndarray, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """x * std + mean; raises as the call."""
        x = self._checked(x)
        return x * jnp.broadcast_to(self.std, x.shape) + jnp.broadcast_to(self.mean, x.shape)

    def _checked(self, x: object) -> Array:
        x = checks.floating_array("x", x)
        if x.shape[-1:] != self.mean.shape:
            raise ValueError(f"x must have shape (..., {len(self.mean)}), got {x.shape}")
        return x
