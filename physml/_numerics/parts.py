"""Take a model apart into what is trained, what else it holds, and how to put it together."""

from collections.abc import Callable
from types import EllipsisType
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, PyTree

from physml._numerics.checks import floating_array
from physml._numerics.compiled import constant

T = TypeVar("T", bound=PyTree)

Filter = type | str | bool | EllipsisType | None | tuple | list | Callable[..., bool]
"""A Flax filter, which says what variables of a model are meant."""


class Parts(eqx.Module):
    """How a model is put together from its trained arrays and its other arrays.

    A model that holds Flax variables, at any depth, is split by `nnx.split`, which keeps shared
    variables shared. Any other pytree (a dict of arrays, an `eqx.Module`) trains its floating
    arrays.
    """

    graph: nnx.GraphDef | None = eqx.field(static=True)  # None for a plain pytree
    wrt: Filter = eqx.field(static=True)
    static: PyTree  # what a plain pytree holds besides arrays

    def merge(self, params: PyTree, rest: PyTree) -> PyTree:
        """The model."""
        if self.graph is None:
            return eqx.combine(params, rest, self.static)
        return nnx.merge(self.graph, params, rest, copy=True)

    def rest(self, model: PyTree, before: PyTree) -> PyTree:
        """What the model holds besides parameters, after a call has changed it."""
        return before if self.graph is None else nnx.split(model, self.wrt, ...)[2]


def take_apart(model: PyTree, wrt: Filter) -> tuple[Parts, PyTree, PyTree]:
    """A model's `Parts`, its trained arrays and its other arrays.

    Raises:
        ValueError: if `wrt` selects nothing, or is given for a model without Flax variables.
    """
    name = type(model).__name__
    variables = jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, nnx.Variable))
    if any(isinstance(leaf, nnx.Variable) for leaf in variables):
        graph, params, rest = nnx.split(model, wrt, ...)
        parts = Parts(graph=graph, wrt=wrt, static=None)
    else:
        if wrt is not nnx.Param:
            raise ValueError(
                f"wrt must be nnx.Param for a model without Flax variables, got {wrt} for {name}"
            )
        numpy, model = eqx.partition(model, lambda leaf: isinstance(leaf, np.ndarray))
        model = eqx.combine(as_arrays("model", numpy), model)
        arrays, static = eqx.partition(model, eqx.is_array)
        params, rest = eqx.partition(arrays, eqx.is_inexact_array)
        parts = Parts(graph=None, wrt=None, static=static)
    if not jax.tree.leaves(params):
        raise ValueError(f"wrt must select something to train, got {wrt}, nothing in {name}")
    return parts, params, rest


def as_arrays(name: str, tree: PyTree) -> PyTree:
    """The leaves of a pytree of data as JAX arrays.

    Raises:
        ValueError: if a NumPy array is float64 while `jax_enable_x64` is off.
    """

    def convert(path: tuple, leaf: ArrayLike) -> Array:
        if isinstance(leaf, np.ndarray | np.generic) and np.issubdtype(leaf.dtype, np.floating):
            return floating_array(name + jax.tree_util.keystr(path), leaf)
        return jnp.asarray(leaf)

    return jax.tree.map_with_path(convert, tree)


def traced(settings: PyTree) -> PyTree:
    """Settings with their Python numbers as arrays, so that another value compiles nothing."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float | int) else x, settings)


def fixed(tree: T) -> T:
    """A tree without derivatives in its numbers.

    Where nothing but a derivative is traced, JAX answers with Python's floats, which are arrays
    again here, because they would be compiled into each program.
    """

    def stop(x: Any) -> Any:
        found = jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x
        return constant(found) if found is not x and isinstance(found, float) else found

    return jax.tree.map(stop, tree)


def as_pytree(function: Callable) -> Callable:
    """A function as a pytree: a plain function becomes static, a callable pytree keeps its leaves.

    Raises:
        TypeError: `function` cannot be called.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {function!r}")
    plain = jax.tree_util.all_leaves([function])
    return jax.tree_util.Partial(function) if plain else function
