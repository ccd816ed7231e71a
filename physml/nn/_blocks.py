"""The modules of a convolutional network: what each described layer becomes."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from physml._numerics.checks import require_count, require_one_of, require_share
from physml.nn._activations import ACTIVATIONS, Activation
from physml.nn._conv import Conv
from physml.nn._layers import Dense, Dropout, Filters, Layer, Pool
from physml.nn._pool import Pooling, pool

Shape = tuple[int, ...]

INCREASING = {
    ACTIVATIONS[name] for name in ("tanh", "sigmoid", "relu", "elu", "softplus", "identity")
}
"""Increasing activations: the largest argument gives the largest value."""


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

    An increasing activation is largest where its argument is largest. Bias and activation are then
    applied after the pooling, when fewer pixels are left.
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


def build(
    layer: Layer,
    shape: Shape,
    activation: Activation,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    **weights: Any,
) -> tuple[nnx.Module, Shape]:
    """Returns (module, output shape) of a described layer for inputs of a shape."""

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
            require_share(rate=rate)
            return nnx.Dropout(rate, rngs=rngs), shape
        case Dense(units, batch_norm), (inputs,):
            require_count(units=units)
            linear = nnx.Linear(inputs, units, param_dtype=dtype, rngs=rngs, **weights)
            return activated(linear, units, batch_norm), (units,)
        case Pool(size, kind), (rows, columns, channels):
            require_count(size=size)
            require_one_of(get_args(Pooling), kind=kind)
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
            raise ValueError("the layer must follow an image, got the row of a dense layer")
    raise TypeError("layers must be of Filters, Pool, Dense and Dropout")


def _image(rows: int, columns: int, channels: int) -> Shape:
    if rows < 1 or columns < 1:
        raise ValueError(f"the image before it is too small, it leaves {rows} x {columns} pixels")
    return rows, columns, channels
