"""Convolutional networks for images, as lists of layers."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Num

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml.nn._activations import Activation, find_activation
from physml.nn._blocks import Affine, Flat, Pooled, PooledAffine, Shape, build
from physml.nn._layers import Dense, Layer, describe
from physml.nn._weights import find_dtype


class SummaryRow(NamedTuple):
    """One line of a network's summary."""

    layer: str
    shape: Shape  # of its output, for one image
    parameters: int  # trained numbers


class CNN(nnx.Module):
    """A convolutional network: layers one after another, and a linear readout of the last.

    h_0 = x, h_k = layer_k(h_{k-1}), output = h_K W + b, with h_K as one row of numbers. For a
    classifier the outputs are logits, the logarithms of unnormalised probabilities.

    >>> network = nn.CNN((8, 8, 1), [nn.Filters(10), nn.Pool()], 10, rngs=nnx.Rngs(0))
    >>> network(jnp.zeros((5, 8, 8, 1))).shape
    (5, 10)
    >>> print(network.summary())
    layer              output shape  parameters
    convolution 3 x 3  6 x 6 x 10           100
    max pooling 2 x 2  3 x 3 x 10             0
    flatten            90                     0
    readout            10                   910
    total                                 1,010
    """

    @checked
    def __init__(
        self,
        in_shape: tuple[int, int, int],
        layers: Sequence[Layer],
        out_features: int,
        *,
        activation: str | Activation = "relu",
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),  # noqa: B008 -- a pure function
        bias_init: nnx.Initializer = nnx.initializers.zeros_init(),  # noqa: B008 -- a pure function
        readout_init: nnx.Initializer | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            in_shape: (height, width, channels) of an image.
            layers: the hidden layers, first to last; none for a linear classifier.
            out_features: the number of outputs.
            activation: follows every convolutional and fully connected layer; a name in
                `ACTIVATIONS` or a function of an array, elementwise.
            kernel_init: draws filters and matrices, by default with variance 1 / (number of
                inputs).
            bias_init: draws the biases, by default zero.
            readout_init: draws the last matrix; `kernel_init` unless given.
            dtype: the weights' dtype; JAX's default float unless given.
            rngs: the random numbers, `nnx.Rngs(seed)` or `nnx.Rngs(key)`.

        Raises:
            ValueError: a size below one, an unknown activation, padding or pooling, a dropout
                outside [0, 1), a dtype that cannot be had, or a layer that does not fit what comes
                before it.
            TypeError: a layer of another kind, or a size that is no integer.
        """
        if len(in_shape) != 3:
            raise ValueError(f"in_shape must be (height, width, channels), got {in_shape}")
        height, width, channels = in_shape
        require_count(height=height, width=width, channels=channels, out_features=out_features)
        dtype = find_dtype(dtype)
        self.in_shape = (height, width, channels)
        function = find_activation(activation)
        weights: dict[str, Any] = {"kernel_init": kernel_init, "bias_init": bias_init}
        blocks: list[nnx.Module] = []
        rows: list[SummaryRow] = []
        shape: Shape = self.in_shape

        def flatten() -> None:
            nonlocal shape
            if len(shape) == 3:
                shape = (prod(shape),)
                blocks.append(Flat())
                rows.append(SummaryRow("flatten", shape, 0))

        for index, layer in enumerate(layers):
            if isinstance(layer, Dense):
                flatten()
            try:
                block, shape = build(layer, shape, function, dtype, rngs, **weights)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"layers[{index}], {layer}: {error}") from error
            rows.append(SummaryRow(describe(layer), shape, _count(block)))
            if isinstance(block, Pooled) and blocks and isinstance(before := blocks[-1], Affine):
                blocks[-1] = PooledAffine(before, block)
            else:
                blocks.append(block)
        flatten()
        self.blocks = nnx.List(blocks)
        weights["kernel_init"] = readout_init or kernel_init
        self.readout = nnx.Linear(shape[0], out_features, param_dtype=dtype, rngs=rngs, **weights)
        self.rows = (*rows, SummaryRow("readout", (out_features,), _count(self.readout)))

    @checked
    def features(
        self, x: Num[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch features"]:
        """The last hidden layer's output as a row of numbers: the readout's input.

        Raises:
            TypeError: the images are no floats.
            ValueError: they do not have the shape that the network is made for.
        """
        *_, (_, last) = self._outputs(x)
        return last

    @checked
    def __call__(
        self, x: Num[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch outputs"]:
        return self.readout(self.features(x))

    def _outputs(self, x: Array) -> Iterator[tuple[nnx.Module, Array]]:
        """Each block and its output, one after another."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"images must be floats, as Images.scaled makes them, got {x.dtype}")
        if x.shape[-3:] != self.in_shape:
            raise ValueError(
                f"images must have shape (..., {', '.join(map(str, self.in_shape))}), channels "
                f"last, got {x.shape}"
            )
        for block in self.blocks:
            x = block(x)
            yield block, x

    @checked
    def feature_maps(
        self, x: Num[Array, "*batch height width channels"]
    ) -> list[Float[Array, "*batch rows columns maps"]]:
        """The output of each convolutional layer, first to last.

        The activation is included, and so is the pooling that follows the layer.

        Raises:
            TypeError, ValueError: as `features`.
        """
        return [
            maps
            for block, maps in self._outputs(x)
            if isinstance(block, Affine | PooledAffine) and block.kernel is not None
        ]

    @property
    def kernels(self) -> list[Float[Array, "rows columns channels filters"]]:
        """The filters of each convolutional layer, first to last."""
        layers = [block for block in self.blocks if isinstance(block, Affine | PooledAffine)]
        return [layer.kernel for layer in layers if layer.kernel is not None]

    def summary(self) -> str:
        """A table of the layers: what each is, the shape of its output, its trained numbers."""
        lines = [("layer", "output shape", "parameters")]
        lines += [(r.layer, " x ".join(map(str, r.shape)), f"{r.parameters:,}") for r in self.rows]
        lines += [("total", "", f"{sum(row.parameters for row in self.rows):,}")]
        first, second, third = (max(map(len, column)) for column in zip(*lines, strict=True))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c:>{third}}" for a, b, c in lines)


def _count(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
