"""What a window's quadrature leaves out of the integral of a right-hand side."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.quadrature import gauss
from physml._numerics.units import in_units, max_of
from physml.pinn.collocation._linearised import Nodes

_GROUP = 4  # Legendre coefficients that are looked at together: single ones may be zero
_KINK = 6.0  # by less than this the coefficients fall from n / 2 to n if f has a kink


def left_out(nodes: Nodes, rates: Float[Array, "dim points"]) -> Float[Array, " dim"]:
    r"""What a window's quadrature of f leaves out, by the decay of its Legendre coefficients.

    A quadrature with n Gauss points is exact up to the degree 2 n. The coefficients of a smooth f
    decay geometrically: from n to 2 n they fall by the square of what they fall by from n / 2 to n.
    Those of an f with a kink or a jump hardly decay.
    """
    num_points, dtype = rates.shape[1], rates.dtype
    rule, degrees = gauss(num_points), np.arange(num_points)
    polynomials = np.polynomial.legendre.legvander(rule.points, num_points - 1)
    transform = (degrees + 0.5) * polynomials * rule.weights[:, None]
    coefficients = jnp.abs(rates @ jnp.asarray(transform, dtype))
    half = num_points // 2
    middle = max_of(coefficients[:, half - _GROUP : half], axis=1)
    last = max_of(coefficients[:, -_GROUP:], axis=1)
    fall = jnp.minimum(_KINK * in_units(last, middle, 1.0), 1.0)
    return nodes.half * jnp.maximum(last - rounding_of(rates), 0.0) * fall**2


def rounding_of(rates: Float[Array, "dim *points"]) -> Float[Array, " dim"]:
    """What may be the rounding of numbers."""
    size = max_of(jnp.abs(rates), axis=tuple(range(1, rates.ndim)))
    return 100 * jnp.finfo(rates.dtype).eps * size
