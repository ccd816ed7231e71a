"""How good a classifier's probabilities are: accuracy, confusions, calibration, worst errors."""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from physml._checks import require_finite

Labels = Int[np.ndarray, " n"]


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float | Float[np.ndarray, "*models"]:
    """The share of images whose most probable class is theirs.

    Args:
        probabilities: (..., n, classes), or logits; one accuracy for each leading index.
        labels: the class of each image, (n,).

    Raises:
        TypeError: labels that are not integers.
        ValueError: shapes that do not fit, nothing in them, values that are not finite, or labels
            out of range.
    """
    values, classes = _checked(probabilities, labels)
    return (values.argmax(axis=-1) == classes).mean(axis=-1)


def confusion_matrix(
    probabilities: ArrayLike, labels: ArrayLike
) -> Int[np.ndarray, "classes classes"]:
    """How many images of class i (row) are taken for class j (column).

    Args:
        probabilities: (n, classes).
        labels: (n,).

    Raises:
        TypeError, ValueError: as `accuracy`.
    """
    values, classes = _one(probabilities, labels)
    size = values.shape[1]
    pairs = size * classes + values.argmax(axis=1)
    return np.bincount(pairs, minlength=size**2).reshape(size, size)


def _checked(probabilities: Any, labels: Any) -> tuple[np.ndarray, Labels]:
    values, classes = np.asarray(probabilities), np.asarray(labels)
    if values.ndim < 2 or values.size == 0:
        raise ValueError(
            f"probabilities must have shape (..., n, classes), not empty; got {values.shape}"
        )
    if classes.shape != values.shape[-2:-1]:
        raise ValueError(
            f"labels must have shape ({values.shape[-2]},), one for each row of probabilities; "
            f"got {classes.shape}"
        )
    if classes.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers; got dtype {classes.dtype}")
    require_finite("probabilities", values)
    wrong = np.flatnonzero((classes < 0) | (classes >= values.shape[-1]))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"labels must be from 0 to {values.shape[-1] - 1}, as there are {values.shape[-1]} "
            f"probabilities in a row; got {classes[i]} at index {i}"
        )
    return values, classes


def _one(probabilities: Any, labels: Any) -> tuple[np.ndarray, Labels]:
    """The same, of one model."""
    values, classes = _checked(probabilities, labels)
    if values.ndim != 2:
        raise ValueError(
            f"probabilities must have shape (n, classes), those of one model; got {values.shape}"
        )
    return values, classes
