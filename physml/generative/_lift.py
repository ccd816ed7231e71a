"""The benchmark of Champion and others: few numbers as a field on many points."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import (
    floating_array,
    require_count,
    require_finite,
    require_positive,
)


@checked
def legendre_lift(
    states: Float[Array | np.ndarray, "*batch dim"], points: int = 128, *, unit: float = 40.0
) -> Float[Array, "*batch points"]:
    r"""States as fields on [-1, 1] that depend on them nonlinearly.

    $$x(s) = \sum_{i=1}^{d} P_{i-1}(s)\, u_i + P_{d+i-1}(s)\, u_i^3, \qquad u = y / \text{unit},$$

    with the Legendre polynomials P, on evenly spaced points. The fields span 2 d directions and are
    a surface of dimension d: principal components need 2 d numbers, an autoencoder d.

    Args:
        states: y, with d components.
        points: of the field, more than 2 d.
        unit: what states are divided by; 40 for the Lorenz system.

    Raises:
        ValueError: states that are not finite, too few points, or a unit that is not positive.

    Source: K. Champion, B. Lusch, J. N. Kutz, S. Brunton, "Data-driven discovery of coordinates and
    governing equations", PNAS 116 (2019), supporting information.
    """
    states = floating_array("states", states)
    require_finite("states", states)
    require_count(2 * states.shape[-1], points=points)
    require_positive(unit=unit)
    modes = [jnp.ones(points, states.dtype), jnp.linspace(-1.0, 1.0, points, dtype=states.dtype)]
    for n in range(1, 2 * states.shape[-1] - 1):  # Bonnet's recursion
        modes.append(((2 * n + 1) * modes[1] * modes[n] - n * modes[n - 1]) / (n + 1))
    u = states / unit
    both = jnp.concatenate([u, u**3], axis=-1)
    return jnp.matmul(both, jnp.stack(modes), precision=jax.lax.Precision.HIGHEST)
