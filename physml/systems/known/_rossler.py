"""The Rössler system of 1976."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml.systems._base import AutonomousSystem, Parameter, Time, is_close, parameter


class Rossler(AutonomousSystem):
    r"""The Rössler system, the simplest folded band of chaos.

    $$\dot x = -y - z, \qquad \dot y = x + a y, \qquad \dot z = b + z (x - c)$$

    State and time are dimensionless. Starts far below z = 0 run away; the default box lies inside
    the basin of the attractor.

    Source: O. E. Rössler, An equation for continuous chaos, Phys. Lett. A 57 (1976) 397, eq. 2.
    """

    a: Parameter = parameter(0.2)
    b: Parameter = parameter(0.2)
    c: Parameter = parameter(5.7)

    dim = 3
    state_names = ("x", "y", "z")
    box = ((-8.0, -8.0, 0.0), (8.0, 8.0, 8.0))
    symmetry = None

    def vector_field(self, t: Time, y: Float[Array, "3 *batch"], args: PyTree) -> Array:
        x, y_, z = y
        return jnp.stack([-y_ - z, x + self.a * y_, self.b + z * (x - self.c)])

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "3 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$a + x - c$."""
        return self.a + y[0] - self.c

    def fixed_points(self) -> Float[Array, "num 3"]:
        r"""$(a z, -z, z)$ at the roots of $a z^2 - c z + b = 0$, the one near the origin first.

        Both roots where $c^2 > 4ab$, none where it is less; one at most where a = 0.
        """
        discriminant = self.c**2 - 4.0 * self.a * self.b
        if discriminant < 0 or (self.a == 0 and self.c == 0):
            return jnp.zeros((0, 3))
        # The root that does not cancel first, the other from the product of the two.
        half = 0.5 * (self.c + jnp.copysign(jnp.sqrt(discriminant), self.c))
        roots = [self.b / half] if self.a == 0 else [self.b / half, half / self.a]
        z = jnp.stack([jnp.asarray(root) for root in roots])
        return jnp.stack([self.a * z, -z, z], axis=-1)

    @property
    def lyapunov_exponents(self) -> tuple[float, ...] | None:
        """For a = b = 0.2, c = 5.7.

        Source: J. C. Sprott, Chaos and Time-Series Analysis (2003), appendix A.
        """
        if is_close(self.a, 0.2) and is_close(self.b, 0.2) and is_close(self.c, 5.7):
            return (0.0714, 0.0, -5.3943)
        return None
