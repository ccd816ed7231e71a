"""How good a classifier's probabilities are: accuracy, confusions, calibration, worst errors."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int

from physml._numerics.checks import require_finite
from physml.data import Images

Labels = Int[np.ndarray, " n"]


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The share of images whose most probable class is theirs.

    Args:
        probabilities: (n, classes), or logits.
        labels: the class of each image, (n,).

    Raises:
        TypeError: probabilities that are not floats, or labels that are not integers.
        ValueError: shapes that do not fit, nothing in them, values that are not finite, or labels
            out of range.
    """
    values, classes = _checked(probabilities, labels)
    return float((values.argmax(axis=1) == classes).mean())


def confusion_matrix(
    probabilities: ArrayLike, labels: ArrayLike
) -> Int[np.ndarray, "classes classes"]:
    """How many images of class i (row) are taken for class j (column).

    Args:
        probabilities: (n, classes), or logits.
        labels: (n,).

    Raises:
        TypeError, ValueError: as `accuracy`.
    """
    values, classes = _checked(probabilities, labels)
    size = values.shape[1]
    pairs = size * classes + values.argmax(axis=1)
    return np.bincount(pairs, minlength=size**2).reshape(size, size)


class Calibration(NamedTuple):
    """How often a classifier is right where it is so sure: a reliability diagram.

    Attributes:
        edges: of the bins of confidence, from 0 to 1.
        counts: how many images are in each bin.
        confidence: the mean probability of the most probable class, NaN in an empty bin.
        accuracy: the share of images whose class that is, NaN in an empty bin.
        error: the expected calibration error.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    error: float


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Calibration:
    r"""Confidence beside accuracy, in bins of confidence of equal width.

    $$\mathrm{ECE} = \sum_b \frac{n_b}{n}\, \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert$$

    A bin has its upper edge, not its lower one (Guo et al., arXiv 1706.04599, equations 2 and 3).

    Args:
        probabilities: (n, classes).
        labels: (n,).
        bins: how many.

    Raises:
        TypeError: as `accuracy`.
        ValueError: as `accuracy`; rows that are no probabilities, or less than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    values, classes = _distributions(probabilities, labels)
    edges = np.linspace(0.0, 1.0, bins + 1)
    sure, right = values.max(axis=1).astype(float), values.argmax(axis=1) == classes
    where = np.digitize(sure, edges[1:-1], right=True)
    counts = np.bincount(where, minlength=bins)
    confidence = _share(np.bincount(where, sure, bins), counts)
    correct = _share(np.bincount(where, right, bins), counts)
    error = np.nansum(counts * np.abs(correct - confidence)) / len(classes)
    return Calibration(edges, counts, confidence, correct, float(error))


class TopErrors(NamedTuple):
    """Images taken for another class, the most confident mistake first.

    Attributes:
        index: which images.
        predicted: what each is taken for.
        labels: what it is.
        confidence: the probability of what it is taken for.
    """

    index: Int[np.ndarray, " errors"]
    predicted: Int[np.ndarray, " errors"]
    labels: Int[np.ndarray, " errors"]
    confidence: Float[np.ndarray, " errors"]


def top_errors(probabilities: ArrayLike, labels: ArrayLike, k: int) -> TopErrors:
    """The k most confident mistakes, or all if there are fewer.

    Args:
        probabilities: (n, classes).
        labels: (n,).
        k: how many.

    Raises:
        TypeError, ValueError: as `calibration`; a negative k.
    """
    if k < 0:
        raise ValueError(f"k must not be negative; got {k}")
    values, classes = _distributions(probabilities, labels)
    predicted, sure = values.argmax(axis=1), values.max(axis=1)
    wrong = np.flatnonzero(predicted != classes)
    index = wrong[np.argsort(-sure[wrong], kind="stable")][:k]
    return TopErrors(index, predicted[index], classes[index], sure[index])


