"""The types that the whole package speaks: step maps, residuals and losses."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

Residual = Callable[[Any, Any, PRNGKeyArray | None], PyTree[Array]]
"""`residual(model, batch, key) -> blocks`: arrays that are zero where the model is right."""

Loss = Callable[[Any, Any, PRNGKeyArray | None], tuple[Scalar, dict[str, Array]]]
"""`loss(model, batch, key) -> (value, aux)`: what has no residual (a classifier, a game)."""

State = PyTree[Any]
"""Whatever a step map carries from step to step: coordinates, hidden carry, step count."""


class StepMap(eqx.Module):
    """A map that advances a state by a fixed time step.

    The exact flow, a Diffrax step, a trained network and a recurrent network with its hidden
    carry are all step maps. One object steps one trajectory; `jax.vmap` makes batches.
    """

    dt: eqx.AbstractVar[float]

    @abc.abstractmethod
    def init(self, history: Float[Array, "time dim"], t0: Any) -> State:
        """The state at the end of an observed history.

        Args:
            history: consecutive observations `dt` apart, oldest first; one row is enough.
            t0: the time of the last row.
        """

    @abc.abstractmethod
    def step(self, state: State) -> State:
        """The state one `dt` later."""

    @abc.abstractmethod
    def observe(self, state: State) -> Float[Array, " dim"]:
        """The physical coordinates held by a state."""
