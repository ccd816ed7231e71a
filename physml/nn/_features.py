"""Random Fourier features: an input layer that lets a network see high frequencies."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from physml.nn._common import Frozen, check_positive, find_dtype


class FourierFeatures(nnx.Module):
    r"""$x \mapsto (\cos x B, \sin x B)$, with the frequencies $B_{ij} \sim N(0, \sigma^2)$ frozen.

    Gradient descent learns low frequencies first; behind these features a network learns all
    within $\sigma$ radians per unit of x at one pace.

    ```python
    inputs = nn.FourierFeatures(1, 16, scale=3.0, rngs=nnx.Rngs(0))
    network = nnx.Sequential(inputs, nn.MLP(32, (32,), 2, rngs=nnx.Rngs(1)))
    ```

    Source: M. Tancik et al., "Fourier features let networks learn high frequency functions in low
    dimensional domains", NeurIPS 2020, arXiv 2006.10739.
    """

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
        check_positive(in_features=in_features, num_frequencies=num_frequencies)
        if not scale > 0:
            raise ValueError(f"scale must be positive; got {scale}")
        shape = (in_features, num_frequencies)
        self.frequencies = Frozen(scale * rngs.params.normal(shape, find_dtype(dtype)))

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        angles = x @ self.frequencies[...]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
