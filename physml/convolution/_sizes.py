"""The arithmetic of sizes: outputs, receptive fields, parameters."""

import math
from collections.abc import Sequence

from physml._numerics.calls import checked
from physml._numerics.checks import require_count

PerAxis = int | Sequence[int]
"""One number for all axes, or one for each."""


@checked
def output_shape(
    shape: Sequence[int], window: PerAxis, stride: PerAxis = 1, padding: PerAxis = 0
) -> tuple[int, ...]:
    r"""How many places a sliding window takes along each axis.

    $$o = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$

    What the last whole step does not reach is left out. `padding=(k - 1) // 2` with an odd k and a
    stride of one keeps the size.

    >>> convolution.output_shape((28, 28), window=3, stride=2, padding=1)
    (14, 14)

    Args:
        shape: the input's length $n$ along each axis that is slid over.
        window: the length $k$ of the kernel or pooling window.
        stride: $s$, from one place to the next.
        padding: $p$, the zeros put before and behind.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is too small, there are more or fewer of them than axes, or the window
            is longer than the padded input.

    Source: Dumoulin and Visin, A guide to convolution arithmetic (arXiv 1603.07285), relation 6.
    """
    shape = lengths("shape", shape)
    window = per_axis("window", window, len(shape))
    stride = per_axis("stride", stride, len(shape))
    padding = per_axis("padding", padding, len(shape), least=0)
    padded = tuple(n + 2 * p for n, p in zip(shape, padding, strict=True))
    if any(k > n for k, n in zip(window, padded, strict=True)):
        raise ValueError(f"window must fit into the padded input, of shape {padded}, got {window}")
    return tuple((n - k) // s + 1 for n, k, s in zip(padded, window, stride, strict=True))


@checked
def receptive_field(layers: Sequence[tuple[int, int]]) -> int:
    r"""The number of input pixels along an axis that one output of a stack of layers depends on.

    $$r = 1 + \sum_l (k_l - 1) \prod_{i < l} s_i$$

    Args:
        layers: the window $k_l$ and the stride $s_l$ of every convolution and pooling, first to
            last; `[(3, 1), (2, 2)]` is a 3 x 3 convolution and a 2 x 2 pooling.

    Raises:
        TypeError: a window or a stride is no integer.
        ValueError: one is below one, or a layer is no pair of them.

    Source: Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks,
    Distill (2019), eq. 2.
    """
    field, step = 1, 1
    for index, layer in enumerate(layers):
        if not isinstance(layer, Sequence) or len(layer) != 2:
            raise ValueError(f"layers[{index}] must be a pair (window, stride), got {layer!r}")
        window, stride = lengths(f"layers[{index}]", layer)
        field += (window - 1) * step
        step *= stride
    return field


@checked
def convolution_parameters(window: Sequence[int], channels: int, filters: int) -> int:
    r"""The weights and biases of a convolutional layer, $(c \prod_a k_a + 1) \, f$.

    Every filter has a kernel through the whole depth of its input and a bias; the size of the image
    does not enter.

    Args:
        window: the kernel's length $k_a$ along each axis that it slides over.
        channels: the depth $c$ of the input.
        filters: their number $f$, the depth of the output.

    Raises:
        TypeError, ValueError: a size is no integer of at least one.
    """
    require_count(channels=channels, filters=filters)
    return (math.prod(lengths("window", window)) * int(channels) + 1) * int(filters)


@checked
def dense_parameters(inputs: int, outputs: int) -> int:
    r"""The weights and biases of a fully connected layer, $(n + 1) \, m$.

    Raises:
        TypeError, ValueError: a size is no integer of at least one.
    """
    require_count(inputs=inputs, outputs=outputs)
    return (int(inputs) + 1) * int(outputs)


def per_axis(name: str, value: PerAxis, dims: int, least: int = 1) -> tuple[int, ...]:
    """An integer of at least `least` for each of `dims` axes; else a TypeError or ValueError."""
    if not isinstance(value, Sequence):
        require_count(least, **{name: value})
        return (int(value),) * dims
    if len(value) != dims:
        raise ValueError(f"{name} must have {dims} entries, one for each axis, got {value}")
    require_count(least, **{f"{name}[{i}]": entry for i, entry in enumerate(value)})
    return tuple(map(int, value))


def lengths(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """A shape without empty axes; else a TypeError or ValueError."""
    if not isinstance(value, Sequence):
        raise TypeError(f"{name} must have an integer for each axis, got {value!r}")
    return per_axis(name, value, len(value))
