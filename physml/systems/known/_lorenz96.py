"""The Lorenz system of 1996, of any dimension."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml.systems._base import (
    AutonomousSystem,
    Parameter,
    Time,
    as_tuple,
    is_close,
    parameter,
    per_member,
)


class Lorenz96(AutonomousSystem):
    r"""The Lorenz-96 system, a ring of n sites: advection, damping and a constant force.

    $$\dot x_i = (x_{i+1} - x_{i-2})\, x_{i-1} - x_i + F, \qquad i \text{ modulo } n$$

    State and time are dimensionless; a time unit stands for five days of weather.

    Attributes:
        n: the number of sites, at least 4.
        force: F; with 40 sites the motion is chaotic at 8.

    Source: E. N. Lorenz, Predictability: a problem partly solved, ECMWF Seminar on
    Predictability (1996), eq. 1.
    """

    n: int = eqx.field(default=40, static=True)
    force: Parameter = parameter(8.0)

    def __check_init__(self):
        require_count(4, **{"Lorenz96.n": self.n})

    @property
    def dim(self) -> int:
        return self.n

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(f"x{i}" for i in range(self.n))

    @property
    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """[-10, 10] at each site; the damping brings every start to the attractor."""
        return (-10.0,) * self.n, (10.0,) * self.n

    @property
    def symmetry(self) -> tuple[tuple[float, ...], ...] | None:
        """Turning the ring by half of its sites, where their number is even."""
        if self.n % 2:
            return None
        return as_tuple(np.roll(np.eye(self.n), self.n // 2, axis=0))

    def vector_field(self, t: Time, y: Float[Array, "n *batch"], args: PyTree) -> Array:
        advection = (jnp.roll(y, -1, axis=0) - jnp.roll(y, 2, axis=0)) * jnp.roll(y, 1, axis=0)
        return advection - y + self.force

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "n *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        """-n everywhere, which is the sum of the Lyapunov exponents."""
        return per_member(-float(self.n), y)

    def fixed_points(self) -> Float[Array, "1 n"]:
        """Every site at F; others have no closed form."""
        return jnp.broadcast_to(jnp.asarray(self.force), (1, self.n))

    @property
    def lyapunov_exponents(self) -> tuple[float, ...] | None:
        """The leading exponent, for 40 sites and F = 8.

        Source: 1.681 ± 0.004 by reorthonormalised tangent vectors over 25,000 time units of RK4.
        E. N. Lorenz, K. A. Emanuel, J. Atmos. Sci. 55 (1998) 399 found that small errors double
        in 2.1 days, 0.42 time units, which makes 1.65.
        """
        return (1.68,) if self.n == 40 and is_close(self.force, 8.0) else None
