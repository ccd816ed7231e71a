"""The Lorenz system of 1963."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml.systems._base import AutonomousSystem, Parameter, Time, is_close, parameter, per_member


class Lorenz(AutonomousSystem):
    r"""The Lorenz system, convection reduced to three modes.

    $$\dot x = \sigma (y - x), \qquad \dot y = x (\rho - z) - y, \qquad \dot z = x y - \beta z$$

    State and time are dimensionless. The default parameters are the chaotic classic. The
    default box of starts, [-15, 15] in each variable, is the lecture notes'.

    Example:
        >>> systems.Lorenz()(0.0, jnp.ones(3)).round(3)
        Array([ 0.   , 26.   , -1.667], dtype=float64)

    Source: E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963) 130, eqs. 25-27.
    """

    sigma: Parameter = parameter(10.0)
    rho: Parameter = parameter(28.0)
    beta: Parameter = parameter(8.0 / 3.0)

    dim = 3
    state_names = ("x", "y", "z")
    box = ((-15.0, -15.0, -15.0), (15.0, 15.0, 15.0))
    symmetry = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))

    def vector_field(self, t: Time, y: Float[Array, "3 *batch"], args: PyTree) -> Array:
        x, y_, z = y
        return jnp.stack([self.sigma * (y_ - x), x * (self.rho - z) - y_, x * y_ - self.beta * z])

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "3 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$-(\sigma + 1 + \beta)$ everywhere, which is the sum of the Lyapunov exponents."""
        return per_member(-(self.sigma + 1.0 + self.beta), y)

    def fixed_points(self) -> Float[Array, "num 3"]:
        r"""The origin and, where $\beta(\rho - 1) > 0$, $(\pm q, \pm q, \rho - 1)$ with
        $q = \sqrt{\beta (\rho - 1)}$."""
        origin = jnp.zeros((1, 3))
        square = self.beta * (self.rho - 1.0)
        if square <= 0:
            return origin
        q, z = jnp.sqrt(square), jnp.asarray(self.rho - 1.0)
        return jnp.concatenate([origin, jnp.stack([jnp.stack([q, q, z]), jnp.stack([-q, -q, z])])])

    @property
    def lyapunov_exponents(self) -> tuple[float, ...] | None:
        r"""For $\sigma = 10, \rho = 28, \beta = 8/3$; the third from the constant divergence.

        Source: D. Viswanath, Lyapunov exponents from random Fibonacci sequences to the Lorenz
        equations, PhD thesis, Cornell 1998, which gives 0.90563 for the first.
        """
        if is_close(self.sigma, 10.0) and is_close(self.rho, 28.0) and is_close(self.beta, 8 / 3):
            return (0.90563, 0.0, -(10.0 + 1.0 + 8.0 / 3.0) - 0.90563)
        return None
