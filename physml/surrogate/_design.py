"""The design matrix of a step map's readout: features of rows, of one parity with a symmetry."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml.surrogate._stepper import Stepper


class Design(eqx.Module):
    """The readout's inputs of a block of rows, and 1; of one parity if there is a symmetry.

    A row that comes with a direction of the state gives the derivative along that direction.
    """

    stepper: Stepper
    parity: Float[Array, ""]

    def __call__(self, rows: tuple[Array, ...]) -> Float[Array, "rows columns"]:
        if self.stepper.recurrent:
            return self._combined(rows)
        ys, t0s, counts, *directions = rows

        def columns(ys: Array) -> Array:
            features = jax.vmap(lambda y, t0, k: self.stepper.features((), y, t0, k)[1])
            return self._combined(features(ys, t0s, counts))

        if not directions:
            return columns(ys)
        values, slopes = jax.jvp(columns, (ys,), tuple(directions))
        along = jnp.any(directions[0] != 0, axis=1, keepdims=True)
        return jnp.where(along, slopes, values)

    def _combined(self, features: tuple[Array, ...]) -> Array:
        if len(features) == 1:
            return jnp.pad(features[0], ((0, 0), (0, 1)), constant_values=1.0)
        combined = 0.5 * (features[0] + self.parity * features[1])
        return jnp.pad(combined, ((0, 0), (0, 1)), constant_values=0.5 * (1 + self.parity))
