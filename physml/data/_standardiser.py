"""The affine map that gives every component mean 0 and standard deviation 1."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml._numerics.checks import floating_array, require_finite


class Standardiser(eqx.Module):
    """The affine map to mean 0 and standard deviation 1, per component.

    `standardiser(x)` is (x - mean) / std and `inverse` undoes it, on arrays (..., dim). A
    constant component has std 1: it is centred and not scaled.

    >>> standardiser = data.Standardiser.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> standardiser(jnp.array([1.0, 6.0])).tolist()
    [-1.0, 1.0]
    """

    mean: Float[Array, " dim"]
    std: Float[Array, " dim"]

    @classmethod
    def fit(cls, x: Float[Array, "*batch dim"]) -> "Standardiser":
        """Mean and (population) standard deviation over all axes but the last.

        Raises:
            ValueError: x has no rows, or values that are not finite.
        """
        x = floating_array("x", x)
        if x.ndim < 2 or x.size == 0:
            raise ValueError(f"x must have shape (..., dim) with rows in it, got {x.shape}")
        require_finite("x", x)
        rows = x.reshape(-1, x.shape[-1])
        mean = rows.mean(axis=0)
        std = jnp.sqrt(jnp.mean((rows - mean[None]) ** 2, axis=0))
        constant = std <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
        return cls(mean, jnp.where(constant, 1.0, std))

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        return (x - jnp.broadcast_to(self.mean, x.shape)) / jnp.broadcast_to(self.std, x.shape)

    def inverse(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """x * std + mean."""
        return x * jnp.broadcast_to(self.std, x.shape) + jnp.broadcast_to(self.mean, x.shape)
