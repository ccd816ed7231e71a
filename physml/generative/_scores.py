"""How good samples are: how near their distribution is to that of data, and what they leave out."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from physml._numerics.calls import checked
from physml._numerics.checks import require_count
from physml.generative._codec import checked_rows

_AT_ONCE = 10_000_000  # distances that are held at a time
Features = Float[Array | np.ndarray, "_rows size"]


@checked
def frechet_distance(real: Features, made: Features) -> float:
    r"""The squared Fréchet distance of the normal distributions of two samples.

    $$\|m_1 - m_2\|^2 + \mathrm{tr}\,(C_1 + C_2 - 2 (C_1 C_2)^{1/2})$$

    with m the means and C the covariances. In the features of a classifier of images it is known as
    the Fréchet inception distance. It is one between samples, and so is not zero for two samples of
    one truth: compare it with that of data against other data, of as many rows.

    Args:
        real, made: samples, a row each.

    Raises:
        ValueError: fewer than two rows, rows of different lengths, or not finite.

    Source: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", arXiv 1706.08500.

    >>> a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])  # deviations 2^0.5 and 8^0.5
    >>> round(generative.frechet_distance(a, b), 6)
    18.0
    """
    one, two = _pair(real=real, made=made)
    triangles = [
        np.asarray(np.linalg.qr((x - x.mean(axis=0)) / (len(x) - 1) ** 0.5, mode="r"))
        for x in (one, two)
    ]
    # The trace of the root of C_1 C_2 is the sum of the singular values of R_1 R_2^T.
    shared = np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False).sum()
    spread = sum(np.sum(triangle**2) for triangle in triangles)
    return float(np.sum((one.mean(axis=0) - two.mean(axis=0)) ** 2) + spread - 2 * shared)


class Nearest(NamedTuple):
    """The nearest row of a sample to each row of another.

    Attributes:
        index: which it is.
        distance: how far it is, Euclidean, in the data's unit.
    """

    index: Int[np.ndarray, " rows"]
    distance: Float[np.ndarray, " rows"]


@checked
def nearest(
    x: Float[Array | np.ndarray, "_rows *row"], train: Float[Array | np.ndarray, "_rows *row"]
) -> Nearest:
    """The nearest training row to each row, which shows whether samples are copies.

    Samples that are copies are nearer to the training data than other true data are.

    Args:
        x: samples, or anything else of the data's shape.
        train: the training data.

    Raises:
        ValueError: rows of different shapes, none, or not finite.
    """
    one, two = _pair(1, x=x, train=train)
    chunks = np.array_split(one, -(-len(one) * len(two) // _AT_ONCE))
    index = np.concatenate([_squares(chunk, two).argmin(axis=1) for chunk in chunks])
    # The differences themselves: the squares above cancel for near rows.
    return Nearest(index, np.linalg.norm(one - two[index], axis=1))


class Coverage(NamedTuple):
    """How far two samples cover each other.

    Attributes:
        precision: the share of generated rows that lie among the real ones.
        recall: the share of real rows that lie among the generated ones: low where a generator
            has collapsed to a few kinds of rows.
    """

    precision: float
    recall: float


@checked
def coverage(real: Features, made: Features, *, neighbours: int = 3) -> Coverage:
    r"""Precision and recall of generated rows, by the balls round rows that hold their neighbours.

    A row lies among those of a sample if it is in the ball round one of them that reaches to its
    k-th nearest neighbour in that sample.

    Args:
        real: true data, best in features in which distances mean something.
        made: as many generated rows.
        neighbours: k.

    Raises:
        ValueError: rows of different lengths, not finite, or no more rows than neighbours.

    Source: T. Kynkäänniemi et al., "Improved precision and recall metric for assessing generative
    models", arXiv 1904.06991.
    """
    one, two = _pair(real=real, made=made)
    least = min(len(one), len(two)) - 1
    require_count(1, (least, "the rows but one"), neighbours=neighbours)
    between = _squares(one, two)

    def radii(x: np.ndarray) -> np.ndarray:
        return np.partition(_squares(x, x), neighbours, axis=1)[:, neighbours]  # 0 is x itself

    return Coverage(
        precision=float((between <= radii(one)[:, None]).any(axis=0).mean()),
        recall=float((between <= radii(two)[None]).any(axis=1).mean()),
    )


def _pair(least: int = 2, /, **samples: Array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two samples as matrices in float64."""
    one, two = (checked_rows(name, rows, least) for name, rows in samples.items())
    if one.shape[1:] != two.shape[1:]:
        first, second = samples
        raise ValueError(
            f"{second} must have the rows of {first}, {one.shape[1:]}, got {two.shape[1:]}"
        )
    return _matrix(one), _matrix(two)


def _matrix(rows: Array) -> np.ndarray:
    return np.asarray(rows, np.float64).reshape(len(rows), -1)


def _squares(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The squared distance of every row of one sample to every row of another."""
    middle = two.mean(axis=0)
    one, two = one - middle, two - middle
    squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1)[None] - 2 * one @ two.T
    return np.maximum(squares, 0.0)
