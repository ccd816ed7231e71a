"""Image classification: losses, augmentation, predictions and what they are worth."""

from physml.classify.evaluation import accuracy, confusion_matrix
from physml.classify.objective import cross_entropy, error_rate
from physml.classify.prediction import logits, member_probabilities, probabilities

__all__ = [
    "accuracy",
    "confusion_matrix",
    "cross_entropy",
    "error_rate",
    "logits",
    "member_probabilities",
    "probabilities",
]
