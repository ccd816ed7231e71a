"""How many latent numbers data need."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import floating_array, require_positive
from physml.generative._codec import Codec, Rows, checked_rows


class Dimension(NamedTuple):
    """The dimension that a falling sequence of numbers shows.

    Attributes:
        dimension: where the numbers fall most.
        drop: the factor by which they fall there. Where it is small, there is no clear dimension.
    """

    dimension: int
    drop: float


@checked
def latent_dimension(values: Sequence[float] | Float[Array | np.ndarray, " n"]) -> Dimension:
    """The number k at which a sequence falls most, by the factor values[k - 1] / values[k].

    The sequence is one of two. With the held-out errors of codes of 0, 1, 2, ... latent numbers
    (the relative error of none is 1), k is the least size that holds the data. With the
    `latent_spectrum` of one code of too many numbers, k counts those that are used.

    >>> generative.latent_dimension([1.0, 0.5, 0.1, 1e-7, 2e-7]).dimension
    3

    Raises:
        ValueError: fewer than two numbers, or one that is not positive.
    """
    numbers = np.asarray(floating_array("values", values))
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"values must be two numbers or more, got shape {numbers.shape}")
    require_positive(values=numbers)
    drops = numbers[:-1] / numbers[1:]
    return Dimension(int(np.argmax(drops)) + 1, float(drops.max()))


@checked
def latent_spectrum(codec: Codec, x: Rows) -> Float[Array, " latent"]:
    """The standard deviations of the latent numbers along their principal axes, largest first.

    Those of axes that the code does not use are tiny; see `linear_layers` of `nn.Autoencoder`.

    Raises:
        ValueError: as `Codec.errors`.
    """
    return _spectrum(codec.encode(checked_rows("x", x, least=1)))


@eqx.filter_jit
def _spectrum(z: Array) -> Array:
    return jnp.linalg.svd(z - z.mean(axis=0)[None], compute_uv=False) / len(z) ** 0.5
