"""Rows picked by an index that is checked first: JAX would give the nearest row that exists."""

from collections.abc import Sequence

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

Index = (
    int
    | slice
    | Sequence[int]
    | Int[Array | np.ndarray, ""]
    | Int[Array | np.ndarray, " k"]
    | Bool[Array | np.ndarray, " n"]
)
"""What `trajectories[index]` and `images[index]` take: a number, a slice, numbers or a mask."""


def checked_index(index: object, count: int, rows: str) -> slice | np.ndarray | Array:
    """An index of `count` rows that keeps the rows' axis, so that one number picks a row of one.

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
