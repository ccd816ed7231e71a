"""The predator-prey system of Lotka and Volterra."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import checked
from physml.systems._base import AutonomousSystem, Parameter, Time, parameter


class LotkaVolterra(AutonomousSystem):
    r"""The Lotka-Volterra system of a prey x and its predator y.

    $$\dot x = \alpha x - \beta x y, \qquad \dot y = \delta x y - \gamma y$$

    State: populations in any unit; time in any unit, rates in its inverse. Every positive start
    lies on a closed orbit.

    Attributes:
        alpha: growth rate of the prey, > 0.
        beta: predation per predator, > 0.
        delta: growth of the predator per prey, > 0.
        gamma: death rate of the predator, > 0.

    Source: V. Volterra, Fluctuations in the abundance of a species considered mathematically,
    Nature 118 (1926) 558.
    """

    alpha: Parameter = parameter(1.1, positive=True)
    beta: Parameter = parameter(0.4, positive=True)
    delta: Parameter = parameter(0.1, positive=True)
    gamma: Parameter = parameter(0.4, positive=True)

    dim = 2
    state_names = ("prey", "predator")
    box = ((1.0, 1.0), (10.0, 6.0))
    symmetry = None
    lyapunov_exponents = None

    def vector_field(self, t: Time, y: Float[Array, "2 *batch"], args: PyTree) -> Array:
        prey, predator = y
        return jnp.stack(
            [
                prey * (self.alpha - self.beta * predator),
                predator * (self.delta * prey - self.gamma),
            ]
        )

    @checked
    def divergence(
        self, t: Time, y: Float[Array, "2 *batch"], args: PyTree = None
    ) -> Float[Array, "*batch"]:
        r"""$\alpha - \beta y + \delta x - \gamma$."""
        prey, predator = y
        return self.alpha - self.beta * predator + self.delta * prey - self.gamma

    def fixed_points(self) -> Float[Array, "2 2"]:
        r"""Extinction, (0, 0), and coexistence, $(\gamma/\delta, \alpha/\beta)$."""
        prey, predator = self.gamma / self.delta, self.alpha / self.beta
        return jnp.stack([jnp.zeros(2), jnp.stack([jnp.asarray(prey), jnp.asarray(predator)])])

    @checked
    def invariant(self, y: Float[Array, "2 *batch"]) -> Float[Array, "*batch"]:
        r"""$\delta x - \gamma \ln x + \beta y - \alpha \ln y$, constant along every positive
        solution and least at coexistence."""
        x, y_ = y
        return self.delta * x - self.gamma * jnp.log(x) + self.beta * y_ - self.alpha * jnp.log(y_)
