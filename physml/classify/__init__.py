"""Image classification: losses, augmentation, predictions and what they are worth."""

from physml.classify._augmentation import Augmentation
from physml.classify._evaluation import (
    Calibration,
    Evaluation,
    TopErrors,
    accuracy,
    calibration,
    confusion_matrix,
    evaluate,
    top_errors,
)
from physml.classify._members import evaluate_members
from physml.classify._objective import cross_entropy, error_rate
from physml.classify._prediction import logits, member_probabilities, probabilities
from physml.classify._training import fit

__all__ = [
    "Augmentation",
    "Calibration",
    "Evaluation",
    "TopErrors",
    "accuracy",
    "calibration",
    "confusion_matrix",
    "cross_entropy",
    "error_rate",
    "evaluate",
    "evaluate_members",
    "fit",
    "logits",
    "member_probabilities",
    "probabilities",
    "top_errors",
]
