"""The types that the whole package speaks: residuals, losses, and what a network must offer."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, ArrayLike, DTypeLike, Float, PRNGKeyArray, PyTree, Scalar

Numbers = ArrayLike | Sequence[Any]
"""What becomes an array: an array, a number, or a list or tuple of them."""

Residual = Callable[[PyTree, PyTree, PRNGKeyArray | None], PyTree[Array]]
"""`residual(model, batch, key) -> blocks`: arrays that are zero where the model is right."""

Loss = Callable[[PyTree, PyTree, PRNGKeyArray | None], tuple[Scalar, dict[str, Array]]]
"""`loss(model, batch, key) -> (value, aux)`, for tasks without a residual: a classifier, a game."""


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network without memory whose last layer is linear: `readout(features(x))`."""

    readout: nnx.Linear

    def features(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch units"]:
        """The hidden units' values, which the readout combines."""
        ...


@runtime_checkable
class RecurrentNetwork(Protocol):
    """A network with a memory, the carry, whose last layer is linear."""

    readout: nnx.Linear

    def initial_carry(
        self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike | None = None
    ) -> PyTree:
        """The empty memory."""
        ...

    def advance(self, carry: PyTree, x: Float[Array, "*batch inputs"]) -> tuple[PyTree, Array]:
        """The memory one input later, and the features, (*batch, units), that go with it."""
        ...
