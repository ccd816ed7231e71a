"""Convolutional networks for images, as lists of layers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Num

from physml.nn._common import (
    ACTIVATIONS,
    Activation,
    check_one_of,
    check_positive,
    find_activation,
    find_dtype,
)
from physml.nn._conv import Conv, Padding, Pooling, pool

Shape = tuple[int, ...]

INCREASING = {
    ACTIVATIONS[name] for name in ("tanh", "sigmoid", "relu", "elu", "softplus", "identity")
}
"""Activations that keep the order of their arguments."""


@dataclass(frozen=True)
class Filters:
    """A convolutional layer with an activation."""

    count: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "VALID"
    batch_norm: bool = False  # before the activation


@dataclass(frozen=True)
class Pool:
    """Each block of size x size pixels becomes one."""

    size: int = 2
    kind: Pooling = "max"


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with an activation; it sees an image as one row of numbers."""

    units: int
    batch_norm: bool = False  # before the activation


@dataclass(frozen=True)
class Dropout:
    """In training a share of the values is set to zero, the rest scaled up."""

    rate: float


Layer = Filters | Pool | Dense | Dropout

ARCHITECTURES: Mapping[str, tuple[Layer, ...]] = MappingProxyType(
    {
        # The lecture's, for 8 x 8 digits, and what it has without its convolution.
        "digits": (Filters(10), Pool(), Dense(50)),
        "dense": (Dense(50),),
        # The TensorFlow tutorial's, for CIFAR-10.
        "cifar-tutorial": (
            *(Filters(32), Pool(), Filters(64), Pool()),
            *(Filters(64), Dense(64)),
        ),
        # Filters double where the image halves, and of what is left only the mean counts.
        "cifar-better": (
            Filters(32, padding="SAME", batch_norm=True),
            *(Filters(64, padding="SAME", batch_norm=True), Pool()),
            *(Filters(128, padding="SAME", batch_norm=True), Pool()),
            *(Filters(256, padding="SAME", batch_norm=True), Pool()),
            *(Filters(256, padding="SAME", batch_norm=True), Pool(4, "mean"), Dropout(0.2)),
        ),
        # The usual first network for MNIST.
        "mnist": (Filters(32), Pool(), Filters(64), Pool(), Dense(256)),
        # A strong one: pairs of 3 x 3 filters see as far as 5 x 5 with fewer weights (Simonyan,
        # Zisserman, arXiv 1409.1556), and the last filters see all that is left of the image.
        "mnist-strong": (
            *(Filters(32, batch_norm=True), Filters(32, batch_norm=True), Pool(), Dropout(0.25)),
            *(Filters(64, batch_norm=True), Filters(64, batch_norm=True), Pool(), Dropout(0.25)),
            *(Filters(128, kernel=4, batch_norm=True), Dropout(0.4)),
        ),
    }
)
"""Hidden layers of known networks, by name."""


class Row(NamedTuple):
    """One line of a network's summary."""

    layer: str
    shape: Shape  # of its output, for one image
    parameters: int  # trained numbers


