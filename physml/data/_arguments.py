"""Checks of what users hand to this room: paths, names, times, and indices of rows."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from physml._numerics import checks

Index = (
    int
    | slice
    | Sequence[int]
    | Int[Array | np.ndarray, ""]
    | Int[Array | np.ndarray, " k"]
    | Bool[Array | np.ndarray, " n"]
)
"""What `trajectories[index]` and `images[index]` take: a number, a slice, numbers or a mask."""


def checked_path(name: str, path: object) -> Path:
    """A path; raises TypeError unless it is text or a path (`open` would take a number too)."""
    if not isinstance(path, str | os.PathLike) or path == "":
        raise TypeError(f"{name} must be a path, got {path!r}")
    return Path(path)


def require_arrays(kind: type, **values: object) -> None:
    """Raise TypeError unless every value is an array with entries of a kind, as `jnp.floating`."""
    for name, value in values.items():
        array = isinstance(value, jax.Array | np.ndarray)
        if not array or not jnp.issubdtype(value.dtype, kind):
            got = value.dtype if array else type(value).__name__
            raise TypeError(
                f"{name} must be an array of a dtype that is {kind.__name__}, got {got}: "
                "from_arrays makes one of what it is given"
            )


def checked_names(argument: str, names: object) -> tuple[str, ...]:
    """Names as a tuple of different strings.

    Raises:
        TypeError: they are no sequence of strings; one string is none.
        ValueError: two are the same.
    """
    listed = tuple(names) if isinstance(names, list | tuple | np.ndarray) else (None,)
    if not all(isinstance(name, str) for name in listed):
        raise TypeError(f"{argument} must be a list or tuple of strings, got {names!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{argument} must differ from each other, got {listed}")
    return tuple(map(str, listed))  # plain strings where NumPy's came


def checked_times(name: str, times: object) -> np.ndarray:
    """Finite real numbers (n,) in float64 on the host, whatever JAX's precision.

    Raises:
        TypeError: the times are no real numbers, or are traced.
        ValueError: they are not finite, or have another shape.
    """
    if not checks.is_concrete(times):
        raise TypeError(f"{name} must not be traced, got {times}")
    try:
        array = np.asarray(times)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of real numbers, got {error}") from error
    if getattr(array.dtype, "kind", "V") not in "iu" and not jnp.issubdtype(
        array.dtype, jnp.floating
    ):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got {array.shape}")
    checks.require_finite(name, array)
    return array.astype(float)


def checked_index(index: object, count: int, rows: str) -> slice | np.ndarray | Array:
    """An index of `count` rows that keeps the rows' axis, so that one number picks a row of one.

    It is checked, because JAX would take the nearest row where there is none.

    Args:
        index: a whole number, a slice, whole numbers (k,) or a mask (count,). Negative numbers
            count from the end. Traced numbers are not looked at.
        count: how many rows there are.
        rows: what they are, for the messages.

    Raises:
        TypeError: the index is of no such kind.
        IndexError: a number has no row, a mask has another length, or nothing is picked.
    """
    if isinstance(index, slice):
        try:
            chosen = range(count)[index]
        except (TypeError, ValueError) as error:
            raise TypeError(f"index must be a slice of whole numbers, got {index}") from error
        return _not_empty(index, len(chosen), count, rows)
    if isinstance(index, Tracer):
        if index.dtype.kind not in "iu" or index.ndim > 1:
            raise TypeError(f"index must hold whole numbers (k,) while it is traced, got {index}")
        return index.reshape(-1)
    numbers = _numbers(index)
    if numbers.dtype == bool:
        if len(numbers) != count:
            raise IndexError(
                f"index must have {count} entries as a mask, one for each of the {rows}, "
                f"got {len(numbers)}"
            )
        numbers = np.flatnonzero(numbers)
    wrong = numbers[(numbers < -count) | (numbers >= count)]
    if len(wrong):
        raise IndexError(
            f"index must be from {-count} to {count - 1} for {count} {rows}, got {wrong[0]}"
        )
    return _not_empty(numbers, len(numbers), count, rows)


def _numbers(index: object) -> np.ndarray:
    """Whole numbers (k,) or a mask (n,)."""
    try:
        array = np.asarray(index)
    except (TypeError, ValueError):  # lists of different lengths, traced numbers in a list
        array = np.asarray(None)
    if isinstance(index, list | tuple) and not len(index):
        array = array.astype(int)  # of no entries NumPy makes floats
    if array.ndim > 1 or array.dtype.kind not in "iub" or (array.dtype == bool and not array.ndim):
        raise TypeError(
            "index must be a whole number, a slice, whole numbers (k,) or a mask (n,), "
            f"got {index!r}"
        )
    return array.reshape(-1)


def _not_empty(index: slice | np.ndarray, chosen: int, count: int, rows: str) -> slice | np.ndarray:
    if not chosen:
        raise IndexError(f"index must pick at least one of {count} {rows}, got {index}")
    return index
