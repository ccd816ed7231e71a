"""One network as the solution of an initial value problem, and its residual."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from physml import residuals
from physml.pinn.training._scales import Scales
from physml.solution import Differentiated
from physml.systems import System

Condition = Literal["hard", "soft"]
"""Whether a network meets the initial condition by construction, or by a term of the loss."""


class TrainedNetwork(Differentiated):
    r"""A network N as a solution, in units of time $\tau$ and of the state S.

    $u(t) = y_0 + S\, g(t)\, N((t - t_m) / \tau)$, with $t_m$ the middle of the interval. With a
    hard condition $g = 1 - e^{-(t - t_0) / \tau}$, so that $u(t_0) = y_0$ whatever the weights;
    with a soft one g = 1.
    """

    network: nnx.Module
    y0: Float[Array, " dim"]
    t0: Float[Array, ""]
    middle: Float[Array, ""]
    scales: Scales
    condition: Condition = eqx.field(static=True)

    def evaluate(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        """u(t)."""
        network: Any = self.network
        out = self.scales.state * network(((t - self.middle) / self.scales.time)[None])
        if self.condition == "hard":
            out = -jnp.expm1((self.t0 - t) / self.scales.time) * out
        return self.y0 + out


class TrainingResidual(eqx.Module):
    """The residual of an initial value problem, in the units of a `TrainedNetwork`."""

    system: System
    args: PyTree

    def __call__(
        self,
        model: TrainedNetwork,
        batch: tuple[Float[Array, " times"], Float[Array, "times terms"]],
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Array]:
        """The residual at times, each multiplied by the root of its terms' weights."""
        times, weights = batch
        dim = model.y0.shape[0]
        root = jnp.sqrt(weights)
        blocks = {"equation": root[:, :dim] * self.equation(model, times)}
        if model.condition == "soft":
            blocks["condition"] = root[0, dim:] * self.missing(model)
        return blocks

    def raw(
        self, model: TrainedNetwork, times: Float[Array, " times"]
    ) -> Float[Array, "times dim"]:
        """The equation's residual, in the units of the right-hand side."""
        return residuals.equation(self.system, self.args)(model.evaluate, times, None)

    def equation(
        self, model: TrainedNetwork, times: Float[Array, " times"]
    ) -> Float[Array, "times dim"]:
        """The equation's residual, in units of the state per unit of time."""
        unit = jnp.asarray(model.scales.time / model.scales.state)
        return self.raw(model, times) * unit[None]

    def missing(self, model: TrainedNetwork) -> Float[Array, " dim"]:
        """By how much the network misses the initial condition, in units of the state."""
        return (model.evaluate(model.t0) - model.y0) / model.scales.state

    def terms(self, model: TrainedNetwork, times: Float[Array, " times"]) -> Float[Array, " terms"]:
        """The mean squares of the equation for each component, then those of a soft condition."""
        equation = jnp.mean(self.equation(model, times) ** 2, axis=0)
        if model.condition == "hard":
            return equation
        return jnp.concatenate([equation, self.missing(model) ** 2])