class CNN(nnx.Module):
    """A convolutional network: layers one after another, and a linear readout of the last.

    h_0 = x, h_k = layer_k(h_{k-1}), output = h_K W + b, with h_K as one row of numbers. For a
    classifier the outputs are logits, the logarithms of unnormalised probabilities.

    ```python
    network = CNN((28, 28, 1), [Filters(32), Pool(), Dense(100)], 10, rngs=nnx.Rngs(0))
    network(images)  # (..., 28, 28, 1) -> (..., 10)
    print(network.summary())
    ```
    """

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
            activation: what follows every convolutional and fully connected layer, a name in
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
            TypeError: a layer that is none, or a size that is no integer.
        """
        if len(in_shape) != 3:
            raise ValueError(f"in_shape must be (height, width, channels); got {in_shape}")
        height, width, channels = in_shape
        check_positive(height=height, width=width, channels=channels, out_features=out_features)
        dtype = find_dtype(dtype)
        self.in_shape = (height, width, channels)
        function = find_activation(activation)
        weights: dict[str, Any] = {"kernel_init": kernel_init, "bias_init": bias_init}
        blocks: list[nnx.Module] = []
        rows: list[Row] = []
        shape: Shape = self.in_shape

        def flatten() -> None:
            nonlocal shape
            if len(shape) == 3:
                shape = (prod(shape),)
                blocks.append(Flat())
                rows.append(Row("flatten", shape, 0))

        for index, layer in enumerate(layers):
            if isinstance(layer, Dense):
                flatten()
            try:
                block, shape = _build(layer, shape, function, dtype, rngs, **weights)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"layers[{index}], {layer}: {error}") from error
            rows.append(Row(_describe(layer), shape, _count(block)))
            if isinstance(block, Pooled) and blocks and isinstance(before := blocks[-1], Affine):
                blocks[-1] = PooledAffine(before, block)
            else:
                blocks.append(block)
        flatten()
        self.blocks = nnx.List(blocks)
        self.readout = nnx.Linear(
            shape[0],
            out_features,
            kernel_init=readout_init or kernel_init,
            bias_init=bias_init,
            param_dtype=dtype,
            rngs=rngs,
        )
        self.rows = (*rows, Row("readout", (out_features,), _count(self.readout)))

    def features(
        self, x: Num[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch features"]:
        """The last hidden layer's output as a row of numbers, what the readout sees.

        Raises:
            TypeError: the images are no floats.
            ValueError: they do not have the shape that the network is made for.
        """
        *_, (_, last) = self._outputs(x)
        return last

    def __call__(
        self, x: Num[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch outputs"]:
        return self.readout(self.features(x))

    def _outputs(self, x: Array) -> Iterator[tuple[nnx.Module, Array]]:
        """Each block and its output, one after another."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"images must be floats, as Images.scaled makes them; got {x.dtype}")
        if x.shape[-3:] != self.in_shape:
            raise ValueError(
                f"images must have shape (..., {', '.join(map(str, self.in_shape))}), channels "
                f"last; got {x.shape}"
            )
        for block in self.blocks:
            x = block(x)
            yield block, x

    def feature_maps(
        self, x: Num[Array, "*batch height width channels"]
    ) -> list[Float[Array, "*batch rows columns maps"]]:
        """What each convolutional layer makes of images, first to last.

        With its activation, and with the pooling that follows it.

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


class Affine(nnx.Module):
    """An affine map, batch normalisation if wanted, and an activation."""

    def __init__(
        self, affine: Conv | nnx.Linear, norm: nnx.BatchNorm | None, activation: Activation
    ):
        self.affine = affine
        self.norm = norm
        self.activation = activation

    def __call__(self, x: Array) -> Array:
        x = self.affine(x)
        if self.norm is not None:
            with jax.numpy_dtype_promotion("standard"):  # Flax asks for at least float32
                x = self.norm(x)
        return self.activation(x)

    @property
    def kernel(self) -> Array | None:
        """The filters, if it is a convolutional layer."""
        return self.affine.kernel[...] if isinstance(self.affine, Conv) else None


class Pooled(nnx.Module):
    """Pooling, which has nothing to train."""

    def __init__(self, size: int, kind: Pooling):
        self.size = size
        self.kind: Pooling = kind

    def __call__(self, x: Array) -> Array:
        return pool(x, self.size, self.kind)


class PooledAffine(nnx.Module):
    """A convolutional layer and the pooling after it.

    The largest value of an increasing activation is that of the largest argument, so that the
    activation, and the bias, can wait until most of the pixels are gone.
    """

    def __init__(self, layer: Affine, pooled: Pooled):
        self.layer = layer
        self.pooled = pooled

    @property
    def kernel(self) -> Array | None:
        return self.layer.kernel

    def __call__(self, x: Array) -> Array:
        layer, conv = self.layer, self.layer.affine
        can_wait = layer.norm is None and layer.activation in INCREASING
        if isinstance(conv, Conv) and conv.stride == 1 and self.pooled.kind == "max" and can_wait:
            return layer.activation(conv(x, max_pool=self.pooled.size))
        return self.pooled(layer(x))


class Flat(nnx.Module):
    """An image as one row of numbers."""

    def __call__(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-3], -1)


def _build(
    layer: Layer,
    shape: Shape,
    activation: Activation,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    **weights: Any,
) -> tuple[nnx.Module, Shape]:
    """The module of a layer for inputs of a shape, and the shape of its outputs."""

    def activated(affine: Conv | nnx.Linear, units: int, batch_norm: bool) -> Affine:
        if not batch_norm:
            return Affine(affine, None, activation)
        # Flax's momentum of 0.99 takes hundreds of steps to forget how the statistics began.
        norm = nnx.BatchNorm(units, momentum=0.9, param_dtype=dtype, rngs=rngs)
        # Flax keeps the running statistics in float32 whatever the parameters are.
        norm.mean, norm.var = (
            nnx.BatchStat(stat[...].astype(dtype)) for stat in (norm.mean, norm.var)
        )
        return Affine(affine, norm, activation)

    match layer, shape:
        case Dropout(rate), _:
            if not 0 <= rate < 1:
                raise ValueError(f"rate must be at least 0 and less than 1; got {rate}")
            return nnx.Dropout(rate, rngs=rngs), shape
        case Dense(units, batch_norm), (inputs,):
            check_positive(units=units)
            linear = nnx.Linear(inputs, units, param_dtype=dtype, rngs=rngs, **weights)
            return activated(linear, units, batch_norm), (units,)
        case Pool(size, kind), (rows, columns, channels):
            check_positive(size=size)
            check_one_of(Pooling, kind=kind)
            return Pooled(size, kind), _image(rows // size, columns // size, channels)
        case Filters(count, kernel, stride, padding, batch_norm), (rows, columns, channels):
            conv = Conv(
                *(channels, count, kernel),
                stride=stride,
                padding=padding,
                dtype=dtype,
                rngs=rngs,
                **weights,
            )
            lost = kernel - 1 if padding == "VALID" else 0
            rows, columns = (-(-(n - lost) // stride) for n in (rows, columns))
            return activated(conv, count, batch_norm), _image(rows, columns, count)
        case Filters() | Pool(), _:
            raise ValueError("it needs an image, and a dense layer before it has made a row of it")
    raise TypeError("layers must be of Filters, Pool, Dense and Dropout")


def _image(rows: int, columns: int, channels: int) -> Shape:
    if rows < 1 or columns < 1:
        raise ValueError("the image that comes before it is too small")
    return rows, columns, channels


def _describe(layer: Layer) -> str:
    match layer:
        case Filters(_, kernel, stride):
            return f"convolution {kernel} x {kernel}" + (f", stride {stride}" * (stride > 1))
        case Pool(size, kind):
            return f"{kind} pooling {size} x {size}"
        case Dense():
            return "dense"
        case Dropout(rate):
            return f"dropout {rate:g}"


def _count(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
