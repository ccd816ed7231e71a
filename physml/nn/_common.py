"""What every architecture shares: frozen variables, activations by name, the dtype rule."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, PyTree, Scalar

from physml._numerics.checks import floating_array, is_concrete, require_finite

A = TypeVar("A")

Centres = Literal["data", "mean"]
"""Where frozen units are zero: each at a random row of the data, or all at their mean."""

Activation = Callable[[Array], Array]

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


def fourier(x: Float[Array, "*batch units"]) -> Float[Array, "*batch units"]:
    r"""Fourier features that are zero at zero: sin x for the first half of the units, 1 - cos x
    for the others.

    An activation for a frozen layer whose units are centred at the mean. A unit of slope s is then
    of the size s or s^2, as are the linear and the quadratic part that it stands for, so that the
    large weights that small slopes ask for multiply no rounding error: with a cosine, or a tanh
    bent anywhere else, 1 / s^2 multiplies that of a number near one. And the Taylor series of sine
    and cosine, unlike that of tanh, converge everywhere, which allows slopes several times as
    large. 1 - cos x is computed as 2 sin^2(x / 2).
    """
    half = x.shape[-1] // 2
    return jnp.concatenate([jnp.sin(x[..., :half]), 2 * jnp.sin(0.5 * x[..., half:]) ** 2], axis=-1)


class Frozen(nnx.Variable[A]):
    """A weight that is set once and not trained.

    It is no `nnx.Param`, so whatever is fitted `wrt=nnx.Param` leaves it alone; it is saved, cast
    and moved between devices with the rest of its module.
    """


def find_activation(activation: str | Activation) -> Activation:
    """The function behind an activation's name; a function is handed back as it is.

    Raises:
        ValueError: the name is not one of `ACTIVATIONS`.
    """
    if not isinstance(activation, str):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be a function or one of {', '.join(ACTIVATIONS)}; got {activation!r}"
        )
    return ACTIVATIONS[activation]


def find_dtype(dtype: DTypeLike | None) -> jnp.dtype:
    """The dtype of a network's weights; None means JAX's default float (float64 under x64).

    Raises:
        ValueError: the dtype is no floating dtype, or float64 is asked for while x64 is off.
    """
    found = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype must be a floating dtype; got {found}")
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise ValueError(
            f"dtype {found} was asked for while x64 is off: "
            'call jax.config.update("jax_enable_x64", True) first, or ask for float32'
        )
    return found


def check_positive(**sizes: int) -> None:
    """Raise a TypeError that names the first size that is no integer, a ValueError below one."""
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer):
            raise TypeError(f"{name} must be an integer; got {size!r}")
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}")


def check_one_of(choices: Any, **values: str) -> None:
    """Raise a ValueError that names the first value that is none of a Literal's."""
    for name, value in values.items():
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")


def check_rows(data: Array) -> Float[Array, "rows dim"]:
    """The data from which frozen weights are drawn, as a matrix whose columns all vary.

    Raises:
        TypeError: the data are no array of real numbers.
        ValueError: the data are no matrix with rows, not finite, or constant in a component.
    """
    data = floating_array("data", data)
    if data.ndim != 2 or data.size == 0:
        raise ValueError(f"data must have shape (rows, dim), not empty; got {data.shape}")
    require_finite("data", data)
    if is_concrete(data) and not (np.ptp(data, axis=0) > 0).all():
        spans = np.ptp(data, axis=0)
        raise ValueError(f"data must vary in every component; got max - min = {spans}")
    return data


def frozen_inputs(
    data: Float[Array, "rows dim"], units: int, scale: float, centres: Centres, rngs: nnx.Rngs
) -> tuple[Float[Array, "dim units"], Float[Array, " units"]]:
    """Weights and biases of `units` random ridges made for the data.

    Unit j computes w_j . (x - c_j): w_ij = scale * n_ij / sd_i with n standard normal and sd_i the
    standard deviation of component i. With centres "data", c_j is a row of the data drawn at random
    (with replacement), and the units bend where the data are; with "mean" it is the data's mean.
    The bias is -w_j . c_j.

    Raises:
        ValueError: the scale is not positive, or the centres are unknown.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive; got {scale}")
    check_one_of(Centres, centres=centres)
    return _ridges(data, units, scale, centres, rngs.params(), rngs.params())


@functools.partial(jax.jit, static_argnums=(1, 3))  # one program in place of a dozen small ones
def _ridges(
    data: Array, units: int, scale: Array, centres: Centres, key: Array, row_key: Array
) -> Any:
    normal = jax.random.normal(key, (data.shape[1], units), data.dtype)
    weights = scale * normal / data.std(axis=0)[:, None]
    if centres == "mean":
        return weights, -data.mean(axis=0) @ weights
    rows = jax.random.choice(row_key, data, (units,))
    return weights, -jnp.einsum("iw,wi->w", weights, rows)


def hidden_kernels(params: PyTree) -> PyTree:
    """Which parameters weight decay is to keep small: every matrix but the readout's.

    A mask for `optax.adamw(..., mask=nn.hidden_kernels)`. Small hidden weights make smooth
    features, and for smooth maps these are what a readout fitted afterwards needs.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and "readout" not in jax.tree_util.keystr(path), params
    )


def square_norm(model: Any) -> Scalar:
    r"""The sum of the squares of all the weights of a network, biases and the like left out.

    $$\sum_l \lVert W_l \rVert^2$$

    over the trained matrices and filters. A loss plus lambda times this is L2 regularisation as
    Keras's `kernel_regularizer` has it in every layer; half its gradient is what weight decay
    subtracts.
    """
    return _over_kernels(jnp.square, model)


def absolute_norm(model: Any) -> Scalar:
    r"""The sum of the absolute values of all the weights of a network, those of `square_norm`.

    $$\sum_l \sum_{ij} |W_{l,ij}|$$

    A loss plus lambda times this is L1 regularisation, which makes weights vanish.
    """
    return _over_kernels(jnp.abs, model)


def _over_kernels(size: Callable[[Array], Array], model: Any) -> Scalar:
    kernels = [leaf for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim > 1]
    return sum((jnp.sum(size(kernel)) for kernel in kernels[1:]), jnp.sum(size(kernels[0])))


def set_evaluation(model: Any) -> None:
    """Turn off dropout, and let batch normalisation use what it has learned, in place.

    Args:
        model: a module, or a pytree that holds some.
    """
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Module):
            node.eval()
