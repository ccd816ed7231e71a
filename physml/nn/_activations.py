"""Activations by name, and Fourier features that are small where their argument is small."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml._numerics.calls import checked
from physml._numerics.checks import require_one_of

Activation = Callable[[Array], Array]
"""What acts on each number of an array, such as `jnp.tanh`."""

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "relu": jax.nn.relu,
        "elu": jax.nn.elu,
        "gelu": jax.nn.gelu,
        "silu": jax.nn.silu,
        "softplus": jax.nn.softplus,
        "sin": jnp.sin,
        "identity": jax.nn.identity,
    }
)
"""The activations that can be asked for by name."""


def find_activation(activation: str | Activation) -> Activation:
    """The function that a name in `ACTIVATIONS` stands for; a function is returned as it is.

    Raises:
        ValueError: the name is not one of `ACTIVATIONS`.
    """
    if not isinstance(activation, str):
        return activation
    require_one_of(ACTIVATIONS, activation=activation)
    return ACTIVATIONS[activation]


@checked
def fourier(x: Float[Array, "*batch units"]) -> Float[Array, "*batch units"]:
    r"""Fourier features: sin x for the first half of the units, 1 - cos x for the second half.

    This is an activation for a frozen layer whose units are centred at the data's mean. A unit of
    slope s has values of size s or s^2, like the linear and the quadratic part of a function that
    it represents. Small slopes need large weights, but these multiply no rounding error of numbers
    near one, as they would with a cosine or a shifted tanh. The Taylor series of sine and cosine
    converge everywhere, that of tanh does not, so slopes can be several times as large.
    1 - cos x is computed as 2 sin^2(x / 2).
    """
    half = x.shape[-1] // 2
    return jnp.concatenate([jnp.sin(x[..., :half]), 2 * jnp.sin(0.5 * x[..., half:]) ** 2], axis=-1)
