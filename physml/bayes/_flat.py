"""A network as a function of a vector of weights, and as a linear model of some of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from physml._numerics.calls import answer, ask
from physml._numerics.parts import Parts, take_apart
from physml._types import FeatureNetwork


class Flat(eqx.Module):
    """A network as a function of one vector of weights and rows of inputs."""

    params: PyTree
    rest: PyTree
    parts: Parts

    @classmethod
    def of(cls, model: PyTree, inputs: Array, targets: Array) -> "Flat":
        """The function of a network.

        Raises:
            ValueError: the outputs at the inputs have another shape than the targets.
        """
        parts, params, rest = take_apart(model, nnx.Param)
        network = cls(params, rest, parts)
        shape = jax.eval_shape(network, network.weights, inputs).shape
        if shape != targets.shape:
            raise ValueError(
                f"targets must have the shape of the outputs {shape}, got {targets.shape}"
            )
        return network

    @property
    def weights(self) -> Float[Array, " weights"]:
        """The network's own weights, in one vector."""
        return ravel_pytree(self.params)[0]

    def __call__(self, weights: Array, inputs: Array) -> Float[Array, "rows outputs"]:
        join = ravel_pytree(self.params)[1]
        model = self.parts.merge(join(weights), self.rest)
        return answer("model", "outputs", ask("model", "model(x)", model, inputs))

    def jacobian(self, inputs: Array) -> Float[Array, "rows_outputs weights"]:
        """The derivatives of all outputs of all rows in the weights."""
        of_row = jax.jacrev(lambda w, x: self(w, x[None])[0])
        found = jax.vmap(of_row, in_axes=(None, 0))(self.weights, inputs)
        return found.reshape(-1, self.weights.size)


class LinearisedRows(eqx.Module):
    """A network linearised about its weights: outputs = features @ weights + offset.

    Of inputs it gives the features, which are the derivatives in the weights, (rows x outputs,
    weights), and the offset, (rows, outputs).
    """

    network: Flat

    def __call__(self, x: Array) -> tuple[Array, Array]:
        weights = self.network.weights
        features = self.network.jacobian(x)
        offset = self.network(weights, x).reshape(-1) - features @ weights
        return features, offset.reshape(len(x), -1)


class LastLayerRows(eqx.Module):
    """The last layer of a network: outputs = features @ weights + offset.

    Of inputs it gives the network's features with a one beside them, (rows, features + 1), and the
    offset, which is zero, (rows, outputs).
    """

    graph: nnx.GraphDef[FeatureNetwork] = eqx.field(static=True)
    state: PyTree
    outputs: int = eqx.field(static=True)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        network = nnx.merge(self.graph, self.state)
        features = ask("network.features", "features(x)", network.features, x)
        features = answer("network.features", "features", features)
        features = jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1)
        return features, jnp.zeros((len(x), self.outputs), features.dtype)