@dataclass(frozen=True)
class Evaluation:
    """What a classifier's probabilities of labelled images are worth.

    Attributes:
        names: the classes' names.
        accuracy: the share of images whose most probable class is theirs.
        cross_entropy: the mean of -log of the probability of an image's class, where those below
            their dtype's rounding count as that, as in scikit-learn's log_loss.
        confusion: how many of class i (row) are taken for class j (column).
        calibration: confidence beside accuracy.
        top_errors: the most confident mistakes.
    """

    names: tuple[str, ...]
    accuracy: float
    cross_entropy: float
    confusion: Int[np.ndarray, "classes classes"]
    calibration: Calibration
    top_errors: TopErrors

    @property
    def class_accuracy(self) -> Float[np.ndarray, " classes"]:
        """The accuracy on the images of each class, NaN where there are none."""
        return _share(self.confusion.diagonal(), self.confusion.sum(axis=1))

    @property
    def mistakes(self) -> list[str]:
        """What each of the `top_errors` is and what it was taken for, in words."""
        pairs = zip(self.top_errors.labels, self.top_errors.predicted, strict=True)
        return [f"{self.names[i]},\ntaken for {self.names[j]}" for i, j in pairs]

    def summary(self) -> str:
        """A table of the classes: images, accuracy, and what most of the others are taken for."""
        lines = [("class", "images", "accuracy", "taken for")]
        mistakes = self.confusion - np.diag(self.confusion.diagonal())
        rows = zip(self.names, self.confusion, self.class_accuracy, mistakes, strict=True)
        for name, row, share, others in rows:
            most = int(others.argmax())
            mistake = f"{self.names[most]} ({others[most]})" if others[most] else ""
            percent = f"{100 * share:.2f} %" if row.sum() else ""
            lines.append((name, f"{row.sum():,}", percent, mistake))
        lines.append(("all", f"{self.confusion.sum():,}", f"{100 * self.accuracy:.2f} %", ""))
        first, second, third, _ = (max(map(len, column)) for column in zip(*lines, strict=True))
        table = [f"{a:<{first}}  {b:>{second}}  {c:>{third}}  {d}".rstrip() for a, b, c, d in lines]
        scores = f"cross-entropy {self.cross_entropy:.4f}, "
        return "\n".join([*table, scores + f"calibration error {self.calibration.error:.4f}"])


def evaluate(
    probabilities: ArrayLike, images: Images, *, bins: int = 15, errors: int = 25
) -> Evaluation:
    """Accuracy, cross-entropy, confusions, calibration and the worst errors in one record.

    ```python
    print(classify.evaluate(classify.probabilities(network, test), test).summary())
    ```

    Args:
        probabilities: (n, classes), by one model or an ensemble, of any number of views.
        images: the images, for their labels and names.
        bins: of the calibration.
        errors: how many are kept.

    Raises:
        TypeError, ValueError: as `calibration` and `top_errors`; another number of classes than
            the images have.
    """
    values, classes = _distributions(probabilities, images.labels)
    if values.shape[1] != len(images.names):
        raise ValueError(
            f"probabilities must have a column for each of the {len(images.names)} classes of the "
            f"images; got {values.shape}"
        )
    given = values[np.arange(len(classes)), classes].astype(float)
    return Evaluation(
        names=images.names,
        accuracy=accuracy(values, classes),
        cross_entropy=float(-np.log(np.maximum(given, jnp.finfo(values.dtype).eps)).mean()),
        confusion=confusion_matrix(values, classes),
        calibration=calibration(values, classes, bins),
        top_errors=top_errors(values, classes, errors),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> Float[np.ndarray, " n"]:
    """The quotient, NaN where it is 0 / 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _checked(probabilities: Any, labels: Any) -> tuple[np.ndarray, Labels]:
    values, classes = np.asarray(probabilities), np.asarray(labels)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(
            "probabilities must have shape (n, classes), those of one model, not empty; "
            f"got {values.shape}"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"probabilities must be floats; got dtype {values.dtype}")
    if classes.shape != values.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(values)},), one for each row of probabilities; "
            f"got {classes.shape}"
        )
    if classes.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers; got dtype {classes.dtype}")
    require_finite("probabilities", values)
    wrong = np.flatnonzero((classes < 0) | (classes >= values.shape[1]))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"labels must be from 0 to {values.shape[1] - 1}, as there are {values.shape[1]} "
            f"probabilities in a row; got {classes[i]} at index {i}"
        )
    return values, classes.astype(int)


def _distributions(probabilities: Any, labels: Any) -> tuple[np.ndarray, Labels]:
    """The same, with rows that are probabilities."""
    values, classes = _checked(probabilities, labels)
    sums = values.sum(axis=1, dtype=float)
    wrong = np.flatnonzero((values < 0).any(axis=1) | (np.abs(sums - 1) > 1e-2))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            "probabilities must not be negative and add to 1 in every row; row "
            f"{i} adds to {sums[i]:.6g}: of logits, take the softmax"
        )
    return values, classes
