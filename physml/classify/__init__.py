"""Image classification: losses, augmentation, predictions and what they are worth."""

from physml.classify._augmentation import Augmentation as Augmentation
from physml.classify._evaluation import Calibration as Calibration
from physml.classify._evaluation import Evaluation as Evaluation
from physml.classify._evaluation import TopErrors as TopErrors
from physml.classify._evaluation import accuracy as accuracy
from physml.classify._evaluation import calibration as calibration
from physml.classify._evaluation import confusion_matrix as confusion_matrix
from physml.classify._evaluation import evaluate as evaluate
from physml.classify._evaluation import top_errors as top_errors
from physml.classify._members import evaluate_members as evaluate_members
from physml.classify._objective import cross_entropy as cross_entropy
from physml.classify._objective import error_rate as error_rate
from physml.classify._prediction import logits as logits
from physml.classify._prediction import member_probabilities as member_probabilities
from physml.classify._prediction import probabilities as probabilities
from physml.classify._training import fit as fit
