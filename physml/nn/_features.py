"""Random Fourier features: an input layer that lets a network see high frequencies."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_positive
from physml.nn._frozen import Frozen
from physml.nn._weights import find_dtype


class FourierFeatures(nnx.Module):
    r"""$x \mapsto (\cos x B, \sin x B)$, with the frequencies $B_{ij} \sim N(0, \sigma^2)$ frozen.

    Gradient descent learns low frequencies first. A network that gets these features learns all
    frequencies up to $\sigma$ radians per unit of x equally fast.

    >>> inputs = nn.FourierFeatures(1, 16, scale=3.0, rngs=nnx.Rngs(0))
    >>> network = nnx.Sequential(inputs, nn.MLP(32, (32,), 2, rngs=nnx.Rngs(1)))
    >>> network(jnp.zeros((5, 1))).shape
    (5, 2)

    Source: M. Tancik et al., "Fourier features let networks learn high frequency functions in low
    dimensional domains", NeurIPS 2020, arXiv 2006.10739.
    """

    @checked
    def __init__(
        self,
        in_features: int,
        num_frequencies: int,
        *,
        scale: float = 1.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        r"""
        Args:
            in_features: the number of inputs.
            num_frequencies: rows of features; the output has twice as many.
            scale: $\sigma$, in radians per unit of the inputs.
            dtype: of the frequencies; JAX's default float unless given.
            rngs: the random numbers.

        Raises:
            ValueError: a size below one, a scale that is not positive, or a dtype that cannot be
                had.
        """
        require_count(in_features=in_features, num_frequencies=num_frequencies)
        require_positive(scale=scale)
        shape = (in_features, num_frequencies)
        self.frequencies = Frozen(scale * rngs.params.normal(shape, find_dtype(dtype)))

    @checked
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        angles = x @ self.frequencies[...]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
