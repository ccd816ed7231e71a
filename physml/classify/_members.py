"""What several models are worth, each alone and all together."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from physml.classify._evaluation import Evaluation, evaluate
from physml.data import Images


class Members(NamedTuple):
    """What several models are worth, each alone and all together.

    Attributes:
        each: of each model.
        together: of the ensemble, the mean of the models' probabilities.
    """

    each: list[Evaluation]
    together: Evaluation

    @property
    def accuracy(self) -> Float[np.ndarray, " models"]:
        """The accuracy of each model."""
        return np.array([found.accuracy for found in self.each])

    @property
    def cross_entropy(self) -> Float[np.ndarray, " models"]:
        """The cross-entropy of each model."""
        return np.array([found.cross_entropy for found in self.each])


def evaluate_members(probabilities: Any, images: Images) -> Members:
    """Evaluate models that see the same images, each alone and their mean.

    Args:
        probabilities: (models, n, classes), as `member_probabilities` gives them.
        images: the n images, for their labels and names.

    Raises:
        TypeError, ValueError: as `evaluate`.

    Example:
        >>> digits = data.digits()[:4]
        >>> right = np.eye(10)[np.asarray(digits.labels)]
        >>> members = classify.evaluate_members([right, np.full((4, 10), 0.1)], digits)
        >>> members.accuracy.tolist(), members.together.accuracy
        ([1.0, 0.25], 1.0)
    """
    members = np.asarray(probabilities)
    return Members([evaluate(each, images) for each in members], evaluate(members.mean(0), images))
