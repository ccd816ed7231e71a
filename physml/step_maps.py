"""Maps that advance a state by a fixed time step: the one type of flow, solver and surrogate."""

import abc

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, PyTree

MapState = PyTree
"""Whatever a step map carries from step to step: coordinates, hidden carry, step count."""


class StepMap(eqx.Module):
    """A map that advances a state by a fixed time step.

    The exact flow, a Diffrax step, a trained network and a recurrent network with its hidden
    carry are all step maps. One object steps one trajectory; `jax.vmap` makes batches.
    """

    dt: eqx.AbstractVar[float]

    @abc.abstractmethod
    def init(self, history: Float[Array, "time dim"], t0: ArrayLike) -> MapState:
        """The state at the end of an observed history.

        Args:
            history: consecutive observations `dt` apart, oldest first; one row is enough.
            t0: the time of the last row.
        """

    @abc.abstractmethod
    def step(self, state: MapState) -> MapState:
        """The state one `dt` later."""

    @abc.abstractmethod
    def observe(self, state: MapState) -> Float[Array, " dim"]:
        """The physical coordinates held by a state."""
