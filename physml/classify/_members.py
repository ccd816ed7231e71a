"""What several models are worth, each alone and all together."""

import numpy as np

from physml._numerics.calls import checked
from physml._types import Numbers
from physml.classify._evaluation import Evaluation, evaluate
from physml.data import Images


@checked
def evaluate_members(probabilities: Numbers, images: Images) -> tuple[list[Evaluation], Evaluation]:
    """Evaluate each of several models alone, and their ensemble, the mean of the probabilities.

    Args:
        probabilities: of each model, (models, n, classes), as `member_probabilities` gives them.
        images: the n images, for their labels and names.

    Raises:
        TypeError, ValueError: as `evaluate`.

    Example:
        >>> digits = data.digits()[:4]
        >>> right, even = np.eye(10)[np.asarray(digits.labels)], np.full((4, 10), 0.1)
        >>> alone, together = classify.evaluate_members([right, even], digits)
        >>> [found.accuracy for found in alone], together.accuracy
        ([1.0, 0.25], 1.0)
    """
    members = np.asarray(probabilities)
    if members.ndim != 3:
        raise ValueError(
            f"probabilities must have shape (models, n, classes), got shape {members.shape}"
        )
    return [evaluate(each, images) for each in members], evaluate(members.mean(axis=0), images)
