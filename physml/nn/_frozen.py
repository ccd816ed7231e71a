"""Frozen random units: weights that are drawn for the data and never trained."""

import functools
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from physml._numerics import checks

A = TypeVar("A")

Centres = Literal["data", "mean"]
"""Where frozen units are zero: each at a random row of the data, or all at the data's mean."""


class Frozen(nnx.Variable[A]):
    """A weight that is set once and not trained.

    It is no `nnx.Param`, so a fit `wrt=nnx.Param` does not change it. It is saved, cast and moved
    between devices with the rest of its module.
    """


def check_rows(data: Array) -> Float[Array, "rows dim"]:
    """The data from which frozen weights are drawn, as a matrix whose columns all vary.

    Raises:
        TypeError: the data are no array of real numbers.
        ValueError: the data are no matrix with rows, not finite, or constant in a component.
    """
    data = checks.floating_array("data", data)
    if data.ndim != 2 or data.size == 0:
        raise ValueError(f"data must have shape (rows, dim), not empty, got {data.shape}")
    checks.require_finite("data", data)
    if checks.is_concrete(data) and not (np.ptp(data, axis=0) > 0).all():
        spans = np.ptp(data, axis=0)
        raise ValueError(f"data must vary in every component, got max - min = {spans}")
    return data


def frozen_inputs(
    data: Float[Array, "rows dim"],
    units: int,
    scale: float | Float[Array, " dim"],
    centres: Centres,
    rngs: nnx.Rngs,
) -> tuple[Float[Array, "dim units"], Float[Array, " units"]]:
    """Weights and biases of `units` random ridges made for the data.

    Unit j computes w_j . (x - c_j): w_ij = scale_i * n_ij / sd_i with n standard normal and sd_i
    the standard deviation of component i; one scale is that of every component. With centres
    "data", c_j is a row of the data drawn at random (with replacement), so that the units bend
    where the data are; with "mean" it is the data's mean. The bias is -w_j . c_j.

    Raises:
        ValueError: the scale is not positive, or neither one number nor one for each component; or
            the centres are unknown.
    """
    checks.require_positive(scale=scale)
    if jnp.shape(scale) not in ((), data.shape[1:]):
        shape = data.shape[1:]
        raise ValueError(f"scale must be one number or have shape {shape}, got {jnp.shape(scale)}")
    checks.require_one_of(get_args(Centres), centres=centres)
    return _ridges(data, units, scale, centres, rngs.params(), rngs.params())


@functools.partial(jax.jit, static_argnums=(1, 3))  # one program in place of a dozen small ones
def _ridges(
    data: Array, units: int, scale: Array, centres: Centres, key: Array, row_key: Array
) -> tuple[Array, Array]:
    normal = jax.random.normal(key, (data.shape[1], units), data.dtype)
    scales = jnp.broadcast_to(jnp.asarray(scale, data.dtype), data.shape[1:])
    weights = scales[:, None] * normal / data.std(axis=0)[:, None]
    if centres == "mean":
        return weights, -data.mean(axis=0) @ weights
    rows = jax.random.choice(row_key, data, (units,))
    return weights, -jnp.einsum("iw,wi->w", weights, rows)
