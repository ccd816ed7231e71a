"""Compile a pure function once for its shapes, and measure how long that takes."""

import functools
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

_ONE_AT_A_TIME = threading.Lock()  # so that two threads do not compile one program twice


class _Traced:
    """Marks the place of a traced leaf in the static part of a tree."""


def compiled(function: Callable[..., Any], *args: PyTree) -> tuple[Callable[..., Any], float]:
    """`function` compiled for arguments like `args`, and the seconds that compiling took.

    Arrays in `args` are traced. Everything else (functions, activations, Python numbers, the graph
    definition of a network) is static and compared by value, so that a second fit with the same
    functions and shapes finds the program of the first and compiles nothing.

    Args:
        function: a pure function at module level; a closure would be a new function each time.
        args: pytrees.

    Returns:
        A callable that takes arguments of the same structure, shapes and dtypes, and the seconds
        spent on tracing and compiling (nearly zero if the program was there already).
    """
    start = time.perf_counter()
    traced, static = _split(args)
    with _ONE_AT_A_TIME:
        program = _apply.lower(function, static, traced).compile()
    return lambda *args: program(_split(args)[0]), time.perf_counter() - start


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(function: Callable[..., Any], static: Any, traced: list[Any]) -> Any:
    structure, leaves = static
    arrays = iter(traced)
    merged = [next(arrays) if kind is _Traced else leaf for kind, leaf in leaves]
    return function(*jax.tree.unflatten(structure, merged))


def _split(tree: PyTree) -> tuple[list[Any], Any]:
    """The arrays of a tree, and everything else in it as a hashable value."""
    leaves, structure = jax.tree.flatten(jax.tree.map(_opened, tree))
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    traced = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    # The type is part of the comparison, since 1 == 1.0 == True.
    static = tuple(
        (_Traced, None) if array else (type(leaf), leaf)
        for leaf, array in zip(leaves, is_array, strict=True)
    )
    return traced, (structure, static)


def _opened(leaf: Any) -> Any:
    """A bound method as a pytree, so that what its object holds is traced.

    A bound method equals itself even if its object has changed: as a static leaf it would find the
    program with the old weights compiled in.
    """
    if inspect.ismethod(leaf) and not inspect.isclass(leaf.__self__):
        return jax.tree_util.Partial(leaf.__func__, leaf.__self__)
    return leaf
