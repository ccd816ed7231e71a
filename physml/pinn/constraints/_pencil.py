r"""The structure of $A y' + B y = \dots$ at one time: which components are differential, the index.

All ranks are found by singular values, after rows and columns were divided by their size, so that
no unit of a component or of an equation decides.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Array = np.ndarray

_SWEEPS = 20  # over rows and columns
_ROUNDINGS = 1e4  # times the dimension: relative singular values below that are rounding


class Pencil(NamedTuple):
    """The derivatives A in y' and B in y, taken apart.

    Attributes:
        rank: of A: the number of differential components.
        moved: a basis of the directions of y' that A sees.
        unseen: a basis of the others: the directions of the algebraic components.
        algebraic: combinations of equations without derivatives, one a row.
        coupling: what these say of the algebraic components; regular where the index is 1.
        index: of the pencil: 0 or 1; 2 stands for 2 or more, and -1 for a singular pencil.
    """

    rank: int
    moved: Float[Array, "dim rank"]
    unseen: Float[Array, "dim free"]
    algebraic: Float[Array, "free dim"]
    coupling: Float[Array, "free free"]
    index: int


def take_apart(by_rate: Float[Array, "dim dim"], by_state: Float[Array, "dim dim"]) -> Pencil:
    """The structure of the pencil (A, B) of finite matrices."""
    rows, columns = balance(by_rate)
    left, singular, right = np.linalg.svd(rows[:, None] * by_rate * columns)
    rank = _rank(singular)
    moved, unseen = columns[:, None] * right[:rank].T, columns[:, None] * right[rank:].T
    algebraic = left[:, rank:].T * rows
    coupling = algebraic @ by_state @ unseen
    if is_regular(coupling):
        index = int(rank < len(by_rate))
    else:
        index = 2 if _is_regular_pencil(by_rate, by_state) else -1
    return Pencil(rank, moved, unseen, algebraic, coupling, index)


def balance(matrix: Float[Array, "rows columns"]) -> tuple[Array, Array]:
    """Factors of rows and of columns that make the largest entry of each 1; 1 where all is zero.

    Source: D. Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices,
    RAL-TR-2001-034.
    """
    rows, columns = (np.ones(count, matrix.dtype) for count in matrix.shape)
    if not matrix.size:
        return rows, columns
    for _ in range(_SWEEPS):
        size = np.abs(rows[:, None] * matrix * columns)
        for factors, axis in ((rows, 1), (columns, 0)):
            largest = np.max(size, axis=axis)
            factors /= np.sqrt(np.where(largest > 0, largest, 1.0))
    return rows, columns


def rank_of(matrix: Float[Array, "rows columns"]) -> int:
    """The rank after balancing."""
    rows, columns = balance(matrix)
    return _rank(np.linalg.svd(rows[:, None] * matrix * columns, compute_uv=False))


def is_regular(matrix: Float[Array, "dim dim"]) -> bool:
    """Whether a square matrix has full rank."""
    return rank_of(matrix) == len(matrix)


def solve(
    matrix: Float[Array, "dim dim"], known: Float[Array, "dim *many"]
) -> Float[Array, "dim *many"]:
    """The solution of a regular linear system, with rows and columns balanced."""
    rows, columns = balance(matrix)
    return (columns * np.linalg.solve(rows[:, None] * matrix * columns, (rows * known.T).T).T).T


def _rank(singular: Float[Array, " dim"]) -> int:
    if not singular.size:
        return 0
    least = _ROUNDINGS * len(singular) * np.finfo(singular.dtype).eps * singular[0]
    return int(np.sum(singular > least))


def _is_regular_pencil(by_rate: Array, by_state: Array) -> bool:
    """Whether A + s B is regular for almost all s, at s of three sizes and both signs."""
    first, second = np.max(np.abs(by_rate)), np.max(np.abs(by_state))
    shares = (first / second if first > 0 and second > 0 else 1.0) * np.array(
        [0.03, -0.3, 0.9, -1.7, 31.0]
    )
    return any(is_regular(by_rate + share * by_state) for share in shares)
