"""How good a classifier's probabilities are: accuracy, confusions, calibration, worst errors."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int

from physml._numerics.calls import checked
from physml._numerics.checks import require_count, require_finite
from physml.data import Images

Labels = Int[np.ndarray, " n"]


@checked
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
    from sklearn.metrics import accuracy_score  # takes a second, which only its users should pay

    values, classes = _checked(probabilities, labels)
    return float(accuracy_score(classes, values.argmax(axis=1)))


@checked
def confusion_matrix(
    probabilities: ArrayLike, labels: ArrayLike
) -> Int[np.ndarray, "classes classes"]:
    """How many images of class i (row) are taken for class j (column).

    Args, Raises: as `accuracy`.
    """
    from sklearn import metrics

    values, classes = _checked(probabilities, labels)
    size = range(values.shape[1])
    return metrics.confusion_matrix(classes, values.argmax(axis=1), labels=size)


class Calibration(NamedTuple):
    """Confidence beside accuracy in bins of confidence: the numbers of a reliability diagram.

    Attributes:
        edges: of the bins of confidence, from 0 to 1.
        counts: how many images are in each bin.
        confidence: the mean probability of the most probable class, NaN in an empty bin.
        accuracy: the share of images of the most probable class, NaN in an empty bin.
        error: the expected calibration error.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    error: float


@checked
def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Calibration:
    r"""Confidence beside accuracy, in bins of confidence of equal width.

    $$\mathrm{ECE} = \sum_b \frac{n_b}{n}\, \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert$$

    A bin includes its upper edge, not its lower one (Guo et al., arXiv 1706.04599, equations 2
    and 3). scikit-learn's `calibration_curve` takes two classes only and leaves out the counts.

    Args:
        probabilities: (n, classes).
        labels: (n,).
        bins: how many.

    Raises:
        TypeError: as `accuracy`.
        ValueError: as `accuracy`; rows that are no probabilities, or less than one bin.
    """
    require_count(bins=bins)
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
        predicted: the class for which each is taken.
        labels: its own class.
        confidence: the probability of the predicted class.
    """

    index: Int[np.ndarray, " errors"]
    predicted: Int[np.ndarray, " errors"]
    labels: Int[np.ndarray, " errors"]
    confidence: Float[np.ndarray, " errors"]


@checked
def top_errors(probabilities: ArrayLike, labels: ArrayLike, k: int) -> TopErrors:
    """The k most confident mistakes, or all if there are fewer.

    Args:
        probabilities: (n, classes).
        labels: (n,).
        k: how many.

    Raises:
        TypeError, ValueError: as `calibration`; a negative k.
    """
    require_count(k=k)
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
        cross_entropy: the mean of -log of the probability of an image's class. A probability below
            its dtype's rounding error is replaced by that, as in scikit-learn's log_loss.
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
        """The class of each of the `top_errors`, and the class for which it was taken, in words."""
        pairs = zip(self.top_errors.labels, self.top_errors.predicted, strict=True)
        return [f"{self.names[i]},\ntaken for {self.names[j]}" for i, j in pairs]

    def summary(self) -> str:
        """A table of the classes: images, accuracy, and the most frequent mistake."""
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


@checked
def evaluate(
    probabilities: ArrayLike, images: Images, *, bins: int = 15, errors: int = 25
) -> Evaluation:
    """Accuracy, cross-entropy, confusions, calibration and the worst errors in one record.

    >>> images = data.Images.from_arrays(np.zeros((2, 4, 4)), [0, 1])
    >>> found = classify.evaluate(np.array([[0.9, 0.1], [0.2, 0.8]]), images)
    >>> found.accuracy, round(found.cross_entropy, 3)
    (1.0, 0.164)

    Args:
        probabilities: (n, classes), by one model or an ensemble, of any number of views.
        images: the images, for their labels and names.
        bins: of the calibration.
        errors: how many are kept.

    Raises:
        TypeError, ValueError: as `calibration` and `top_errors`; another number of classes than
            the images have.
    """
    require_count(bins=bins, errors=errors)
    values, classes = _distributions(probabilities, images.labels)
    if values.shape[1] != len(images.names):
        raise ValueError(
            f"probabilities must have a column for each of the {len(images.names)} classes of the "
            f"images, got {values.shape}"
        )
    # sklearn's log_loss would sum in the probabilities' dtype, and warn where rounding to float32
    # makes a row's sum differ from 1.
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


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, Labels]:
    values, classes = np.asarray(probabilities), np.asarray(labels)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(
            "probabilities must have shape (n, classes), of one model, not empty, "
            f"got {values.shape}"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"probabilities must be floats, got dtype {values.dtype}")
    if classes.shape != values.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(values)},), one for each row of probabilities, "
            f"got {classes.shape}"
        )
    if classes.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {classes.dtype}")
    require_finite("probabilities", values)
    wrong = np.flatnonzero((classes < 0) | (classes >= values.shape[1]))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"labels must be from 0 to {values.shape[1] - 1}, the columns of probabilities, "
            f"got {classes[i]} at index {i}"
        )
    return values, classes.astype(int)


def _distributions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, Labels]:
    """As `_checked`, and every row must be a distribution."""
    values, classes = _checked(probabilities, labels)
    sums = values.sum(axis=1, dtype=float)
    wrong = np.flatnonzero((values < 0).any(axis=1) | (np.abs(sums - 1) > 1e-2))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            "probabilities must not be negative and must add to 1 in every row, got "
            f"a sum of {sums[i]:.6g} in row {i}: of logits, take the softmax"
        )
    return values, classes
